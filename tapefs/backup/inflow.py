"""A stream of unknown length as a set of one file: where its bytes come from, and how they become parts.

The bytes lie in a file that somebody else fills from its end while they are taken from its beginning, until the segment
that holds them is committed: a segment that is lost on its way to tape is written again from there. A tar member has
its length before its content, so a stream is cut into parts, one a segment, each begun when all of it is in the file.
Intake thread.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from catalog.errors import StorageFailed
from catalog.index.model import EntryFlag
from catalog.records import Job
from tapefs.backup.attributes import NO_ATTRIBUTES
from tapefs.backup.cutter import Cutter
from tapefs.backup.intake import MEMBER_OVERHEAD_BYTES, Intake
from tapefs.backup.rules import Rules
from tapefs.backup.scan import Kind, OpenDirectory, Walk
from tapefs.backup.segment import PartProgress
from tapefs.backup.selection import branches
from tapefs.backup.source import Source
from tapefs.errors import SourceError
from tapefs.stream_words import StreamState, StreamTask

#: How long one wait for more lasts before somebody looks whether the backup is to go on.
LOOK_S = 0.25
#: What to do about one that ended before its end.
STREAM_WAY_OUT = "it cannot be read again, so have whatever makes it send all of it once more"
_MODE = stat.S_IFREG | 0o600
_BLOCK = 512
#: A tape with less room is left.
_LEAST_ROOM_BYTES = 4 * MEMBER_OVERHEAD_BYTES


class Inflow(Protocol):
    """A stream on its way in."""

    task: StreamTask

    def state(self) -> StreamState:
        """Return how far it is."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait until that changes, at most so long."""
        ...

    def kept(self, up_to: int) -> None:
        """All bytes before that place are on tape for good and needed no more. Raises OSError."""
        ...


class _StreamSource(Source):
    """The file that a stream comes through; it grows all the while."""

    __slots__ = ()

    def has_changed(self) -> bool:
        """What is in it once stays so."""
        return False


class StreamWalk(Walk):
    """A walk over a root directory with one file that no file system has."""

    def __init__(self, context_began_ns: int, job: Job, trouble: Callable[[bytes, str], None]) -> None:
        """The job's one source is the path of the file."""
        sources = list(job.sources)
        self._name = sources[0].lstrip(b"/")
        super().__init__(branches(sources), Rules(job, sources, context_began_ns), trouble)

    def _names(self, directory: OpenDirectory) -> Iterator[tuple[bytes, Kind]]:
        yield self._name, Kind.REGULAR


class StreamTaker:
    """Takes the stream into segments; stands in the place of `tapefs.backup.taker.Taker`."""

    def __init__(self, cutter: Cutter, intake: Intake, inflow: Inflow, look_around: Callable[[], None]) -> None:
        """`look_around` is called while more is waited for, and between the frames of a part."""
        self._cutter = cutter
        self._intake = intake
        self._inflow = inflow
        self._look_around = look_around
        #: By segments on their way to tape: their number, and where in the stream the next one begins.
        self._ends: deque[tuple[int, int]] = deque()
        self._kept = 0

    def take(self, directory: OpenDirectory) -> None:
        """Take all of it. Raises SourceError when it breaks off."""
        name, task = directory.files[directory.next_file], self._inflow.task
        fd = os.open(task.file, os.O_RDONLY | os.O_CLOEXEC)
        source = _StreamSource(directory, name, fd, self._status(0, time.time_ns()), NO_ATTRIBUTES, None, 0)
        try:
            self._take(source)
        finally:
            source.close()

    def tell_kept(self) -> None:
        """Let go of what is committed."""
        committed = self._kept
        while self._ends and self._ends[0][0] < self._cutter.committed:
            committed = self._ends.popleft()[1]
        if committed > self._kept:
            self._kept = committed
            self._inflow.kept(committed)

    def _note_end(self, end: int) -> None:
        # A segment that was lost is begun again under its number; what came behind it is void.
        while self._ends and self._ends[-1][0] >= self._cutter.number:
            self._ends.pop()
        self._ends.append((self._cutter.number, end))

    def _take(self, source: Source) -> None:
        while True:
            place = self._cutter.progress.offset
            room = self._cutter.limit_bytes - self._cutter.size_bytes() - MEMBER_OVERHEAD_BYTES
            most = max(min(room, self._inflow.task.part_bytes), 1)
            state = self._wait_for(place + most + 1, is_between=False)
            is_last = bool(state.ended_ns) and state.bytes <= place + most
            end = state.bytes if is_last else place + most
            source.status = self._status(end, state.ended_ns if is_last else time.time_ns())
            self._note_end(end)
            if is_last and not self._cutter.progress.part:
                self._intake.file(source)
            else:
                part = self._cutter.progress.part
                self._intake.part(source, part, place, end - place, None, more=not is_last)
            if self._intake.newest.flags & EntryFlag.CHANGED:
                raise StorageFailed("the disk of the state folder has lost a piece of the stream", retryable=False)
            if is_last:
                self._cutter.progress = PartProgress()
                return
            self._cutter.progress = PartProgress(self._cutter.progress.part + 1, end)
            self._cutter.end_segment()
            # A client that takes its time is waited for between two segments: there others may have the drive.
            self._wait_for(end + self._inflow.task.part_bytes + 1, is_between=True)
            self._cutter.begin_segment(_LEAST_ROOM_BYTES)

    def _wait_for(self, size: int, *, is_between: bool) -> StreamState:
        """Return the state when the stream has so many bytes, or its end. Raises SourceError, SegmentLost."""
        while True:
            state = self._inflow.state()
            if state.broken:
                raise SourceError(state.broken)
            if state.ended_ns or state.bytes >= size:
                return state
            self._look_around()
            self.tell_kept()
            if is_between:
                self._cutter.give_way_if_wanted()
            self._inflow.wait(LOOK_S)

    def _status(self, size: int, at_ns: int) -> os.stat_result:
        task = self._inflow.task
        exact = {"st_atime_ns": at_ns, "st_mtime_ns": at_ns, "st_ctime_ns": at_ns, "st_rdev": 0}
        exact["st_blocks"] = -(-size // _BLOCK)
        seconds = [at_ns // 10**9] * 3
        return os.stat_result((_MODE, 1, 0, 1, task.uid, task.gid, size, *seconds), exact)
