"""The state of a virtual cartridge on disk. Blocking; belongs to whoever holds the cartridge.

`state.json` is replaced durably: it is what survives a power cut. `buffered.json` is what the process wrote since, not
waited for: it survives the death of the process, as a drive survives its host, but not a boot. It holds the tape files
from the durable end of data on, and counts only for the very state it was written upon (`serial`) and the same boot.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec

from drivers.errors import DeviceFailed
from drivers.virtual.durable import replace_file

STATE = "state.json"
BUFFERED = "buffered.json"
FORMAT = "tapefs virtual cartridge"
VERSION = 1

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Natural = Annotated[int, msgspec.Meta(ge=0)]


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One tape file."""

    #: (block size, number of blocks), in order.
    runs: list[tuple[_Positive, _Positive]]
    #: A filemark closes it; only the last file can be open.
    filemark: bool


class EndRecord(msgspec.Struct, frozen=True, kw_only=True):
    """End of data; also the check sum of the list of files."""

    #: Filemarks before it.
    file: _Natural
    #: Logical blocks before it, a filemark is one.
    block: _Natural
    #: Payload bytes before it.
    byte: _Natural


class StateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `state.json`."""

    format: str = FORMAT
    version: int = VERSION
    barcode: str
    generation: _Positive
    capacity_bytes: _Positive
    write_protected: bool = False
    #: Write once, read many: nothing that is written can be overwritten.
    worm: bool = False
    #: Modelled seconds that its first load takes, in which a new LTO-9 cartridge is measured; 0: that has been done.
    first_load_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    #: Grows with every durable replacement.
    serial: _Natural = 0
    end_of_data: EndRecord = EndRecord(file=0, block=0, byte=0)
    files: list[FileRecord] = []


class BufferedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `buffered.json`."""

    #: Kernel's boot identity; after another boot the bytes may not have reached the disk.
    boot_id: str
    #: Serial of the state it goes on from.
    serial: int
    #: Number of the first file listed; files before are as in the state.
    first_file: _Natural
    end_of_data: EndRecord
    files: list[FileRecord]


class _Stamp(msgspec.Struct, frozen=True):
    format: str
    version: int


def file_name(number: int) -> str:
    """Return the name of tape file `number`."""
    return f"{number:05d}"


def end_of(files: list[FileRecord]) -> EndRecord:
    """Return the end of data of a list of files."""
    blocks = sum(count for each in files for _, count in each.runs)
    size_bytes = sum(size * count for each in files for size, count in each.runs)
    filemarks = sum(each.filemark for each in files)
    return EndRecord(file=filemarks, block=blocks + filemarks, byte=size_bytes)


def write_state(folder: Path, state: StateRecord) -> None:
    """Replace the state durably. Raises OSError."""
    replace_file(folder / STATE, msgspec.json.encode(state), sync=True)


def read_state(folder: Path) -> StateRecord:
    """Read and check the durable state. Raises DeviceFailed with what is wrong."""
    path = folder / STATE
    try:
        data = path.read_bytes()
        stamp = msgspec.json.decode(data, type=_Stamp)
        if stamp.format == FORMAT and stamp.version != VERSION:
            raise DeviceFailed(
                f"{path} has version {stamp.version}, this tapefs knows {VERSION}: use the tapefs that wrote it"
            )
        state = msgspec.json.decode(data, type=StateRecord)
    except OSError as error:
        raise DeviceFailed(f"cannot read the virtual cartridge's {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DeviceFailed(f"{path} is damaged: {error}") from error
    if state.format != FORMAT or not _is_sound(state.files, state.end_of_data):
        raise DeviceFailed(f"{path} is damaged: its list of files and its end of data disagree")
    return state


def _is_sound(files: list[FileRecord], end: EndRecord) -> bool:
    return all(each.filemark for each in files[:-1]) and end_of(files) == end


def write_buffered(folder: Path, serial: int, first_file: int, files: list[FileRecord], end: EndRecord) -> None:
    """Note what was written since the state with `serial`. Raises OSError."""
    record = BufferedRecord(boot_id=boot_id(), serial=serial, first_file=first_file, end_of_data=end, files=files)
    replace_file(folder / BUFFERED, msgspec.json.encode(record), sync=False)


def read_buffered(folder: Path, state: StateRecord) -> list[FileRecord]:
    """Return all files with what was noted since `state`; those of `state` alone when nothing valid was noted."""
    try:
        note = msgspec.json.decode((folder / BUFFERED).read_bytes(), type=BufferedRecord)
    except (FileNotFoundError, msgspec.DecodeError):
        # Never waited for, so it may be torn after a power cut: then the drive's buffer is lost.
        return state.files
    if note.boot_id != boot_id() or not note.boot_id or note.serial != state.serial:
        return state.files
    files = state.files[: note.first_file] + note.files
    return files if _is_sound(files, note.end_of_data) and _is_there(folder, note) else state.files


def _is_there(folder: Path, note: BufferedRecord) -> bool:
    for number, each in enumerate(note.files, note.first_file):
        path = folder / file_name(number)
        if not path.exists() or path.stat().st_size < end_of([each]).byte:
            return False
    return True


@cache
def boot_id() -> str:
    """Return the identity of this boot of the machine, empty where the kernel tells none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return ""


def set_measured(folder: Path) -> None:
    """Note durably that the first load of a cartridge is done; nobody may have it threaded. Raises DeviceFailed."""
    state = read_state(folder)
    if state.first_load_s:
        try:
            write_state(folder, msgspec.structs.replace(state, first_load_s=0.0))
        except OSError as error:
            raise DeviceFailed(f"cannot write the state of {folder}: {error.strerror}") from error


def create_cartridge(
    folder: Path, *, barcode: str, generation: int, capacity_bytes: int, worm: bool = False, first_load_s: float = 0.0
) -> None:
    """Make a blank cartridge; its folder must not exist. Raises OSError."""
    os.mkdir(folder, 0o700)
    write_state(
        folder,
        StateRecord(
            barcode=barcode,
            generation=generation,
            capacity_bytes=capacity_bytes,
            worm=worm,
            first_load_s=first_load_s,
        ),
    )
