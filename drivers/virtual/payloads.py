"""The plain files of a virtual cartridge, one per tape file. Blocking; belongs to its cartridge.

Raises OSError as the system does; the cartridge says what that means for the tape.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from drivers.virtual.durable import sync_file, sync_folder, write_fully
from drivers.virtual.state import file_name

_NAME = re.compile(r"[0-9]{5,}")
_NONE = -1


class PayloadFiles:
    """Reads and writes payload files by number; the one used last stays open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor = _NONE
        self._number = _NONE
        self._writable = False
        self._created = False

    def path(self, number: int) -> Path:
        """Return the path of file `number`."""
        return self.folder / file_name(number)

    def read_into(self, number: int, block: memoryview, offset: int) -> bool:
        """Fill `block` from byte `offset` on; False when the file is too short."""
        self._open(number, os.O_RDONLY)
        done = os.preadv(self._descriptor, [block], offset)
        while 0 < done < len(block):
            more = os.preadv(self._descriptor, [block[done:]], offset + done)
            if not more:
                return False
            done += more
        return done == len(block)

    def write(self, number: int, block: bytes | memoryview, offset: int) -> None:
        """Write `block` at byte `offset`; the file is made if it does not exist."""
        if self._number != number or not self._writable:
            self._open(number, os.O_RDWR | os.O_CREAT)
            self._created = True
        write_fully(self._descriptor, block, offset)

    def _open(self, number: int, flags: int) -> None:
        if self._number == number and (self._writable or flags == os.O_RDONLY):
            return
        self.release()
        self._descriptor = os.open(self.path(number), flags, 0o600)
        self._number = number
        self._writable = flags != os.O_RDONLY

    def sync(self, numbers: Iterable[int]) -> None:
        """Return when these files, and their names, would survive a power cut."""
        for number in numbers:
            sync_file(self.path(number))
        if self._created:
            sync_folder(self.folder)
        self._created = False

    def cut(self, number: int, size_bytes: int) -> None:
        """Cut file `number` to `size_bytes` (0: delete it) and delete all files behind it."""
        self.release()
        last = number if size_bytes else number - 1
        for path in self.folder.iterdir():
            if _NAME.fullmatch(path.name) and int(path.name) > last:
                path.unlink()
        if size_bytes:
            os.truncate(self.path(number), size_bytes)

    def release(self) -> None:
        """Close the open file."""
        if self._descriptor != _NONE:
            os.close(self._descriptor)
        self._descriptor = self._number = _NONE
        self._writable = False
