"""What is noted of a library whose robot is a human: which tapes there are, and which was put where last. Blocking.

`shelf.json` in the library's folder is replaced durably at every change: it is as before the change or as after it.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from drivers.errors import DeviceFailed


class Shelf(msgspec.Struct, frozen=True, kw_only=True):
    """One shelf of any size; its numbers stay while the library is there, and mean nothing to the human."""

    slots: tuple[str | None, ...] = ()
    #: By number of the drive: what is in it, for us.
    drives: tuple[str | None, ...] = ()
    #: By number of the drive: what was ejected and lies on the shelf for us, but may not have been taken out yet.
    leaving: tuple[str | None, ...] = ()

    def grown(self, drives: int) -> Shelf:
        """Return it with so many drives, and with one free slot more than all tapes need."""
        in_drives = _filled(self.drives, drives)
        tapes = sum(each is not None for each in (*self.slots, *in_drives))
        return Shelf(slots=_filled(self.slots, tapes + 1), drives=in_drives, leaving=_filled(self.leaving, drives))

    def with_slot(self, number: int, barcode: str | None) -> Shelf:
        """Return it with another content of a slot."""
        return msgspec.structs.replace(self, slots=_put(self.slots, number, barcode))

    def with_drive(self, number: int, barcode: str | None, *, leaving: str | None = None) -> Shelf:
        """Return it with another content of a drive, and what is to be taken out of it."""
        return msgspec.structs.replace(
            self, drives=_put(self.drives, number, barcode), leaving=_put(self.leaving, number, leaving)
        )

    def tapes(self) -> set[str]:
        """Return all tapes that are known."""
        return {each for each in (*self.slots, *self.drives) if each is not None}


def _filled(places: tuple[str | None, ...], count: int) -> tuple[str | None, ...]:
    return places + (None,) * (count - len(places))


def _put(places: tuple[str | None, ...], number: int, barcode: str | None) -> tuple[str | None, ...]:
    return (*places[:number], barcode, *places[number + 1 :])


def read_shelf(folder: Path) -> Shelf:
    """Return what is noted; an empty shelf when nothing was yet. Raises DeviceFailed."""
    path = folder / "shelf.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Shelf)
    except FileNotFoundError:
        return Shelf()
    except (OSError, msgspec.MsgspecError) as error:
        raise DeviceFailed(f"{path} cannot be read: {error}") from error


def write_shelf(folder: Path, shelf: Shelf) -> None:
    """Note it durably. Raises DeviceFailed."""
    path, draft = folder / "shelf.json", folder / ".shelf.json.new"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(shelf)))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DeviceFailed(f"cannot write {path}: {error.strerror}") from error
