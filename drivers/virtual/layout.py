"""The folder of a virtual library: `library.json`, its lock, and the paths. Blocking; any thread, any process.

library.json        which cartridge is in which slot or drive; replaced atomically under `library.lock`
library.lock        held (flock) for the moment of a change
cartridges/BARCODE/ one folder per cartridge, wherever it is at the moment
drives/N.lock       held (flock) while a process has drive N open
drives/N.json       threaded cartridge and counters of drive N
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec

from drivers.errors import DeviceFailed, NoSuchElement
from drivers.virtual.durable import replace_file

FORMAT = "tapefs virtual library"
VERSION = 1


class DriveBay(msgspec.Struct, frozen=True, kw_only=True):
    """A drive of the library and what is in it."""

    generation: int
    barcode: str | None = None


class LibraryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `library.json`; unknown keys are ignored, another version is refused."""

    format: str = FORMAT
    version: int = VERSION
    #: Part of the drives' serial numbers.
    serial: str
    #: Barcode per slot, ports behind the others.
    slots: list[str | None]
    drives: list[DriveBay]
    #: So many of the last slots are ports, through which cartridges come in and go out.
    ports: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def first_port(self) -> int:
        """Return the number of the first slot that is a port."""
        return max(0, len(self.slots) - self.ports)

    def barcodes(self) -> list[str]:
        """Return the barcodes of all cartridges, in slots and drives."""
        places = [*self.slots, *(each.barcode for each in self.drives)]
        return [each for each in places if each is not None]

    def bay(self, number: int) -> DriveBay:
        """Return drive `number`. Raises NoSuchElement."""
        if not 0 <= number < len(self.drives):
            raise NoSuchElement(f"the library has no drive {number}: it has {len(self.drives)}, counted from 0")
        return self.drives[number]

    def slot(self, number: int) -> str | None:
        """Return what is in slot `number`. Raises NoSuchElement."""
        if not 0 <= number < len(self.slots):
            raise NoSuchElement(f"the library has no slot {number}: it has {len(self.slots)}, counted from 0")
        return self.slots[number]

    def with_slot(self, number: int, barcode: str | None) -> LibraryRecord:
        """Return the library with another content of a slot."""
        slots = [barcode if each == number else old for each, old in enumerate(self.slots)]
        return msgspec.structs.replace(self, slots=slots)

    def with_drive(self, number: int, barcode: str | None) -> LibraryRecord:
        """Return the library with another content of a drive."""
        drives = list(self.drives)
        drives[number] = msgspec.structs.replace(drives[number], barcode=barcode)
        return msgspec.structs.replace(self, drives=drives)


def cartridge_folder(folder: Path, barcode: str) -> Path:
    """Return the folder of a cartridge."""
    return folder / "cartridges" / barcode


def drive_state_path(folder: Path, number: int) -> Path:
    """Return the file with the state of a drive."""
    return folder / "drives" / f"{number}.json"


def drive_lock_path(folder: Path, number: int) -> Path:
    """Return the file that the process with drive `number` holds locked."""
    return folder / "drives" / f"{number}.lock"


def read_library(folder: Path) -> LibraryRecord:
    """Read `library.json`. Raises DeviceFailed with what to do."""
    path = folder / "library.json"
    try:
        library = msgspec.json.decode(path.read_bytes(), type=LibraryRecord)
    except FileNotFoundError:
        raise DeviceFailed(f"{folder} is no virtual library: there is no library.json") from None
    except OSError as error:
        raise DeviceFailed(f"cannot read {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise DeviceFailed(f"{path} is damaged: {error}") from error
    if (library.format, library.version) != (FORMAT, VERSION):
        raise DeviceFailed(f"{path} is {library.format!r} version {library.version}, this tapefs knows {VERSION}")
    return library


def write_library(folder: Path, library: LibraryRecord) -> None:
    """Replace `library.json` durably; the caller holds the lock. Raises DeviceFailed."""
    try:
        replace_file(folder / "library.json", msgspec.json.format(msgspec.json.encode(library), indent=1), sync=True)
    except OSError as error:
        raise DeviceFailed(f"cannot write {folder}/library.json: {error.strerror}") from error


@contextmanager
def library_lock(folder: Path) -> Iterator[None]:
    """Keep all others from changing the library, for moments only. Raises DeviceFailed."""
    try:
        descriptor = os.open(folder / "library.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DeviceFailed(f"cannot lock the virtual library in {folder}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
