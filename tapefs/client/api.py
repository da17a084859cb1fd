"""The calls of the sidecar's own interface as functions, with typed answers. Blocking; for any thread."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from catalog.ids import FrameNo, JobNumber, SegmentId, SetId, VolumeId
from catalog.records import JobState
from tapefs.client.job_fields import JobFields
from tapefs.client.streaming import stream_path
from tapefs.client.transport import Transport
from tapefs.errors import NoRoom, TapefsError, UsageError

T = TypeVar("T")

#: Spans posted at a time: about 500 KB, half of what the sidecar takes as a body.
SPANS = 5000


class _View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the answers; unknown keys are ignored."""


class JobProgress(_View, frozen=True, kw_only=True):
    """How far a running job is."""

    stage: str = ""
    files: int = 0
    #: Content read so far, and bytes written to tape for it.
    bytes: int = 0
    stored_bytes: int = 0
    #: Payload bytes read back, at stage `verify`.
    verified_bytes: int = 0
    path: str = ""
    tape: str = ""


class Trouble(_View, frozen=True, kw_only=True):
    """A source file that could not be read as it was."""

    path: str
    reason: str


class JobView(_View, frozen=True, kw_only=True):
    """A job as the sidecar tells it."""

    number: JobNumber
    job_id: str
    name: str
    state: JobState
    set_id: SetId | None = None
    #: What the newest run was to make, and what it has made.
    run_type: str = "full"
    set_type: str | None = None
    error: str | None = None
    #: What it waits for, in a sentence: a drive that works, or somebody who moves a tape.
    waits_for: str | None = None
    #: A running one is to stop at the end of its segment.
    is_pausing: bool = False
    progress: JobProgress | None = None
    #: The newest ones only; `trouble_count` counts all.
    troubles: list[Trouble] = []
    trouble_count: int = 0

    @property
    def is_finished(self) -> bool:
        """Has the newest run come to an end, good or bad?"""
        return self.state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class QueueView(_View, frozen=True, kw_only=True):
    """The queue as a whole: is it paused, and how many jobs wait, run and are paused."""

    is_paused: bool
    reason: str | None = None
    queued: int = 0
    running: int = 0
    paused: int = 0


class Status(_View, frozen=True, kw_only=True):
    """Who answers."""

    version: str
    home: str
    pid: int
    installation_id: str


class Arrival(_View, frozen=True, kw_only=True):
    """Frames that were staged, or, with `message`, that cannot be had."""

    segment: SegmentId
    first: FrameNo
    last: FrameNo
    error: str = ""
    message: str = ""


class FrameSpan(_View, frozen=True, kw_only=True):
    """Frames `first` to `last`, both included, of a segment."""

    segment: SegmentId
    first: FrameNo
    last: FrameNo


class VerifyFinding(_View, frozen=True, kw_only=True):
    """A copy that is damaged, or that could not be read."""

    segment_id: SegmentId
    set_id: SetId
    volume_id: VolumeId
    tape: str
    #: `damaged` or `unread`.
    state: str
    problems: list[str]
    #: How many files have lost content.
    files: int = 0


class VerifyView(_View, frozen=True, kw_only=True):
    """A verification as the sidecar tells it."""

    number: int
    #: `running`, `completed`, `failed` or `cancelled`.
    state: str
    #: Copies of segments in all, and by what became of them.
    copies: int
    good: int = 0
    damaged: int = 0
    unread: int = 0
    #: Of these, so many were read back lately and not again.
    passed_over: int = 0
    bytes: int = 0
    done_bytes: int = 0
    tape: str = ""
    findings: list[VerifyFinding] = []


class SetVerdict(_View, frozen=True, kw_only=True):
    """What becomes of a set; `why` names the rule, `reason` is for people."""

    set_id: SetId
    name: str
    goes: bool
    why: str
    reason: str


class Expired(_View, frozen=True, kw_only=True):
    """What became of the sets. `expired` may lack one of those that should have gone: something holds it by now."""

    verdicts: list[SetVerdict]
    expired: list[SetId]
    freed_bytes: int


class RecallView(_View, frozen=True, kw_only=True):
    """A process that reads a file and waits for it, or has waited."""

    id: int
    #: `asking`, `waiting` or `over`.
    state: str
    uid: int
    pid: int
    command: str
    path: str
    size_bytes: int
    #: Of the frames that it has waited for.
    bytes: int
    #: Reads that have waited, and by what became of them.
    waits: int
    outcomes: dict[str, int] = {}
    waited_s: float
    began_at: datetime
    last_at: datetime
    reason: str | None = None
    #: `granted` or `denied` by an operator.
    word: str | None = None
    tape: str | None = None
    #: Stretches of the tape that are fetched first, and when its own will be there, if nothing else wants the drive.
    ahead: int | None = None
    eta_s: float | None = None


class UserUsage(_View, frozen=True, kw_only=True):
    """What a user has had fetched within the last hour."""

    uid: int
    bytes: int
    pending_bytes: int
    tapes: int


class RecallsMode(_View, frozen=True, kw_only=True):
    """Whether readers may recall; limits of 0 are none."""

    mode: str
    user_hourly_bytes: int
    user_hourly_tapes: int
    users: list[UserUsage]


class _Reads(_View, frozen=True, kw_only=True):
    reads: int


class PinView(_View, frozen=True, kw_only=True):
    """A pin as the sidecar tells it."""

    id: str
    owner: str
    frames: int
    missing_frames: int
    #: About, by the mean length of frames.
    bytes: int
    expires_at: datetime


class PromptView(_View, frozen=True, kw_only=True):
    """What somebody is to do at a drive."""

    number: int
    drive: str
    text: str
    take_out: str | None = None
    put_in: str | None = None
    since: datetime


class _Unlocked(msgspec.Struct, frozen=True):
    unlocked: list[str]


class _NewTapes(_View, frozen=True, kw_only=True):
    new: list[str]


class _Accepted(_View, frozen=True, kw_only=True):
    accepted: int


class _Freed(_View, frozen=True, kw_only=True):
    freed_bytes: int


class Client:
    """The sidecar behind a socket. Every call may raise Unreachable, and what it refuses with (see `transport`)."""

    def __init__(self, socket: Path) -> None:
        self._transport = Transport(socket)

    def call(self, method: str, target: str, body: object, kind: type[T]) -> T:
        """Make a call of a family that has a module of its own, such as `tapefs.client.pools`."""
        return decode(self._transport.request(method, target, body) or b"null", kind)

    def status(self) -> Status:
        """Ask who answers."""
        return decode(self._transport.request("GET", "/api/v1/status"), Status)

    def retry_drive(self, drive: str) -> None:
        """Have a drive that has failed tried again now. Raises NoSuchThing, NotNow when it works."""
        self._transport.request("POST", f"/api/v1/drives/{quote(drive, safe='')}/retry")

    def submit(self, job: JobFields, *, run: bool = True, reuse: bool = False) -> JobView:
        """Record a job, and queue it unless `run` is false. Raises UsageError, NoSuchThing, NotNow.

        With `reuse` the newest job of that name with the same sources is run again, if there is one.
        """
        body = _body(job) | {"run": run, "reuse": reuse}
        return decode(self._transport.request("POST", "/api/v1/jobs", body), JobView)

    def edit_job(self, number: JobNumber, changes: JobFields) -> JobView:
        """Change what a job is asked to do. Raises UsageError, NoSuchThing, NotNow."""
        return decode(self._transport.request("PATCH", f"/api/v1/jobs/{number}", _body(changes)), JobView)

    def delete_job(self, number: JobNumber) -> None:
        """Forget a job; its sets stay. Raises NoSuchThing, NotNow."""
        self._transport.request("DELETE", f"/api/v1/jobs/{number}")

    def run_job(self, number: JobNumber, run_type: str | None = None) -> JobView:
        """Queue a job, to make a set of that type. Raises NoSuchThing, NotNow, UsageError."""
        body = {} if run_type is None else {"type": run_type}
        return decode(self._transport.request("POST", f"/api/v1/jobs/{number}/run", body), JobView)

    def resume_job(self, number: JobNumber) -> JobView:
        """Queue a job to go on with its newest run. Raises NoSuchThing, NotNow."""
        return decode(self._transport.request("POST", f"/api/v1/jobs/{number}/resume"), JobView)

    def job(self, number: JobNumber) -> JobView:
        """Ask how a job stands. Raises NoSuchThing."""
        return decode(self._transport.request("GET", f"/api/v1/jobs/{number}"), JobView)

    def pause_job(self, number: JobNumber) -> JobView:
        """Have a job wait until it is resumed; a running one stops some time later. Raises NoSuchThing, NotNow."""
        return decode(self._transport.request("POST", f"/api/v1/jobs/{number}/pause"), JobView)

    def rank_job(self, number: JobNumber, priority: int) -> JobView:
        """Give a job another priority, 0 to 100. Raises NoSuchThing."""
        return decode(
            self._transport.request("PUT", f"/api/v1/jobs/{number}/priority", {"priority": priority}), JobView
        )

    def pause_queue(self, reason: str = "") -> QueueView:
        """Have no job begin any more."""
        return decode(self._transport.request("POST", "/api/v1/queue/pause", {"reason": reason}), QueueView)

    def resume_queue(self) -> QueueView:
        """Let jobs begin again."""
        return decode(self._transport.request("POST", "/api/v1/queue/resume"), QueueView)

    def stream_job(self, job: JobFields) -> JobNumber:
        """Return the job that stores a stream: the newest one of that name, changed, or a new one.

        Raises UsageError; NotNow while such a stream is on its way.
        """
        return self.submit(job, run=False, reuse=True).number

    def break_stream(self, name: str, reason: str) -> None:
        """Have a stream that is on its way fail. Raises NoSuchThing."""
        self._transport.request("DELETE", f"{stream_path(name)}?{urlencode({'reason': reason})}")

    def cancel(self, number: JobNumber) -> None:
        """Stop a job at the next good place; it ends as `cancelled` some time later. Raises NoSuchThing, NotNow."""
        self._transport.request("POST", f"/api/v1/jobs/{number}/cancel")

    def verify(
        self, sets: Sequence[str], tapes: Sequence[str], *, everything: bool, since: datetime | None, sample: int = 0
    ) -> VerifyView:
        """Have copies read back; what was read since `since` is not again, of each tape at most `sample` unless 0.

        Raises NoSuchThing, NotNow.
        """
        body = {
            "sets": list(sets),
            "tapes": list(tapes),
            "all": everything,
            "since": since and since.isoformat(),
            "sample": sample,
        }
        return decode(self._transport.request("POST", "/api/v1/verify", body), VerifyView)

    def verification(self, number: int) -> VerifyView:
        """Ask how it stands. Raises NoSuchThing."""
        return decode(self._transport.request("GET", f"/api/v1/verify/{number}"), VerifyView)

    def cancel_verification(self, number: int) -> None:
        """Stop it. Raises NoSuchThing, NotNow."""
        self._transport.request("POST", f"/api/v1/verify/{number}/cancel")

    def expire(self, named: Sequence[SetId] = (), *, failed: bool = False) -> Expired:
        """Let go of all sets that may go, and of those named. Raises NoSuchThing."""
        body = {"sets": list(named), "failed": failed}
        return decode(self._transport.request("POST", "/api/v1/expire", body), Expired)

    def stage(self, spans: Sequence[FrameSpan], *, awaited: bool = False) -> int:
        """Ask for frames to be staged, in whatever order suits the tapes; returns how many spans were accepted.

        `awaited`: somebody waits for them, so backups give way.
        """
        accepted = 0
        for first in range(0, len(spans), SPANS):
            body = {
                "segments": [msgspec.to_builtins(span) for span in spans[first : first + SPANS]],
                "awaited": awaited,
            }
            accepted += decode(self._transport.request("POST", "/api/v1/stage", body), _Accepted).accepted
        return accepted

    def pin(self, spans: Sequence[FrameSpan], lifetime_s: float, reason: str) -> PinView:
        """Have frames staged and kept so long. Raises NoRoom when pins hold too much already; then nothing is pinned.

        `spans` has at least one.
        """
        pin: PinView | None = None
        try:
            for first in range(0, len(spans), SPANS):
                body: dict[str, object] = {
                    "segments": [msgspec.to_builtins(span) for span in spans[first : first + SPANS]],
                    "lifetime_s": lifetime_s,
                    "reason": reason,
                    "id": pin.id if pin is not None else None,
                }
                pin = decode(self._transport.request("POST", "/api/v1/pins", body), PinView)
        except NoRoom:
            if pin is not None:
                self.unpin(pin.id)
            raise
        if pin is None:
            raise UsageError("there is nothing to pin")
        return pin

    def unpin(self, pin_id: str) -> None:
        """End a pin. Raises NoSuchThing."""
        self._transport.request("DELETE", f"/api/v1/pins/{pin_id}")

    def evict(self, segments: Sequence[SegmentId] | None) -> int:
        """Drop staged frames of these segments, or of all (None); what is open stays. Returns the bytes freed."""
        body = {"segments": None if segments is None else list(segments)}
        return decode(self._transport.request("POST", "/api/v1/evict", body), _Freed).freed_bytes

    def recall_mode(self) -> RecallsMode:
        """Ask whether readers may recall."""
        return decode(self._transport.request("GET", "/api/v1/recalls/mode"), RecallsMode)

    def switch_recalls(self, mode: str) -> RecallsMode:
        """Switch recalls `on`, `off`, or to `ask`."""
        return decode(self._transport.request("PUT", "/api/v1/recalls/mode", {"mode": mode}), RecallsMode)

    def recalls(self, *, history: bool, limit: int, **choice: str | int | None) -> list[RecallView]:
        """List who waits, oldest first, or who waited, newest first; by uid, command, path or outcome."""
        query = urlencode({"limit": limit} | {key: value for key, value in choice.items() if value is not None})
        target = "/api/v1/recalls/history" if history else "/api/v1/recalls"
        return decode(self._transport.request("GET", f"{target}?{query}"), list[RecallView])

    def say_of_recall(self, number: int, word: str, *, process: bool) -> int:
        """`grant` or `deny` what a reader waits for; returns how many reads wait. Raises NoSuchThing."""
        body = {"process": process}
        return decode(self._transport.request("POST", f"/api/v1/recalls/{number}/{word}", body), _Reads).reads

    def prompts(self) -> list[PromptView]:
        """Ask what somebody is to do at the drives, oldest first."""
        return decode(self._transport.request("GET", "/api/v1/prompts"), list[PromptView])

    def answer_prompt(self, number: int, answer: str) -> None:
        """Say that it was `done`, or is `declined`. Raises NotNow when nobody asks any more, UsageError."""
        self._transport.request("POST", f"/api/v1/prompts/{number}", {"answer": answer})

    def unlocked_keys(self) -> list[str]:
        """Return the fingerprints of the keys that are unlocked."""
        return decode(self._transport.request("GET", "/api/v1/keys"), _Unlocked).unlocked

    def unlock_key(self, secret: str) -> None:
        """Hand a secret over (AGE-SECRET-KEY-1…); it is kept in memory. Raises UsageError."""
        self._transport.request("POST", "/api/v1/keys", {"secret": secret})

    def lock_key(self, fingerprint: str) -> None:
        """Have a secret forgotten. Raises NoSuchThing when it is not unlocked."""
        self._transport.request("DELETE", f"/api/v1/keys/{quote(fingerprint, safe='')}")

    def add_tapes(self, tapes: Sequence[str]) -> list[str]:
        """Say which tapes lie on the shelf now; returns those that are new. Raises NotNow, UsageError."""
        return decode(self._transport.request("POST", "/api/v1/shelf", {"tapes": list(tapes)}), _NewTapes).new

    def remove_tape(self, tape: str) -> None:
        """Say that a tape does not lie on the shelf any more. Raises NotNow, UsageError."""
        self._transport.request("DELETE", f"/api/v1/shelf/{quote(tape, safe='')}")


def _body(fields: JobFields) -> dict[str, object]:
    """Return the fields that are set, ready for JSON."""
    body: dict[str, object] = msgspec.to_builtins(fields)
    return body


def decode(data: bytes, kind: type[T]) -> T:
    """Decode an answer. Raises TapefsError when it is none of ours."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise TapefsError(f"the sidecar's answer makes no sense, is it of another version? ({error})") from error
