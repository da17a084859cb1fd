"""Frames on their way: buffers, and the threads that hash and compress them.

One thread fills a frame and submits it; worker threads make SHA-256 sums and the stored bytes, and one more the sums
of what runs over frames (all release the GIL); one thread takes the frames out in the order they were submitted.
Buffers are allocated once and used again: a fresh one for every frame cost four times as much in page faults. What is
stored lies on a shelf (`codecs/shelf.py`) and goes back there when the last block of it is written. Memory: as many
frames as `frames_for` says, plain and stored, and what waits for the drive.
"""

from __future__ import annotations

import hashlib
import mmap
import queue
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from tapefs.backup.levels import LevelControl, Pressure
from tapefs.codecs import Codec, Encoder, is_open
from tapefs.codecs.shelf import Shelf
from tapefs.format.frames import frame_checksum
from tapefs.standing_back import stand_back
from tapefs.tape.fill import FillCounts

_BETWEEN_THREADS = 8
#: What compressing makes of a frame that does not compress is so much longer, and a 128th.
_MORE_BYTES = 4096
#: Weight of the newest frame in a running mean.
_NEWEST = 0.2


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
        "open_tasks",
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
        #: Nothing is to be done with it any more but to write it.
        self.ready = threading.Event()
        self.clear()

    def clear(self) -> None:
        """Make it empty again; the buffer stays."""
        self.used = 0
        #: Lines for the trailer in order: finished ones as records or JSON, and drafts that still want a sum.
        self.drafts: list[object] = []
        self.spans: list[Span] = []
        self.pieces: list[Piece] = []
        self.stored: bytes | memoryview = b""
        self.checksum = b""
        #: SHA-256 by draft number.
        self.sums: dict[int, bytes] = {}
        self.error: BaseException | None = None
        #: Threads that are still to do their part; theirs.
        self.open_tasks = 0
        self.ready.clear()


def frames_for(workers: int) -> int:
    """Return how many frames so many workers want: one each at work and waiting, and some between the other threads.

    With three of those, on two processors, workers stood still while finished frames waited for the writer's turn.
    """
    return 2 * workers + _BETWEEN_THREADS


@dataclass(slots=True)
class Pool:
    """The frames that exist; `free` holds those nobody uses."""

    free: queue.SimpleQueue[Frame]
    count: int
    frame_bytes: int
    #: Seconds that the thread which takes frames has waited for one.
    waited_s: float = 0.0

    @classmethod
    def of(cls, count: int, frame_bytes: int) -> Pool:
        """Make `count` frames."""
        free: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        for _ in range(count):
            free.put(Frame(frame_bytes))
        return cls(free, count, frame_bytes)

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
    """Threads that turn submitted frames into stored ones; each has compressors of its own."""

    def __init__(
        self,
        count: int,
        codec: Codec,
        level: int,
        pool: Pool,
        fills: FillCounts,
        niceness: int = 0,
        buffer_bytes: int = 0,
    ) -> None:
        """Where `level` leaves it open, `pool` and `fills` tell what the run waits for.

        `buffer_bytes` of what is stored are kept before the drive. Raises UsageError.
        """
        codec.encoder(level)
        self._codec = codec
        self._level = level
        self._niceness = niceness
        frame_bytes = pool.frame_bytes
        kept_bytes = buffer_bytes + pool.count * frame_bytes // 2
        self._shelf = Shelf(frame_bytes + frame_bytes // 128 + _MORE_BYTES, kept_bytes)
        self._control = LevelControl(codec.auto_levels, count) if is_open(codec, level) else None
        #: See `Pressure.lateness`.
        self._lateness = 0.0
        self._pool = pool
        self._fills = fills
        self._lock = threading.Lock()
        self._at_work = 0
        #: Frames by level.
        self.levels: Counter[int] = Counter()
        self._waiting: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        #: Seconds that each has worked.
        self._busy_s = [0.0] * count
        self._threads = [threading.Thread(target=self._work, args=(n,), name=f"compress-{n}") for n in range(count)]
        self._running_over: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._summing = threading.Thread(target=self._sum_up, name="sum")
        for thread in (*self._threads, self._summing):
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
        frame.open_tasks = 1
        if frame.pieces:
            frame.open_tasks = 2
            self._running_over.put(frame)
        self._waiting.put(frame)

    def close(self) -> None:
        """Finish what was submitted and end the threads."""
        for _ in self._threads:
            self._waiting.put(None)
        self._running_over.put(None)
        for thread in (*self._threads, self._summing):
            thread.join()

    def _work(self, number: int) -> None:
        stand_back(self._niceness)
        encoders: dict[int, Encoder] = {}
        while (frame := self._waiting.get()) is not None:
            before_s, cpu_before_s = time.perf_counter(), time.thread_time()
            try:
                level = self._begin()
                if level not in encoders:
                    encoders[level] = self._codec.encoder(level, self._shelf)
                _process(frame, encoders[level])
            except BaseException as error:  # noqa: BLE001 - handed to the thread that takes the frame out
                frame.error = error
            busy_s = time.perf_counter() - before_s
            self._busy_s[number] += busy_s
            self._end(1 - (time.thread_time() - cpu_before_s) / busy_s)
            self._done(frame)

    def _sum_up(self) -> None:
        """Make the SHA-256 of members that run over frames: a stream has one, so this is one thread's work."""
        stand_back(self._niceness)
        running = hashlib.sha256()
        while (frame := self._running_over.get()) is not None:
            try:
                for start, length, first, draft in frame.pieces:
                    if first:
                        running = hashlib.sha256()
                    running.update(frame.view[start : start + length])
                    if draft >= 0:
                        frame.sums[draft] = running.digest()
            except BaseException as error:  # noqa: BLE001 - handed to the thread that takes the frame out
                frame.error = error
            self._done(frame)

    def _done(self, frame: Frame) -> None:
        with self._lock:
            frame.open_tasks -= 1
            if not frame.open_tasks:
                frame.ready.set()

    def _begin(self) -> int:
        """Return the level of the frame that is begun."""
        with self._lock:
            self._at_work += 1
            level = self._level if self._control is None else self._control.next(self._pressure())
            self.levels[level] += 1
            return level

    def _end(self, lateness: float) -> None:
        with self._lock:
            self._at_work -= 1
            self._lateness += (lateness - self._lateness) * _NEWEST

    def _pressure(self) -> Pressure:
        waiting = self._waiting.qsize()
        # One frame is being filled.
        finished = self._pool.count - self._pool.free.qsize() - 1 - waiting - self._at_work
        return Pressure(waiting, finished, self._fills.drive_is_hungry, self._lateness)


def _process(frame: Frame, encode: Encoder) -> None:
    view = frame.view
    sha256 = hashlib.sha256
    for draft, start, length in frame.spans:
        frame.sums[draft] = sha256(view[start : start + length]).digest()
    frame.stored = encode(view[: frame.used])
    frame.checksum = frame_checksum(frame.stored)
