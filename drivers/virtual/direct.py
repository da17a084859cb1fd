"""The growing end of a payload file, written past the page cache. Blocking; belongs to its `PayloadFiles`.

A cartridge is written once and waited for soon. Through the page cache a GB costs 0.25 to 1.6 s of processor time on a
virtual machine (fresh pages), drives the files that are being backed up out of the cache, and leaves the wait for the
disk to the end; directly it costs 0.1 s. Bytes collect in an aligned buffer, as in a drive's own.

Raises OSError as the system does; then what was collected is gone, and the owner discards.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

from drivers.virtual.durable import write_fully

#: Blocks from this size on are worth it.
LEAST_BLOCK_BYTES = 64 * 1024
#: Alignment in the file and in memory that all disks are content with.
ALIGNMENT_BYTES = 4096
_BUFFER_BYTES = 2 * 1024 * 1024


class DirectTail:
    """Collects what is appended to one file. What was taken in is in the file only after `drain`."""

    def __init__(self, buffer: memoryview, path: Path, number: int, offset: int) -> None:
        """Go on at byte `offset`, a multiple of ALIGNMENT_BYTES. Raises OSError, EINVAL where the system cannot."""
        self.number = number
        self._buffer = buffer
        #: Place in the file of the buffer's first byte, and the bytes in it.
        self._base = offset
        self._used = 0
        #: Bytes of the buffer that the last `drain` has put into the file already.
        self._drained = 0
        self._plain = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._direct = os.open(path, os.O_RDWR | os.O_DIRECT)
        except OSError:
            os.close(self._plain)
            raise

    def goes_on_at(self, number: int, offset: int) -> bool:
        """Tell whether that place is where the next byte belongs."""
        return number == self.number and offset == self._base + self._used

    def append(self, block: bytes | memoryview) -> None:
        """Take in bytes."""
        rest = memoryview(block)
        while rest:
            taken = min(len(rest), len(self._buffer) - self._used)
            self._buffer[self._used : self._used + taken] = rest[:taken]
            self._used += taken
            rest = rest[taken:]
            if self._used == len(self._buffer):
                self._write_aligned()

    def drain(self) -> None:
        """Put all that was taken in into the file, without waiting for the disk."""
        self._write_aligned()
        if self._used > self._drained:
            write_fully(self._plain, self._buffer[: self._used], self._base)
            self._drained = self._used

    def close(self) -> None:
        """Let go of the file; what was not drained is lost."""
        os.close(self._direct)
        os.close(self._plain)

    def _write_aligned(self) -> None:
        """Write whole pages; what is left of a page moves to the front."""
        whole = self._used - self._used % ALIGNMENT_BYTES
        if not whole:
            return
        try:
            write_fully(self._direct, self._buffer[:whole], self._base)
        except OSError as error:
            # A disk with larger sectors, or a short write that left a place that is not aligned.
            if error.errno != errno.EINVAL:
                raise
            write_fully(self._plain, self._buffer[:whole], self._base)
        rest = bytes(self._buffer[whole : self._used])
        self._buffer[: len(rest)] = rest
        self._base += whole
        self._used, self._drained = len(rest), 0


def direct_buffer() -> memoryview:
    """Return a buffer for one `DirectTail` after the other; pages begin where memory does."""
    return memoryview(mmap.mmap(-1, _BUFFER_BYTES))
