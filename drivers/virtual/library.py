"""Virtual libraries: making them, adding cartridges, write protection. Blocking; any process.

Every change is made under `library.lock` and is one atomic replacement of `library.json`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from uuid import uuid4

import msgspec

from drivers.errors import ChangerError, DeviceFailed, NotReady, SlotEmpty
from drivers.virtual.cartridge import Cartridge
from drivers.virtual.durable import sync_file, sync_folder
from drivers.virtual.generations import lto
from drivers.virtual.layout import (
    DriveBay,
    LibraryRecord,
    cartridge_folder,
    library_lock,
    read_library,
    write_library,
)
from drivers.virtual.state import create_cartridge, read_state

MAX_TAPES = 9999
#: As many as fit behind that many slots, and more than any library has.
MAX_PORTS = 96
MIN_TAPE_BYTES = 1024 * 1024


def create_library(folder: Path, *, tapes: int, tape_bytes: int, drives: int, generation: int) -> list[str]:
    """Make a library of blank tapes, one per slot, and return their barcodes, such as TP0001L9.

    It appears whole or not at all. Raises ValueError for numbers that make no sense, ChangerError when something is in
    `folder` already, DeviceFailed when the disk refuses.
    """
    _check(tapes, tape_bytes, drives, generation)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ChangerError(f"{folder} exists and is no empty folder: a virtual library is made in a new one")
    barcodes = [_barcode(number, generation) for number in range(1, tapes + 1)]
    library = LibraryRecord(
        serial=uuid4().hex[:8].upper(),
        slots=list(barcodes),
        drives=[DriveBay(generation=generation) for _ in range(drives)],
    )
    draft = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    try:
        _build(draft, library, tape_bytes, generation)
        draft.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise DeviceFailed(f"cannot make the virtual library {folder}: {error.strerror}") from error
    return barcodes


def _check(tapes: int, tape_bytes: int, drives: int, generation: int) -> None:
    native_bytes = lto(generation).capacity_bytes
    if not 1 <= tapes <= MAX_TAPES:
        raise ValueError(f"a virtual library has 1 to {MAX_TAPES} tapes, not {tapes}")
    if drives < 1:
        raise ValueError(f"a virtual library has at least one drive, not {drives}")
    if not MIN_TAPE_BYTES <= tape_bytes <= native_bytes:
        raise ValueError(f"an LTO-{generation} tape has {MIN_TAPE_BYTES} to {native_bytes} bytes, not {tape_bytes}")


def _build(folder: Path, library: LibraryRecord, tape_bytes: int, generation: int) -> None:
    folder.mkdir(0o700, parents=True)
    (folder / "drives").mkdir(0o700)
    (folder / "cartridges").mkdir(0o700)
    for barcode in library.barcodes():
        path = cartridge_folder(folder, barcode)
        create_cartridge(path, barcode=barcode, generation=generation, capacity_bytes=tape_bytes)
    sync_folder(folder / "cartridges")
    write_library(folder, library)


def _barcode(number: int, generation: int, *, worm: bool = False) -> str:
    # The last letter of WORM cartridges is T for LTO-3, then goes on.
    return f"TP{number:04d}L{chr(ord('T') + generation - 3) if worm else generation}"


# -- the operator's hand -------------------------------------------------------------------------------------------


def add_blank(
    folder: Path,
    *,
    tape_bytes: int,
    generation: int | None = None,
    barcode: str | None = None,
    worm: bool = False,
    first_load_s: float = 0.0,
) -> str:
    """Put a blank cartridge into the first free slot, or into a new one; return its barcode.

    A slot that the cartridge in a drive must come back to does not count as free.

    `worm`: what is written on it can never be overwritten. `first_load_s`: its first load takes so long. Without
    `generation` that of the first drive, without `barcode` the next free one. Raises ValueError, ChangerError when the
    barcode exists, DeviceFailed.
    """
    with library_lock(folder):
        library = read_library(folder)
        number = generation if generation is not None else library.drives[0].generation
        _check(1, tape_bytes, 1, number)
        name = barcode if barcode is not None else _free_barcode(library, number, worm)
        _check_barcode(folder, name)
        try:
            path = cartridge_folder(folder, name)
            create_cartridge(
                path,
                barcode=name,
                generation=number,
                capacity_bytes=tape_bytes,
                worm=worm,
                first_load_s=first_load_s,
            )
            sync_folder(path.parent)
        except OSError as error:
            raise DeviceFailed(f"cannot make the cartridge {name}: {error.strerror}") from error
        write_library(folder, _with_new(library, name))
        return name


def add_from(folder: Path, source: Path) -> str:
    """Copy a cartridge's folder of another library into this one; return its barcode.

    It comes into a free port, else into a slot as with `add_blank`.

    Raises ChangerError when the barcode exists, DeviceFailed when `source` is no sound cartridge.
    """
    barcode = read_state(source).barcode
    with library_lock(folder):
        library = read_library(folder)
        _check_barcode(folder, barcode)
        try:
            _copy_durably(source, cartridge_folder(folder, barcode))
        except OSError as error:
            raise DeviceFailed(f"cannot copy {source}: {error.strerror or error}") from error
        write_library(folder, _with_new(library, barcode, by_port=True))
    return barcode


def set_ports(folder: Path, ports: int) -> None:
    """Give a library so many ports, behind its slots. Raises ChangerError when a port to go holds a cartridge.

    Also raises ValueError, DeviceFailed; no drive and no robot may be in use.
    """
    if not 0 <= ports <= MAX_PORTS:
        raise ValueError(f"a virtual library has 0 to {MAX_PORTS} ports, not {ports}")
    with library_lock(folder):
        library = read_library(folder)
        old = library.slots[library.first_port :]
        if any(old[ports:]):
            raise ChangerError(f"{next(filter(None, old[ports:]))} lies in a port: move it to a slot first")
        slots = library.slots[: library.first_port] + (old + [None] * ports)[:ports]
        write_library(folder, msgspec.structs.replace(library, slots=slots, ports=ports))


def take_out(folder: Path, barcode: str, target: Path) -> None:
    """Take a cartridge out of its slot: its folder moves to `target`, which must not exist; `add_from` takes it back.

    Raises SlotEmpty when there is none, NotReady while it is in a drive, DeviceFailed.
    """
    with library_lock(folder):
        library = read_library(folder)
        slot = _slot_of(library, barcode)
        source = cartridge_folder(folder, barcode)
        try:
            _copy_durably(source, target)
            write_library(folder, library.with_slot(slot, None))
            shutil.rmtree(source)
        except OSError as error:
            raise DeviceFailed(f"cannot move {source} to {target}: {error.strerror or error}") from error


def _slot_of(library: LibraryRecord, barcode: str) -> int:
    if barcode not in library.barcodes():
        raise SlotEmpty(f"the library has no cartridge {barcode}")
    if barcode not in library.slots:
        raise NotReady(f"{barcode} is in a drive: move it to a slot first")
    return library.slots.index(barcode)


def _copy_durably(source: Path, target: Path) -> None:
    draft = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    try:
        shutil.copytree(source, draft)
        for path in draft.iterdir():
            sync_file(path)
        sync_folder(draft)
        os.rename(draft, target)
        sync_folder(target.parent)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _free_barcode(library: LibraryRecord, generation: int, worm: bool) -> str:
    taken = {each[:6] for each in library.barcodes()}
    for number in range(1, MAX_TAPES + 1):
        name = _barcode(number, generation, worm=worm)
        if name[:6] not in taken:
            return name
    raise ChangerError(f"all barcodes up to {_barcode(MAX_TAPES, generation)} are taken: name one")


def _check_barcode(folder: Path, barcode: str) -> None:
    if not (barcode.isascii() and barcode.isalnum()):
        raise ValueError(f"barcode {barcode!r}: use letters and digits only")
    if cartridge_folder(folder, barcode).exists():
        raise ChangerError(f"the library has a cartridge {barcode} already")


def _with_new(library: LibraryRecord, barcode: str, *, by_port: bool = False) -> LibraryRecord:
    """Return the library with a new cartridge: in a free port if that is wanted and there, else in a slot.

    As many slots stay free as drives are loaded: the robot must be able to put those cartridges somewhere.
    """
    first = library.first_port
    if by_port and None in library.slots[first:]:
        return library.with_slot(library.slots.index(None, first), barcode)
    slots, ports = library.slots[:first], library.slots[first:]
    kept_free = sum(bay.barcode is not None for bay in library.drives)
    if slots.count(None) > kept_free:
        slots[slots.index(None)] = barcode
    else:
        slots.append(barcode)
    slots += [None] * (kept_free - slots.count(None))
    return msgspec.structs.replace(library, slots=[*slots, *ports])


def set_write_protected(folder: Path, barcode: str, protected: bool) -> None:
    """Set or clear the tab of a cartridge in a slot.

    Raises SlotEmpty when there is none, NotReady while it is in a drive, DeviceFailed, WriteFailed.
    """
    with library_lock(folder):
        _slot_of(read_library(folder), barcode)
        tape = Cartridge(cartridge_folder(folder, barcode))
        tape.protect(protected)
        tape.close()
