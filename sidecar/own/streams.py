"""Streams under /api/v1/streams: the body of a request goes to tape, however long it is."""

from __future__ import annotations

import msgspec
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from catalog.ids import JobNumber, SetId
from catalog.records import Job, JobState
from sidecar.http.answers import json_answer
from sidecar.http.callers import Role, caller_of
from sidecar.http.calls import PAGE, Call, Query
from sidecar.http.paging import page_answer
from sidecar.http.requests import Invalid, text_of
from sidecar.http.statuses import BrokenOff
from sidecar.jobs.new import check_name, new_job
from sidecar.jobs.pools import with_pools
from sidecar.jobs.streams import Stream
from sidecar.service import Service
from tapefs.client.job_fields import JobFields
from tapefs.errors import Cancelled, NoRoom, TapefsError
from tapefs.retention.pools import Pools

_JOB = Query("job", "Number of a job of that stream, or a name for one; by default the stream's name.")
_REASON = Query("reason", "Why, for people.")
#: Why a run has failed, and what that is to its client, where it is more than a job that has failed.
_ERRORS: dict[str, type[TapefsError]] = {
    "no_volume": NoRoom,
    "no_space": NoRoom,
    "drive": BrokenOff,
    "drive_failed": BrokenOff,
    "stopped": BrokenOff,
}


class StreamStored(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that is on tape."""

    name: str
    job: JobNumber
    set_id: SetId
    bytes: int


class StreamView(msgspec.Struct, frozen=True, kw_only=True):
    """A stream on its way."""

    name: str
    job: JobNumber
    #: That came so far, and of these so many as are on tape for good.
    bytes: int
    kept_bytes: int
    #: All of it has come.
    is_whole: bool
    #: Why nothing more will come.
    broken: str | None


class StreamCalls:
    """What programs that pipe something to tape call."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._streams = service.streams

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        one = "/api/v1/streams/{name}"
        return [
            Call("/api/v1/streams", self.list, needs=Role.VIEWER, answer=list[StreamView], query=PAGE),
            Call(one, self.store, methods=["POST"], needs=Role.OPERATOR, query=(_JOB,), answer=StreamStored),
            Call(
                one,
                self.break_off,
                methods=["DELETE"],
                needs=Role.OPERATOR,
                query=(_REASON,),
                answer=StreamView,
                status=202,
            ),
        ]

    async def list(self, request: Request) -> Response:
        """Show the streams that are on their way, by name."""
        return page_answer(request, sorted(self._streams.live(), key=_name_of), _view, _name_of)

    async def store(self, request: Request) -> Response:
        """Store the body, of any length, as a set of one file; answered when that is on tape."""
        name = check_name(str(request.path_params["name"]), "name")
        job = await self._job(name, text_of(request, "job") or name)
        stream = await self._streams.begin(job, caller_of(request).uid)
        error = await self._feed(stream, request)
        if isinstance(error, ClientDisconnect):
            raise error
        await stream.over.wait()
        ended = self._service.ledger.job(stream.job)
        if ended.state is JobState.COMPLETED and ended.set_id is not None:
            stored = StreamStored(name=name, job=ended.number, set_id=ended.set_id, bytes=stream.bytes)
            return json_answer(stored)
        if error is not None:
            raise error
        raise _why(ended, stream)

    async def break_off(self, request: Request) -> Response:
        """Have a stream that is on its way fail, because whoever makes it has failed."""
        stream = self._streams.named(str(request.path_params["name"]))
        reason = text_of(request, "reason") or "it was broken off"
        await self._streams.break_off(stream, f"{reason}; {stream.bytes} bytes of the stream had come")
        return json_answer(_view(stream), 202)

    async def _feed(self, stream: Stream, request: Request) -> ClientDisconnect | TapefsError | None:
        """Take the body in until its end, or that of the job; return what went wrong with the body."""
        found: list[ClientDisconnect | TapefsError] = []

        async def feed() -> None:
            try:
                idle_s = self._service.home.settings.backup.stream_idle_s
                await self._streams.feed(stream, request.stream(), idle_s)
            except (ClientDisconnect, TapefsError) as error:
                found.append(error)
            finally:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            await stream.over.wait()
            nursery.cancel_scope.cancel()
        return found[0] if found else None

    async def _job(self, name: str, wanted: str) -> Job:
        """Return the job that stores it: one that there is, or a new one. Raises NotFound, Invalid."""
        jobs = self._service.jobs
        if wanted.isascii() and wanted.isdecimal():
            job = jobs.view(JobNumber(int(wanted[:18]))).job
            if job.stream != name:
                message = f"job {job.number} ({job.name}) stores {job.stream or 'files'}, no stream {name}"
                raise Invalid("value_error", ["query", "job"], message, wanted)
            return job
        fields = JobFields(name=wanted, stream=name)
        like = await trio.to_thread.run_sync(new_job, fields, jobs.now_ns())
        known = jobs.newest(like)
        if known is not None:
            return known
        pools = Pools.of(self._service.home, self._service.ledger)
        return await jobs.create(with_pools(like, fields, pools, is_new=True))


def _name_of(stream: Stream) -> str:
    return stream.name


def _why(job: Job, stream: Stream) -> TapefsError:
    """Return what the client of a stream that is no set is told."""
    if job.state is JobState.CANCELLED:
        return Cancelled(f"job {job.number} ({job.name}): {job.error}")
    if job.state is not JobState.FAILED:
        rest = f"what became of it `tapefs job show {job.number}` tells when it runs again"
        kept = rest if stream.ended_ns else "nothing of the stream is kept: send it anew when it runs again"
        return BrokenOff(f"job {job.number} ({job.name}): the sidecar is ending; {kept}")
    kind = _ERRORS.get(stream.failure_kind, TapefsError)
    return kind(f"job {job.number} ({job.name}): {job.error}")


def _view(stream: Stream) -> StreamView:
    return StreamView(
        name=stream.name,
        job=stream.job,
        bytes=stream.bytes,
        kept_bytes=stream.kept_bytes,
        is_whole=bool(stream.ended_ns),
        broken=stream.broken or None,
    )
