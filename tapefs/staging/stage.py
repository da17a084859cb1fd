"""The staging file of one segment: frames of its plain tar stream that were read from tape, shared by all processes.

The protocol, and why nobody ever reads bytes that are not the archive's, is in `docs/staging.md`. In short: a frame's
word is set after its bytes were written, cleared and counted up before they are punched out, and a reader that finds
the same word before and after its `pread` has the bytes. Changes to a frame happen under an exclusive lock on its
checksum; pins are shared locks on its word, which an evictor wants for itself, too.

A frame without the bit in its word but with a checksum is *doubtful*: its bytes may be there from before the machine
was started again. `revive` compares them with the checksum and announces them.

Threads may share a stage; `close` must be the last call. Nothing waits for a tape, and only `publish` may wait for
another process: for the moment that one takes to evict the same frame.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import xxhash

from catalog.crash import crash_point
from catalog.ids import SegmentId
from catalog.index.model import FrameRow
from tapefs.errors import BadStructure
from tapefs.staging import locks
from tapefs.staging.holes import punch_hole
from tapefs.staging.map_file import PRESENT, WORD_BYTES, MapFile, array_offset, starts_of
from tapefs.staging.pair import adopt_pair, changing, make_pair, open_pair

_BLOCK_BYTES = 4096
_LOCK_RETRY_S = 0.0005
_PIECE_BYTES = 1 << 20
#: What is locked of a frame: its word by pins and evictors, its checksum by whoever changes it.
_WORDS, _CHECKSUMS = 0, 2

_log = logging.getLogger(__name__)

_after_write = crash_point("staging.publish.written")
_after_clear = crash_point("staging.evict.cleared")


class Pin:
    """Keeps frames from being evicted until `release`, or until the process ends."""

    __slots__ = ("_frames", "_stage")

    def __init__(self, stage: SegmentStage | None, frames: range) -> None:
        self._stage = stage
        self._frames = frames

    def release(self) -> None:
        """Let go; further calls do nothing."""
        stage, self._stage = self._stage, None
        if stage is not None:
            stage._unpin(self._frames)

    def __enter__(self) -> Pin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class SegmentStage:
    """What is staged of one segment. Make it with `create` or `open`; ranges are of frame numbers."""

    def __init__(self, segment_id: SegmentId, mapped: MapFile, plain: int) -> None:
        self.segment_id = segment_id
        #: Length of the segment's plain tar stream.
        self.plain_bytes = mapped.starts[-1]
        self.frame_count = mapped.count
        self._map = mapped
        self._plain = plain
        self._starts = mapped.starts
        self._words = mapped.words
        self._checksums = mapped.checksums
        self._changing = threading.Lock()
        # Pins of this object share one open file, apart from the one that changes lock with: a process must not pass
        # its own pins.
        self._pins: dict[int, int] = {}
        self._pin_fd = -1
        self._pinning = threading.Lock()

    @classmethod
    def open(cls, folder: Path, segment_id: SegmentId) -> SegmentStage | None:
        """Return the segment's stage, or None if there is none, or none to be trusted: then everything is cold."""
        pair = open_pair(folder, segment_id)
        return None if pair is None else cls(segment_id, *pair)

    @classmethod
    def create(cls, folder: Path, segment_id: SegmentId, frames: Sequence[FrameRow]) -> SegmentStage:
        """Return the segment's stage, made anew if there is none to be trusted. `frames` is the whole frame table.

        Any number of processes may call it at once. Raises BadStructure if the frames do not tile the stream,
        HomeError if the file system cannot punch holes, OSError.
        """
        starts = starts_of(frames)
        stage = cls._open_same(folder, segment_id, starts, warn=False)
        if stage is not None:
            return stage
        with changing(folder):
            adopt_pair(folder, segment_id)
            stage = cls._open_same(folder, segment_id, starts, warn=True)
            if stage is None:
                make_pair(folder, segment_id, starts)
                stage = cls.open(folder, segment_id)
        if stage is None:
            raise AssertionError(f"the stage of {segment_id} vanished while it was made")
        return stage

    @classmethod
    def _open_same(cls, folder: Path, segment_id: SegmentId, starts: list[int], *, warn: bool) -> SegmentStage | None:
        pair = open_pair(folder, segment_id, warn=warn)
        if pair is None:
            return None
        stage = cls(segment_id, *pair)
        if stage._starts == starts:
            return stage
        stage.close()
        if warn:
            _log.warning("%s: the staging map has another frame table; it is made anew", segment_id)
        return None

    def frames_for(self, offset: int, length: int) -> range:
        """Return the frames that hold these bytes of the plain stream.

        Raises BadStructure if there are no such bytes.
        """
        end = offset + length
        if not 0 <= offset <= end <= self.plain_bytes:
            raise BadStructure(f"segment {self.segment_id} has no bytes {offset} to {end}: the index is damaged")
        if not length:
            return range(0)
        first = bisect_right(self._starts, offset) - 1
        if end <= self._starts[first + 1]:
            return range(first, first + 1)
        return range(first, bisect_right(self._starts, end - 1))

    def extent_of(self, frame: int) -> tuple[int, int]:
        """Return offset and length of a frame in the plain stream."""
        return self._starts[frame], self._starts[frame + 1] - self._starts[frame]

    def has(self, frames: range) -> bool:
        """Tell whether all of them are staged at the moment."""
        words = self._words
        return all(words[frame] & PRESENT for frame in frames)

    def missing(self, frames: range) -> list[int]:
        """Return those that are not staged at the moment."""
        words = self._words
        return [frame for frame in frames if not words[frame] & PRESENT]

    def doubtful(self, frames: range) -> list[int]:
        """Return those whose bytes may be there from before the machine was started again; see `revive`."""
        words, checksums = self._words, self._checksums
        return [frame for frame in frames if checksums[frame] and not words[frame] & PRESENT]

    def is_linked(self) -> bool:
        """Tell whether both files still have their names; if somebody removed or replaced one, `create` it again."""
        return os.fstat(self._plain).st_nlink > 0 and os.fstat(self._map.fd).st_nlink > 0

    def last_used(self, frame: int) -> int:
        """Return when the frame was last used, in seconds since the machine was started."""
        return self._map.last_used[frame]

    def read(self, offset: int, length: int) -> bytes | None:
        """Return exactly these bytes of the plain stream, or None if they are not all staged.

        Raises BadStructure, OSError.
        """
        # Spelled out for the read within one frame, which nearly every one is: calls would cost as much as the read.
        end = offset + length
        if not 0 <= offset < end <= self.plain_bytes:
            self.frames_for(offset, length)
            return b""
        starts = self._starts
        frame = bisect_right(starts, offset) - 1
        if end > starts[frame + 1]:
            return self._read_across(offset, length)
        word = self._words[frame]
        if not word & PRESENT:
            return None
        try:
            content = os.pread(self._plain, length, offset)
        except OSError as error:
            content = _nothing_if_unreadable(error)
        if self._words[frame] != word:
            return None
        if len(content) == length:
            return content
        self._lose(range(frame, frame + 1))
        return None

    def _read_across(self, offset: int, length: int) -> bytes | None:
        frames = self.frames_for(offset, length)
        before = self._words[frames.start : frames.stop].tolist()
        if not all(word & PRESENT for word in before):
            return None
        content = b""
        try:
            # One pread returns at most 2 GiB.
            while len(content) < length and (
                more := os.pread(self._plain, length - len(content), offset + len(content))
            ):
                content += more
        except OSError as error:
            content = _nothing_if_unreadable(error)
        if self._words[frames.start : frames.stop].tolist() != before:
            return None
        if len(content) == length:
            return content
        self._lose(frames)
        return None

    def _lose(self, frames: range) -> None:
        """The .plain file was cut short by somebody, or its disk is bad: the bytes must come from tape again.

        Pins do not hold them.
        """
        _log.warning("%s: the staging file is cut short or unreadable: fetched again", self.segment_id)
        with self._changing:
            for frame in frames:
                if self._try_lock(frame, frame + 1):
                    try:
                        self._drop(frame, frame + 1)
                    finally:
                        self._unlock(frame, frame + 1)

    def publish(self, frame: int, plain: bytes | memoryview) -> None:
        """Stage a frame whose bytes have been verified; nothing happens if it is staged already.

        Raises BadStructure if the length is not the frame's, OSError if the disk is full or fails; then the frame
        stays cold.
        """
        start, length = self.extent_of(frame)
        if len(plain) != length:
            raise BadStructure(f"frame {frame} of {self.segment_id} has {len(plain)} bytes instead of {length}")
        checksum = _checksum([plain])
        with self._changing:
            if not self._lock_to_publish(frame):
                return
            try:
                self._checksums[frame] = 0
                self._write(start, plain)
                _after_write()
                self._checksums[frame] = checksum
                self._map.last_used[frame] = now_s()
                self._words[frame] |= PRESENT
            finally:
                self._unlock(frame, frame + 1)

    def _lock_to_publish(self, frame: int) -> bool:
        """Lock the frame; return False if it is staged already."""
        while not self._words[frame] & PRESENT:
            if not self._try_lock(frame, frame + 1):
                # An evictor that is about to punch, or somebody who compares the frame with its checksum: microseconds
                # or milliseconds.
                time.sleep(_LOCK_RETRY_S)
            elif self._words[frame] & PRESENT:
                self._unlock(frame, frame + 1)
            else:
                return True
        return False

    def _write(self, start: int, plain: bytes | memoryview) -> None:
        rest = memoryview(plain).cast("B")
        offset = start
        try:
            while rest:
                written = os.pwrite(self._plain, rest, offset)
                rest = rest[written:]
                offset += written
        except OSError:
            punch_hole(self._plain, start, len(plain))
            raise

    def pin(self, frames: range) -> Pin | None:
        """Keep the frames staged until the pin is released; None if one is not staged or is being evicted."""
        if not frames:
            return Pin(None, frames)
        with self._pinning:
            if self._pin_fd < 0:
                self._pin_fd = os.open(f"/proc/self/fd/{self._map.fd}", os.O_RDONLY)
            if not locks.try_lock(self._pin_fd, exclusive=False, **self._range(_WORDS, frames.start, frames.stop)):
                return None
            for frame in frames:
                self._pins[frame] = self._pins.get(frame, 0) + 1
        pin = Pin(self, frames)
        if self.has(frames):
            return pin
        pin.release()
        return None

    def _unpin(self, frames: range) -> None:
        with self._pinning:
            if self._pin_fd < 0:
                return
            free = [frame for frame in frames if self._count_down(frame)]
            for run in runs(free):
                locks.unlock(self._pin_fd, **self._range(_WORDS, run.start, run.stop))

    def _count_down(self, frame: int) -> bool:
        """One pin less; return whether it was the last."""
        left = self._pins[frame] - 1
        if left:
            self._pins[frame] = left
            return False
        del self._pins[frame]
        return True

    def touch(self, frames: range) -> None:
        """Note that they are being used now."""
        time_s = now_s()
        last_used = self._map.last_used
        for frame in frames:
            # A store makes the page dirty: not for every read.
            if last_used[frame] != time_s:
                last_used[frame] = time_s

    def evict(self, frames: range) -> int:
        """Drop what is staged of them, but for pinned ones.

        Return how many plain bytes were dropped. Raises OSError.
        """
        with self._changing:
            return self._evict_run(frames.start, frames.stop)

    def _evict_run(self, first: int, stop: int) -> int:
        if first >= stop:
            return 0
        if self._lock_to_evict(first, stop):
            try:
                return self._drop(first, stop)
            finally:
                self._unlock(first, stop)
                locks.unlock(self._map.fd, **self._range(_WORDS, first, stop))
        if stop - first == 1:
            return 0
        middle = (first + stop) // 2
        return self._evict_run(first, middle) + self._evict_run(middle, stop)

    def _lock_to_evict(self, first: int, stop: int) -> bool:
        if not self._try_lock(first, stop):
            return False
        if locks.try_lock(self._map.fd, exclusive=True, **self._range(_WORDS, first, stop)):
            return True
        self._unlock(first, stop)
        return False

    def _drop(self, first: int, stop: int) -> int:
        dropped_bytes = 0
        for frame in range(first, stop):
            word = self._words[frame]
            if word & PRESENT or self._checksums[frame]:
                dropped_bytes += self._starts[frame + 1] - self._starts[frame]
            if word & PRESENT:
                # The bit goes and the count above it grows: no later word is equal to one that a reader holds.
                self._words[frame] = word + 1
            self._checksums[frame] = 0
        _after_clear()
        self._punch(first, stop)
        return dropped_bytes

    def reclaim(self) -> None:
        """Free what is allocated for frames that are neither staged nor doubtful.

        What a killed mover had begun, blocks between frames.
        """
        with self._changing:
            for run in runs(self._empty(range(self.frame_count))):
                if self._try_lock(run.start, run.stop):
                    try:
                        # Looked at again: under the lock nobody publishes.
                        if len(self._empty(run)) == len(run):
                            self._punch(run.start, run.stop)
                    finally:
                        self._unlock(run.start, run.stop)

    def _empty(self, frames: range) -> list[int]:
        """Return those of which no byte is worth anything."""
        words, checksums = self._words, self._checksums
        return [frame for frame in frames if not words[frame] & PRESENT and not checksums[frame]]

    def _punch(self, first: int, stop: int) -> None:
        """Free the blocks of locked frames that are not staged, and those that they share with such neighbours."""
        with self._empty_neighbour(first - 1) as before, self._empty_neighbour(stop) as behind:
            start, end = self._starts[first], self._starts[stop]
            if before:
                start = max(start // _BLOCK_BYTES * _BLOCK_BYTES, self._starts[first - 1])
            if behind:
                end = min(-(-end // _BLOCK_BYTES) * _BLOCK_BYTES, self._starts[stop + 1])
            elif stop == self.frame_count:
                end = -(-end // _BLOCK_BYTES) * _BLOCK_BYTES
            punch_hole(self._plain, start, end - start)

    @contextmanager
    def _empty_neighbour(self, frame: int) -> Iterator[bool]:
        """Hold the frame beside a hole if nothing of it is staged either: then the block they share can go, too."""
        if not 0 <= frame < self.frame_count or not self._try_lock(frame, frame + 1):
            yield False
            return
        try:
            yield bool(self._empty(range(frame, frame + 1)))
        finally:
            self._unlock(frame, frame + 1)

    # -- comparing with the checksums ----------------------------------------------------------------------------------

    def revive(self, frames: range) -> int:
        """Compare doubtful frames with their checksums: those that are right are staged again, others are dropped.

        Return how many came back. Reads them from disk: not for an event loop. Raises OSError.
        """
        return sum(self._revive_one(frame) for frame in self.doubtful(frames))

    def _revive_one(self, frame: int) -> bool:
        with self._changing, self._locked(frame):
            checksum = self._checksums[frame]
            if self._words[frame] & PRESENT or not checksum:
                return False
            if self._checksum_on_disk(frame) == checksum:
                self._words[frame] |= PRESENT
                return True
            _log.warning("%s: frame %d did not survive the end of the machine's last run", self.segment_id, frame)
            self._drop(frame, frame + 1)
            return False

    def is_intact(self, frame: int, *, drop: bool = False) -> bool | None:
        """Compare a frame with its checksum; None if it is neither staged nor doubtful.

        With `drop` a wrong one is dropped, pinned or not: who reads it now waits for it to come from tape again. Reads
        it from disk. Raises OSError.
        """
        with self._changing, self._locked(frame):
            if self._empty(range(frame, frame + 1)):
                return None
            is_intact = self._checksum_on_disk(frame) == self._checksums[frame]
            if drop and not is_intact:
                self._drop(frame, frame + 1)
            return is_intact

    def _checksum_on_disk(self, frame: int) -> int:
        start, length = self.extent_of(frame)
        places = range(start, start + length, _PIECE_BYTES)
        try:
            return _checksum(
                os.pread(self._plain, min(_PIECE_BYTES, start + length - place), place) for place in places
            )
        except OSError as error:
            return _checksum([_nothing_if_unreadable(error)])

    # -- locks ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _locked(self, frame: int) -> Iterator[None]:
        """Nobody else changes the frame meanwhile; pins do not matter."""
        while not self._try_lock(frame, frame + 1):
            time.sleep(_LOCK_RETRY_S)
        try:
            yield
        finally:
            self._unlock(frame, frame + 1)

    def _try_lock(self, first: int, stop: int) -> bool:
        return locks.try_lock(self._map.fd, exclusive=True, **self._range(_CHECKSUMS, first, stop))

    def _unlock(self, first: int, stop: int) -> None:
        locks.unlock(self._map.fd, **self._range(_CHECKSUMS, first, stop))

    def _range(self, array: int, first: int, stop: int) -> dict[str, int]:
        start = array_offset(self.frame_count, array) + first * WORD_BYTES
        return {"start": start, "length": (stop - first) * WORD_BYTES}

    def close(self) -> None:
        """Close it; its pins are gone, their `release` does nothing."""
        with self._pinning:
            if self._pin_fd >= 0:
                os.close(self._pin_fd)
            self._pin_fd = -1
            self._pins.clear()
        self._map.close()
        os.close(self._plain)


def now_s() -> int:
    """Return the time that last uses are told in: seconds since the machine was started."""
    # Of the boot that the map belongs to: no clock that somebody can set makes frames look old.
    return int(time.clock_gettime(time.CLOCK_MONOTONIC))


def _checksum(pieces: Iterable[bytes | memoryview]) -> int:
    """Return the checksum of a frame's bytes, never 0: that stands for none."""
    digest = xxhash.xxh3_64()
    for piece in pieces:
        digest.update(piece)
    return digest.intdigest() or 1


def _nothing_if_unreadable(error: OSError) -> bytes:
    """Bytes that the disk cannot give back are not staged; any other error is raised again."""
    if error.errno != errno.EIO:
        raise error
    return b""


def runs(frames: Sequence[int]) -> Iterator[range]:
    """Cut ascending frame numbers into ranges without gaps."""
    begin = 0
    for place in range(1, len(frames) + 1):
        if place == len(frames) or frames[place] != frames[place - 1] + 1:
            yield range(frames[begin], frames[place - 1] + 1)
            begin = place
