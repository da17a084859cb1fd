"""The plain files of a virtual cartridge, one per tape file. Blocking; belongs to its cartridge.

Raises OSError as the system does; the cartridge says what that means for the tape.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path

from drivers.virtual.direct import ALIGNMENT_BYTES, LEAST_BLOCK_BYTES, DirectTail, direct_buffer
from drivers.virtual.durable import sync_file, sync_folder, write_fully
from drivers.virtual.state import file_name

_NAME = re.compile(r"[0-9]{5,}")
_NONE = -1


class PayloadFiles:
    """Reads and writes payload files by number; the one used last stays open.

    Large blocks that are appended collect in a buffer: after a `write` that raised, `discard`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor = _NONE
        self._number = _NONE
        self._writable = False
        self._created = False
        self._tail: DirectTail | None = None
        #: Made when first needed; None for good where the file system cannot write directly.
        self._buffer: memoryview | None = None
        self._can_be_direct = True

    def path(self, number: int) -> Path:
        """Return the path of file `number`."""
        return self.folder / file_name(number)

    def read_into(self, number: int, block: memoryview, offset: int) -> bool:
        """Fill `block` from byte `offset` on; False when the file is too short."""
        self.drain()
        self._open(number, os.O_RDONLY)
        done = os.preadv(self._descriptor, [block], offset)
        while 0 < done < len(block):
            more = os.preadv(self._descriptor, [block[done:]], offset + done)
            if not more:
                return False
            done += more
        return done == len(block)

    def write(self, number: int, block: bytes | memoryview, offset: int) -> None:
        """Write `block` at byte `offset`; the file is made if it does not exist. What it holds may wait for `drain`."""
        if tail := self._tail_for(number, len(block), offset):
            tail.append(block)
            return
        if self._number != number or not self._writable:
            self._open(number, os.O_RDWR | os.O_CREAT)
            self._created = True
        write_fully(self._descriptor, block, offset)

    def _tail_for(self, number: int, size_bytes: int, offset: int) -> DirectTail | None:
        """Return the tail that takes a block at that place; None when it is to be written at once."""
        if self._tail is not None:
            if self._tail.goes_on_at(number, offset):
                return self._tail
            self._end_tail()
        if size_bytes < LEAST_BLOCK_BYTES or offset % ALIGNMENT_BYTES or not self._can_be_direct:
            return None
        self.release()
        if self._buffer is None:
            self._buffer = direct_buffer()
        try:
            self._tail = DirectTail(self._buffer, self.path(number), number, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._can_be_direct, self._buffer = False, None
        self._created = True
        return self._tail

    def drain(self) -> None:
        """Put what waits in the buffer into its file, for other readers of the file; no wait for the disk."""
        if self._tail is not None:
            self._tail.drain()

    def _end_tail(self) -> None:
        """Have all of it in the file, and let go."""
        if self._tail is not None:
            self._tail.drain()
            self.discard()

    def discard(self) -> None:
        """Forget what waits in the buffer, and let go of all files."""
        tail, self._tail = self._tail, None
        if tail is not None:
            tail.close()
        self._close()

    def _open(self, number: int, flags: int) -> None:
        if self._number == number and (self._writable or flags == os.O_RDONLY):
            return
        self._close()
        self._descriptor = os.open(self.path(number), flags, 0o600)
        self._number = number
        self._writable = flags != os.O_RDONLY

    def sync(self, numbers: Iterable[int]) -> None:
        """Return when these files, and their names, would survive a power cut."""
        self.drain()
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
        """Close what is open, all of it being in the files."""
        self._end_tail()
        self._close()

    def _close(self) -> None:
        if self._descriptor != _NONE:
            os.close(self._descriptor)
        self._descriptor = self._number = _NONE
        self._writable = False
