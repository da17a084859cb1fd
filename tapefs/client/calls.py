"""The calls of the sidecar's own interface that belong to no family, each written once. Pure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlencode

import msgspec

from catalog.ids import JobNumber, SegmentId, SetId
from catalog.records import JobState
from tapefs.client.calling import Ask, Steps, call, every, in_path
from tapefs.client.job_fields import JobFields
from tapefs.client.streaming import stream_path
from tapefs.client.views import (
    Accepted,
    DriveView,
    Expired,
    FrameSpan,
    FramesView,
    Freed,
    JobView,
    NewTapes,
    PinView,
    PromptView,
    QueueView,
    Reads,
    RecallsMode,
    RecallView,
    Status,
    StreamView,
    Unlocked,
    VerifyView,
)
from tapefs.errors import NoRoom, UsageError

#: Spans posted at a time: about 500 KB, half of what the sidecar takes as a body.
SPANS = 5000


class Calls:
    """The sidecar behind a socket. Every call may raise Unreachable, and what it refuses with (see `transport`)."""

    @call
    @staticmethod
    def status() -> Ask[Status]:
        """Ask who answers."""
        return Ask("GET", "/api/v1/status", None, Status)

    @call
    @staticmethod
    def drives() -> Steps[list[DriveView]]:
        """Ask how the drives are."""
        return every("/api/v1/drives", DriveView)

    @call
    @staticmethod
    def retry_drive(drive: str) -> Ask[None]:
        """Have a drive that has failed tried again now. Raises NoSuchThing, NotNow when it works."""
        return Ask("POST", f"/api/v1/drives/{in_path(drive)}/retry", None, type(None))

    @call
    @staticmethod
    def submit(job: JobFields, *, run: bool = True, reuse: bool = False) -> Ask[JobView]:
        """Record a job, and queue it unless `run` is false. Raises UsageError, NoSuchThing, NotNow.

        With `reuse` the newest job of that name with the same sources is run again, if there is one.
        """
        body = _body(job) | {"run": run, "reuse": reuse}
        return Ask("POST", "/api/v1/jobs", body, JobView)

    @call
    @staticmethod
    def edit_job(number: JobNumber, changes: JobFields) -> Ask[JobView]:
        """Change what a job is asked to do. Raises UsageError, NoSuchThing, NotNow."""
        return Ask("PATCH", f"/api/v1/jobs/{number}", _body(changes), JobView)

    @call
    @staticmethod
    def delete_job(number: JobNumber) -> Ask[None]:
        """Forget a job; its sets stay. Raises NoSuchThing, NotNow."""
        return Ask("DELETE", f"/api/v1/jobs/{number}", None, type(None))

    @call
    @staticmethod
    def run_job(number: JobNumber, run_type: str | None = None) -> Ask[JobView]:
        """Queue a job, to make a set of that type. Raises NoSuchThing, NotNow, UsageError."""
        body = {} if run_type is None else {"type": run_type}
        return Ask("POST", f"/api/v1/jobs/{number}/run", body, JobView)

    @call
    @staticmethod
    def resume_job(number: JobNumber) -> Ask[JobView]:
        """Queue a job to go on with its newest run. Raises NoSuchThing, NotNow."""
        return Ask("POST", f"/api/v1/jobs/{number}/resume", None, JobView)

    @call
    @staticmethod
    def jobs(*states: JobState, limit: int | None = None, offset: int = 0) -> Steps[list[JobView]]:
        """List jobs, oldest first; those in some states, or all. Without a limit the newest thousand."""
        chosen = {"state": ",".join(state.value for state in states)} if states else {}
        if limit is not None:
            return (yield from every(f"/api/v1/jobs?{urlencode({**chosen, 'offset': offset})}", JobView, limit))
        newest: list[JobView] = yield Ask("GET", f"/api/v1/jobs?{urlencode(chosen)}", None, list[JobView])
        return newest

    @call
    @staticmethod
    def queue() -> Ask[QueueView]:
        """Ask how the queue stands."""
        return Ask("GET", "/api/v1/queue", None, QueueView)

    @call
    @staticmethod
    def job(number: JobNumber) -> Ask[JobView]:
        """Ask how a job stands. Raises NoSuchThing."""
        return Ask("GET", f"/api/v1/jobs/{number}", None, JobView)

    @call
    @staticmethod
    def pause_job(number: JobNumber) -> Ask[JobView]:
        """Have a job wait until it is resumed; a running one stops some time later. Raises NoSuchThing, NotNow."""
        return Ask("POST", f"/api/v1/jobs/{number}/pause", None, JobView)

    @call
    @staticmethod
    def rank_job(number: JobNumber, priority: int) -> Ask[JobView]:
        """Give a job another priority, 0 to 100. Raises NoSuchThing."""
        return Ask("PUT", f"/api/v1/jobs/{number}/priority", {"priority": priority}, JobView)

    @call
    @staticmethod
    def pause_queue(reason: str = "") -> Ask[QueueView]:
        """Have no job begin any more."""
        return Ask("POST", "/api/v1/queue/pause", {"reason": reason}, QueueView)

    @call
    @staticmethod
    def resume_queue() -> Ask[QueueView]:
        """Let jobs begin again."""
        return Ask("POST", "/api/v1/queue/resume", None, QueueView)

    @call
    @staticmethod
    def stream_job(job: JobFields) -> Ask[JobNumber]:
        """Return the job that stores a stream: the newest one of that name, changed, or a new one.

        Raises UsageError; NotNow while such a stream is on its way.
        """
        body = _body(job) | {"run": False, "reuse": True}
        return Ask("POST", "/api/v1/jobs", body, JobView).giving(lambda view: view.number)

    @call
    @staticmethod
    def streams() -> Steps[list[StreamView]]:
        """Ask for the streams that are on their way, by name."""
        return every("/api/v1/streams", StreamView)

    @call
    @staticmethod
    def break_stream(name: str, reason: str) -> Ask[None]:
        """Have a stream that is on its way fail. Raises NoSuchThing."""
        return Ask("DELETE", f"{stream_path(name)}?{urlencode({'reason': reason})}", None, type(None))

    @call
    @staticmethod
    def cancel(number: JobNumber) -> Ask[None]:
        """Stop a job at the next good place; it ends as `cancelled` some time later. Raises NoSuchThing, NotNow."""
        return Ask("POST", f"/api/v1/jobs/{number}/cancel", None, type(None))

    @call
    @staticmethod
    def verify(
        sets: Sequence[str],
        tapes: Sequence[str],
        *,
        everything: bool,
        since: datetime | None,
        sample: int = 0,
        alone: bool = False,
    ) -> Ask[VerifyView]:
        """Have copies read back; what was read since `since` is not again, of each tape at most `sample` unless 0.

        What the sets build on is read back with them, unless they are `alone`. Raises NoSuchThing, NotNow.
        """
        body = {
            "sets": list(sets),
            "tapes": list(tapes),
            "all": everything,
            "since": since and since.isoformat(),
            "sample": sample,
            # An older sidecar does not know the word.
            **({"alone": True} if alone else {}),
        }
        return Ask("POST", "/api/v1/verify", body, VerifyView)

    @call
    @staticmethod
    def verification(number: int) -> Ask[VerifyView]:
        """Ask how it stands. Raises NoSuchThing."""
        return Ask("GET", f"/api/v1/verify/{number}", None, VerifyView)

    @call
    @staticmethod
    def verifications() -> Steps[list[VerifyView]]:
        """List those that are open and the newest others, oldest first."""
        return every("/api/v1/verify", VerifyView)

    @call
    @staticmethod
    def cancel_verification(number: int) -> Ask[None]:
        """Stop it. Raises NoSuchThing, NotNow."""
        return Ask("POST", f"/api/v1/verify/{number}/cancel", None, type(None))

    @call
    @staticmethod
    def expire(named: Sequence[SetId] = (), *, failed: bool = False) -> Ask[Expired]:
        """Let go of all sets that may go, and of those named. Raises NoSuchThing."""
        body = {"sets": list(named), "failed": failed}
        return Ask("POST", "/api/v1/expire", body, Expired)

    @call
    @staticmethod
    def stage(spans: Sequence[FrameSpan], *, awaited: bool = False) -> Steps[int]:
        """Ask for frames to be staged, in whatever order suits the tapes; returns how many spans were accepted.

        `awaited`: somebody waits for them, so backups give way.
        """
        accepted = 0
        for first in range(0, len(spans), SPANS):
            body = {
                "segments": [msgspec.to_builtins(span) for span in spans[first : first + SPANS]],
                "awaited": awaited,
            }
            part: Accepted = yield Ask("POST", "/api/v1/stage", body, Accepted)
            accepted += part.accepted
        return accepted

    @call
    @staticmethod
    def frames(trees: Sequence[tuple[str, bytes]]) -> Ask[FramesView]:
        """Tell which frames hold sets, or what is at paths of them: whole ids, paths from a set's root.

        Raises NoSuchThing, UsageError for what lies in too many pieces.
        """
        named = [{"set_id": set_id, "path_b64": b64encode(path).decode()} for set_id, path in trees]
        return Ask("POST", "/api/v1/frames", {"trees": named}, FramesView)

    @call
    @staticmethod
    def missing(spans: Sequence[FrameSpan]) -> Steps[list[FrameSpan]]:
        """Tell which of these frames are not staged."""
        found: list[FrameSpan] = []
        for first in range(0, len(spans), SPANS):
            body = {"segments": [msgspec.to_builtins(span) for span in spans[first : first + SPANS]]}
            part: FramesView = yield Ask("POST", "/api/v1/frames", body, FramesView)
            found += part.missing
        return found

    @call
    @staticmethod
    def pin(spans: Sequence[FrameSpan], lifetime_s: float, reason: str) -> Steps[PinView]:
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
                pin = yield Ask("POST", "/api/v1/pins", body, PinView)
        except NoRoom:
            if pin is not None:
                yield _unpin(pin.id)
            raise
        if pin is None:
            raise UsageError("there is nothing to pin")
        return pin

    @call
    @staticmethod
    def pins() -> Steps[list[PinView]]:
        """Ask for the pins, oldest first."""
        return every("/api/v1/pins", PinView)

    @call
    @staticmethod
    def unpin(pin_id: str) -> Ask[None]:
        """End a pin. Raises NoSuchThing."""
        return _unpin(pin_id)

    @call
    @staticmethod
    def evict(segments: Sequence[SegmentId] | None) -> Ask[Freed]:
        """Drop staged frames of these segments, or of all (None); what is open or pinned stays."""
        return Ask("POST", "/api/v1/evict", {"segments": None if segments is None else list(segments)}, Freed)

    @call
    @staticmethod
    def recall_mode() -> Ask[RecallsMode]:
        """Ask whether readers may recall."""
        return Ask("GET", "/api/v1/recalls/mode", None, RecallsMode)

    @call
    @staticmethod
    def switch_recalls(mode: str) -> Ask[RecallsMode]:
        """Switch recalls `on`, `off`, or to `ask`."""
        return Ask("PUT", "/api/v1/recalls/mode", {"mode": mode}, RecallsMode)

    @call
    @staticmethod
    def recalls(*, history: bool, limit: int, **choice: str | int | None) -> Steps[list[RecallView]]:
        """List who waits, oldest first, or who waited, newest first; by uid, command, path or outcome."""
        query = urlencode({key: value for key, value in choice.items() if value is not None})
        target = "/api/v1/recalls/history" if history else "/api/v1/recalls"
        return every(f"{target}?{query}", RecallView, limit)

    @call
    @staticmethod
    def say_of_recall(number: int, word: str, *, process: bool) -> Ask[int]:
        """`grant` or `deny` what a reader waits for; returns how many reads wait. Raises NoSuchThing."""
        body = {"process": process}
        return Ask("POST", f"/api/v1/recalls/{number}/{word}", body, Reads).giving(lambda told: told.reads)

    @call
    @staticmethod
    def prompts() -> Steps[list[PromptView]]:
        """Ask what somebody is to do at the drives, oldest first."""
        return every("/api/v1/prompts", PromptView)

    @call
    @staticmethod
    def answer_prompt(number: int, answer: str) -> Ask[None]:
        """Say that it was `done`, or is `declined`. Raises NotNow when nobody asks any more, UsageError."""
        return Ask("POST", f"/api/v1/prompts/{number}", {"answer": answer}, type(None))

    @call
    @staticmethod
    def unlocked_keys() -> Ask[list[str]]:
        """Return the fingerprints of the keys that are unlocked."""
        return Ask("GET", "/api/v1/keys", None, Unlocked).giving(lambda told: told.unlocked)

    @call
    @staticmethod
    def unlock_key(secret: str) -> Ask[None]:
        """Hand a secret over (AGE-SECRET-KEY-1…); it is kept in memory. Raises UsageError."""
        return Ask("POST", "/api/v1/keys", {"secret": secret}, type(None))

    @call
    @staticmethod
    def lock_key(fingerprint: str) -> Ask[None]:
        """Have a secret forgotten. Raises NoSuchThing when it is not unlocked."""
        return Ask("DELETE", f"/api/v1/keys/{in_path(fingerprint)}", None, type(None))

    @call
    @staticmethod
    def add_tapes(tapes: Sequence[str]) -> Ask[list[str]]:
        """Say which tapes lie on the shelf now; returns those that are new. Raises NotNow, UsageError."""
        return Ask("POST", "/api/v1/shelf", {"tapes": list(tapes)}, NewTapes).giving(lambda told: told.new)

    @call
    @staticmethod
    def remove_tape(tape: str) -> Ask[None]:
        """Say that a tape does not lie on the shelf any more. Raises NotNow, UsageError."""
        return Ask("DELETE", f"/api/v1/shelf/{in_path(tape)}", None, type(None))


def _body(fields: JobFields) -> dict[str, object]:
    """Return the fields that are set, ready for JSON."""
    body: dict[str, object] = msgspec.to_builtins(fields)
    return body


def _unpin(pin_id: str) -> Ask[None]:
    return Ask("DELETE", f"/api/v1/pins/{pin_id}", None, type(None))
