"""Streams on their way to tape: what a client sends is put into a file, and a mover takes it out of there.

One trio run. The file has no name, so that whatever dies leaves nothing behind. It holds what is not committed on tape
yet, and never more than two parts and a little: when it is full, nothing more is read from the client. A job of a
stream waits for a drive only when its first part, or its end, is there, so that a slow client keeps none waiting.
"""

from __future__ import annotations

import os
import pwd
import tempfile
import time
from collections.abc import AsyncIterator

import structlog
import trio

from catalog.ids import JobNumber
from catalog.records import Job
from sidecar.http.statuses import BodyTooSlow
from sidecar.jobs.going_on import STREAM_WORDS
from sidecar.jobs.queue import Jobs
from tapefs.errors import HomeError, NoRoom, NoSuchThing, NotNow, TapefsError
from tapefs.home import Home
from tapefs.staging.holes import punch_hole
from tapefs.stream_words import StreamState, StreamTask

#: A part takes no more than this share of what the disk has left.
_SHARE = 4
_LEAST_PART_BYTES = 1024**2
#: Room in the file beside two parts.
_SLACK_BYTES = 4 * 1024**2
#: So much is collected before it is written to the file.
_PIECE_BYTES = 1024**2

log = structlog.get_logger(__name__)


class Stream:
    """One on its way in."""

    def __init__(self, job: JobNumber, name: str, file: int, task: StreamTask) -> None:
        """`file` is the descriptor of the file that it goes through."""
        self.job = job
        self.name = name
        self.file = file
        self.task = task
        #: All that came, and how much of that is on tape for good.
        self.bytes = self.kept_bytes = 0
        #: The file's blocks before this were given back.
        self.freed_bytes = 0
        self.ended_ns = 0
        self.broken = ""
        #: Why the run has failed, as `tapefs.mover.kinds` has it; `stopped`: the sidecar ends.
        self.failure_kind = ""
        #: Nobody writes to the file any more.
        self.is_fed = False
        #: Set, and made anew, when something of the above has changed.
        self.changed = trio.Event()
        #: Set when its job has ended, or nobody waits for that any more because the sidecar ends.
        self.over = trio.Event()

    def note_change(self) -> None:
        """Tell those who wait for a change."""
        self.changed.set()
        self.changed = trio.Event()

    def state(self) -> StreamState:
        """Return how far it is."""
        return StreamState(bytes=self.bytes, ended_ns=self.ended_ns, broken=self.broken)

    def room_bytes(self) -> int:
        """Return how much may still go into the file."""
        return 2 * self.task.part_bytes + _SLACK_BYTES - (self.bytes - self.kept_bytes)

    def has_begun(self) -> bool:
        """Is there so much of it that a drive has something to do?"""
        return bool(self.ended_ns) or self.bytes > self.task.part_bytes


class Streams:
    """All that are on their way in, by name."""

    def __init__(self, home: Home, jobs: Jobs) -> None:
        self._home = home
        self._jobs = jobs
        self._live: dict[str, Stream] = {}

    def of(self, job: JobNumber) -> Stream | None:
        """Return the stream of a job, if one is on its way."""
        return next((each for each in self._live.values() if each.job == job), None)

    def live(self) -> list[Stream]:
        """Return all of them."""
        return list(self._live.values())

    async def begin(self, job: Job, uid: int | None) -> Stream:
        """Have a stream stored by that job, which is queued; `uid` shall own it, None: the owner of the state folder.

        Raises NotNow when there is one of that name already, or the job waits or runs; NoRoom, HomeError.
        """
        if job.stream in self._live:
            raise NotNow(f"a stream {job.stream} is on its way already: see `tapefs jobs`; send one after the other")
        stream = self._live[job.stream] = self._open(job, uid)
        self._jobs.coming.add(job.number)
        try:
            await self._jobs.queue(job.number)
        except BaseException:
            stream.is_fed = True
            self._forget(stream)
            raise
        log.info("a stream begins", job=job.number, stream=job.stream)
        return stream

    def _open(self, job: Job, uid: int | None) -> Stream:
        spool = self._home.spool
        try:
            spool.mkdir(mode=0o700, exist_ok=True)
            status = os.statvfs(spool)
            part_bytes = min(self._home.settings.backup.stream_part_bytes, status.f_bavail * status.f_frsize // _SHARE)
            if part_bytes < _LEAST_PART_BYTES:
                raise NoRoom(f"the disk of {spool} has too little room left for a stream to go through")
            with tempfile.TemporaryFile(dir=spool, buffering=0) as file:
                kept = os.dup(file.fileno())
        except OSError as error:
            raise HomeError(f"a stream cannot go through {spool}: {error.strerror}") from error
        uid = self._home.path.stat().st_uid if uid is None else uid
        task = StreamTask(file=f"/proc/{os.getpid()}/fd/{kept}", part_bytes=part_bytes, uid=uid, gid=_group_of(uid))
        return Stream(job.number, job.stream, kept, task)

    async def feed(self, stream: Stream, pieces: AsyncIterator[bytes], idle_s: float) -> None:
        """Put what comes into the file, up to the end. Whatever keeps that from happening breaks the stream off.

        Raises BodyTooSlow when nothing has come for `idle_s`, NoRoom, and what `pieces` raises.
        """
        try:
            await self._feed(stream, pieces, idle_s)
        except BaseException as error:
            with trio.CancelScope(shield=True):
                await self.break_off(stream, _reason(error, stream.bytes))
            raise
        finally:
            stream.is_fed = True
            self._forget_if_done(stream)

    async def _feed(self, stream: Stream, pieces: AsyncIterator[bytes], idle_s: float) -> None:
        collected = bytearray()
        while not stream.broken:
            piece = None
            with trio.move_on_after(idle_s) as waited:
                piece = await anext(pieces, None)
            if waited.cancelled_caught:
                raise BodyTooSlow(f"nothing has come from the client for {idle_s:g} s")
            collected += piece or b""
            if collected and (piece is None or len(collected) >= _PIECE_BYTES):
                await self._put(stream, bytes(collected))
                collected.clear()
            if piece is None:
                stream.ended_ns = time.time_ns()
                self._note_growth(stream)
                log.info("a stream is whole", job=stream.job, stream=stream.name, bytes=stream.bytes)
                return

    async def _put(self, stream: Stream, data: bytes) -> None:
        while stream.room_bytes() < len(data) and not stream.broken:
            await stream.changed.wait()
        if stream.broken:
            return
        try:
            await trio.to_thread.run_sync(_write, stream, data)
        except OSError as error:
            raise NoRoom(f"the disk of the state folder does not take it: {error.strerror}") from error
        stream.bytes += len(data)
        self._note_growth(stream)

    def _note_growth(self, stream: Stream) -> None:
        stream.note_change()
        if stream.has_begun():
            self._jobs.has_come(stream.job)

    async def break_off(self, stream: Stream, reason: str) -> None:
        """There will be no more of it: its job fails, now if it waits, when its mover has heard of it if it runs."""
        if stream.ended_ns or stream.broken or stream.over.is_set():
            return
        stream.broken = reason
        log.warning("a stream breaks off", job=stream.job, stream=stream.name, bytes=stream.bytes, reason=reason)
        stream.note_change()
        await self._jobs.give_up(stream.job, reason)

    def failed(self, job: JobNumber, kind: str) -> None:
        """Note why the run of a job fails that is about to end, if it stores a stream."""
        stream = self.of(job)
        if stream is not None:
            stream.failure_kind = kind

    async def end(self) -> None:
        """The sidecar ends: who sends is told so. What waits fails now, what runs when its mover has stopped."""
        for stream in self.live():
            stream.failure_kind = "stopped"
            await self.break_off(stream, _stopped(stream.bytes))
            await self._jobs.give_up(stream.job, f"the sidecar was told to end; the job {STREAM_WORDS}")
            stream.over.set()

    def named(self, name: str) -> Stream:
        """Return the stream of that name that is on its way. Raises NoSuchThing."""
        try:
            return self._live[name]
        except KeyError:
            raise NoSuchThing(f"no stream {name} is on its way") from None

    def kept(self, job: JobNumber, up_to: int) -> None:
        """So much of the job's stream is committed on tape."""
        stream = self.of(job)
        if stream is not None:
            stream.kept_bytes = max(stream.kept_bytes, up_to)
            stream.note_change()

    async def run(self) -> None:
        """Let go of streams whose jobs have ended."""
        while True:
            changed = self._jobs.next_change()
            for stream in self.live():
                self._forget_if_done(stream)
            await changed.wait()

    def _forget_if_done(self, stream: Stream) -> None:
        if self._jobs.is_open(stream.job):
            return
        stream.over.set()
        stream.note_change()
        if stream.is_fed:
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        if self._live.pop(stream.name, None) is not None:
            self._jobs.coming.discard(stream.job)
            os.close(stream.file)


def _write(stream: Stream, data: bytes) -> None:
    """Append to the file, and give back what is on tape. Raises OSError, HomeError. Blocking."""
    kept = stream.kept_bytes
    if kept > stream.freed_bytes:
        punch_hole(stream.file, stream.freed_bytes, kept - stream.freed_bytes)
        stream.freed_bytes = kept
    rest, at = memoryview(data), stream.bytes
    while rest:
        count = os.pwrite(stream.file, rest, at)
        rest, at = rest[count:], at + count


def _stopped(size: int) -> str:
    return f"the sidecar was told to end before the stream's end; {size} bytes had come"


def _reason(error: BaseException, size: int) -> str:
    if isinstance(error, TapefsError):
        return f"{error}; {size} bytes of the stream had come"
    if isinstance(error, trio.Cancelled):
        return _stopped(size)
    return f"the client broke off before the stream's end; {size} bytes had come"


def _group_of(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid
