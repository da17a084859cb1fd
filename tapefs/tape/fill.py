"""The fill buffer: blocks wait in memory until there are enough of them for the drive to stream.

The drive gets nothing until the buffer is full; then all that the buffer has, down to the low-water mark, as fast as it
takes it. A source that is slower than the drive costs one stop per buffer, instead of starving it block by block.

One thread puts blocks in, a thread of the buffer's own gives them to the drive. Between the first `write_block` and the
end of `drain` or `close` the drive belongs to the buffer.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from drivers.interface import Drive

#: A drive that feeds and leaves the buffer fuller than this is slower than what comes.
_FULL = 0.75
#: Share of the buffer that is kept back when the source is slower than the drive: what a new start begins with.
LOW_WATER = 8


@dataclass(slots=True)
class FillCounts:
    """What the fill buffers of a run have done, one after the other. Counted by their own threads."""

    #: Size of the largest.
    size_bytes: int = 0
    #: Times that one began to give to the drive.
    starts: int = 0
    #: Times that it ceased because the low-water mark was reached: the source is slower than the drive.
    stops: int = 0
    #: The drive would take more than it gets: it stands, or has emptied a good part of what it was given.
    drive_is_hungry: bool = True


class FillBuffer:
    """Up to `size_bytes` of blocks on their way to `drive`; 0 passes them on at once, in the caller's thread.

    Memory: `size_bytes`, and as much again as one frame: blocks that lie in `bytes` are kept where they are.
    """

    def __init__(self, drive: Drive, size_bytes: int, counts: FillCounts) -> None:
        self._drive = drive
        self._size = size_bytes
        self._counts = counts
        counts.size_bytes = max(counts.size_bytes, size_bytes)
        self._blocks: deque[bytes | memoryview] = deque()
        self._level = 0
        self._changed = threading.Condition()
        #: The drive is being given blocks; to the last one, when `_draining`.
        self._feeding = False
        self._draining = False
        self._closing = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        #: The drive has warned that the tape ends soon.
        self.end_is_near = False

    @property
    def is_feeding(self) -> bool:
        """Is the drive being given blocks? Else it stands, until there are enough."""
        return self._feeding

    @property
    def is_low(self) -> bool:
        """Is there little left to give?"""
        return self._level <= self._size // LOW_WATER

    def write_block(self, block: bytes | memoryview) -> bool:
        """Take in one block; True when the drive has given its early warning so far.

        Raises what the drive raised for this or an earlier block, again and again.
        """
        if not self._size:
            self.end_is_near |= self._drive.write_block(block)
            return self.end_is_near
        kept = block if isinstance(block, bytes) or block.readonly else bytes(block)
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._feed, name="tape-feeder")
                self._thread.start()
            while self._level and self._level + len(kept) > self._size and self._error is None:
                self._start_feeding()
                self._changed.wait()
            self._raise_error()
            self._blocks.append(kept)
            self._level += len(kept)
            self._look_at_drive()
            if self._feeding:
                self._changed.notify_all()
        return self.end_is_near

    def drain(self) -> None:
        """Return when the drive has taken all blocks; it is the caller's again. Raises as `write_block`."""
        with self._changed:
            self._draining = True
            self._start_feeding()
            while self._level and self._error is None:
                self._changed.wait()
        self.close()
        self._raise_error()

    def close(self) -> None:
        """Drop what is left; the drive is the caller's again. Harmless twice, and the end of the buffer."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._blocks.clear()
        self._counts.drive_is_hungry = True

    def _start_feeding(self) -> None:
        if not self._feeding and self._level:
            self._feeding = True
            self._counts.starts += 1
            self._look_at_drive()
            self._changed.notify_all()

    def _look_at_drive(self) -> None:
        self._counts.drive_is_hungry = not self._feeding or self._level <= _FULL * self._size

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _feed(self) -> None:
        while (block := self._next()) is not None:
            try:
                near = self._drive.write_block(block)
            except BaseException as error:  # noqa: BLE001 - handed to the thread that puts blocks in
                self._taken(block, False, error)
                return
            self._taken(block, near, None)

    def _next(self) -> bytes | memoryview | None:
        with self._changed:
            while not self._closing and not (self._feeding and self._blocks):
                self._changed.wait()
            return None if self._closing else self._blocks.popleft()

    def _taken(self, block: bytes | memoryview, near: bool, error: BaseException | None) -> None:
        with self._changed:
            self._level -= len(block)
            self.end_is_near |= near
            self._error = error
            self._look_at_drive()
            if not self._draining and self._level <= self._size // LOW_WATER:
                self._feeding = False
                self._counts.stops += 1
            self._changed.notify_all()
