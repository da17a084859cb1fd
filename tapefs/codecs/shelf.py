"""Memory for the outputs of compressors, used again when the last view of an output is gone.

A fresh block of memory for each output costs a page fault for every 4 KiB of it: 1 µs each on a quiet machine, and up
to 8 on a virtual one whose host has taken memory back. Any thread may take memory; views may die in any thread, and at
any moment: what happens then takes no lock.
"""

from __future__ import annotations

import mmap
import threading
from collections import deque
from typing import Any

from zstandard.backend_cffi import ffi  # type: ignore[attr-defined]

#: Shorter outputs are copied: they are cheap, and would keep a whole slab each from being used.
_LEAST_BYTES = 256 * 1024
#: A slab that once held so much more than its new output gives the rest back to the system.
_MOST_WASTE_BYTES = 1 << 20


class Slab:
    """A piece of memory for one output at a time."""

    __slots__ = ("_map", "data", "size", "touched")

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.size = size
        #: For calls of C.
        self.data: Any = ffi.from_buffer("char[]", self._map, require_writable=True)
        #: So many bytes at its begin have been written, and are in memory.
        self.touched = 0

    def read(self, used: int) -> bytes:
        """Return a copy of what lies at its begin."""
        return self._map[:used]

    def write(self, data: bytes | memoryview) -> None:
        """Put data at its begin."""
        self._map[: len(data)] = data

    def give_up_behind(self, used: int) -> None:
        """Give memory behind the first `used` bytes back to the system."""
        start = -(-used // mmap.PAGESIZE) * mmap.PAGESIZE
        if start < self.touched:
            self._map.madvise(mmap.MADV_DONTNEED, start, self.size - start)
            self.touched = start


class Shelf:
    """Slabs of `slab_bytes`, as many as are wanted at once."""

    def __init__(self, slab_bytes: int, most_bytes: int) -> None:
        """Slabs that nobody uses go when all of them together hold more than `most_bytes` of memory."""
        self._size = slab_bytes
        self._most = most_bytes
        #: The one that was used last is at the right end.
        self._free: deque[Slab] = deque()
        self._lock = threading.Lock()
        self._touched = 0

    @property
    def held_bytes(self) -> int:
        """Memory that the slabs take, whether they are used or not."""
        return self._touched

    def take(self, size: int) -> Slab:
        """Return a slab of `size` or more; it is the caller's until `keep`. Raises OSError if there is no memory."""
        try:
            while (slab := self._free.pop()).size < size:
                self._drop(slab)
        except IndexError:
            slab = Slab(max(size, self._size))
        return slab

    def copy(self, data: bytes | memoryview) -> bytes | memoryview:
        """Return a copy, as `keep` does. Raises OSError if there is no memory."""
        slab = self.take(len(data))
        slab.write(data)
        return self.keep(slab, len(data))

    def keep(self, slab: Slab, used: int) -> bytes | memoryview:
        """Return the first `used` bytes of a slab, read-only; it is free again when no view of them is left."""
        self._note(slab, used)
        if used < _LEAST_BYTES:
            stored = slab.read(used)
            self._free.append(slab)
            return stored
        free = self._free
        # The memoryview keeps the buffer, which keeps the pointer, whose end is the end of all views.
        lent = ffi.gc(ffi.cast("char *", slab.data), lambda _: free.append(slab))
        return memoryview(ffi.buffer(lent, used)).toreadonly()

    def _note(self, slab: Slab, used: int) -> None:
        with self._lock:
            before = slab.touched
            slab.touched = max(before, used)
            if slab.touched > used + _MOST_WASTE_BYTES:
                slab.give_up_behind(used)
            self._touched += slab.touched - before
            while self._touched > self._most and self._free:
                self._touched -= self._free.popleft().touched

    def _drop(self, slab: Slab) -> None:
        with self._lock:
            self._touched -= slab.touched
