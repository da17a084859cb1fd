"""Frames on their way: buffers, and the threads that hash and compress them.

One thread fills a frame and submits it; worker threads make SHA-256 sums and the stored bytes (both release the GIL);
one thread takes the frames out in the order they were submitted. Buffers are allocated once and used again: a fresh one
for every frame cost four times as much in page faults. Memory: (2 * workers + 3) frames, plain and stored.
"""

from __future__ import annotations

import hashlib
import mmap
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tapefs.codecs import Codec
from tapefs.format.frames import frame_checksum


class Span(NamedTuple):
    """Content of one member that lies wholly in a frame: the SHA-256 goes to draft number `draft` of the frame."""

    draft: int
    start: int
    length: int


class Piece(NamedTuple):
    """Content of a member that runs over several frames; the last one names the draft that gets the SHA-256."""

    start: int
    length: int
    first: bool
    #: -1: goes on in the next frame.
    draft: int


class Frame:
    """A buffer with tar members, what is to be hashed in it, and what the workers made of it."""

    __slots__ = (
        "checksum",
        "drafts",
        "error",
        "pieces",
        "ready",
        "spans",
        "stored",
        "sums",
        "used",
        "view",
    )

    def __init__(self, frame_bytes: int) -> None:
        # Not a bytearray: its zeros take 2 ms, and a run in which little has changed fills one of seven.
        self.view = memoryview(mmap.mmap(-1, frame_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self.ready = threading.Event()
        self.clear()

    def clear(self) -> None:
        """Make it empty again; the buffer stays."""
        self.used = 0
        #: Lines for the trailer in order: finished ones as records or JSON, and drafts that still want a sum.
        self.drafts: list[object] = []
        self.spans: list[Span] = []
        self.pieces: list[Piece] = []
        self.stored = b""
        self.checksum = b""
        #: SHA-256 by draft number.
        self.sums: dict[int, bytes] = {}
        self.error: BaseException | None = None
        self.ready.clear()


@dataclass(slots=True)
class Pool:
    """The frames that exist; `free` holds those nobody uses."""

    free: queue.SimpleQueue[Frame]
    #: Seconds that the thread which takes frames has waited for one.
    waited_s: float = 0.0

    @classmethod
    def of(cls, count: int, frame_bytes: int) -> Pool:
        """Make `count` frames."""
        free: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        for _ in range(count):
            free.put(Frame(frame_bytes))
        return cls(free)

    def take(self) -> Frame:
        """Wait for a free frame. For one thread."""
        before_s = time.perf_counter()
        frame = self.free.get()
        self.waited_s += time.perf_counter() - before_s
        return frame

    def give_back(self, frame: Frame) -> None:
        """The frame may be filled again."""
        frame.clear()
        self.free.put(frame)


class Workers:
    """Threads that turn submitted frames into stored ones; each has a compressor of its own."""

    def __init__(self, count: int, codec: Codec, level: int) -> None:
        self._waiting: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        #: Seconds that each has worked.
        self._busy_s = [0.0] * count
        self._threads = [
            threading.Thread(target=self._work, args=(codec.encoder(level), n), name=f"compress-{n}")
            for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def busy_s(self) -> float:
        """Seconds that all of them have worked."""
        return sum(self._busy_s)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._threads)

    def submit(self, frame: Frame) -> None:
        """Have the frame hashed and compressed; `frame.ready` tells when."""
        self._waiting.put(frame)

    def close(self) -> None:
        """Finish what was submitted and end the threads."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, encode: Callable[[memoryview], bytes], number: int) -> None:
        while (frame := self._waiting.get()) is not None:
            before_s = time.perf_counter()
            try:
                _process(frame, encode)
            except BaseException as error:  # noqa: BLE001 - handed to the thread that takes the frame out
                frame.error = error
            self._busy_s[number] += time.perf_counter() - before_s
            frame.ready.set()


def _process(frame: Frame, encode: Callable[[memoryview], bytes]) -> None:
    view = frame.view
    sha256 = hashlib.sha256
    for draft, start, length in frame.spans:
        frame.sums[draft] = sha256(view[start : start + length]).digest()
    frame.stored = encode(view[: frame.used])
    frame.checksum = frame_checksum(frame.stored)
