"""Makes notices of the ledger's events: whoever changes the ledger, a mover included, need not think of them.

What the events up to a number mean is kept in the same transaction as that number, so a sidecar that was killed tells
when it comes back what it had not told, and nothing twice. The meaning is a blocking function of records; the task is
one of a trio run.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog
import trio

from catalog.errors import CatalogError, NotFound
from catalog.ids import JobNumber, SegmentId, SetId, VolumeId
from catalog.ledger import Ledger
from catalog.notice_records import Facts, NewNotice
from catalog.records import CopyState, Event, JobState
from catalog.recovery_records import Recovery, RecoveryState
from sidecar.bell import Bell
from sidecar.notices.events import Events
from tapefs.sizes import counted

#: Movers write to the ledger without ringing here.
LOOK_S = 1.0
#: Events that are read at a time.
PIECE = 1000

log = structlog.get_logger(__name__)

_JOB_KINDS = {
    JobState.RUNNING.value: "backup.started",
    JobState.COMPLETED.value: "backup.succeeded",
    JobState.FAILED.value: "backup.failed",
    JobState.CANCELLED.value: "backup.cancelled",
    JobState.QUEUED.value: "backup.queued",
}
_RESTORE_KINDS = {
    RecoveryState.RUNNING: "restore.started",
    RecoveryState.COMPLETED: "restore.succeeded",
    RecoveryState.FAILED: "restore.failed",
    RecoveryState.CANCELLED: "restore.cancelled",
}
_GIB = 1024**3


class Following:
    """Follows the ledger's events."""

    def __init__(self, ledger: Ledger, events: Events, bell: Bell) -> None:
        self._ledger = ledger
        self._events = events
        self._bell = bell
        self._is_behind = True

    def is_idle(self) -> bool:
        """Was everything told that the ledger holds? Blocking for microseconds."""
        return not self._is_behind and self._ledger.newest_event() == (self._ledger.followed_event() or 0)

    async def run(self) -> None:
        """Tell for ever what happens."""
        while True:
            try:
                await self.catch_up()
            except CatalogError as error:
                log.error("notices cannot be kept", error=str(error))
                await trio.sleep(10 * LOOK_S)
            with trio.move_on_after(LOOK_S):
                await self._bell.wait_rung()

    async def catch_up(self) -> None:
        """Tell what has happened until now."""
        while await trio.to_thread.run_sync(self._has_more):
            known, reached, new = await trio.to_thread.run_sync(self._piece)
            await self._events.post(new, followed=(known, reached))
        self._is_behind = False

    def _has_more(self) -> bool:
        known = self._ledger.followed_event()
        return known is None or known < self._ledger.newest_event()

    def _piece(self) -> tuple[int | None, int, list[NewNotice]]:
        """Return what the next events mean; what happened before notices were kept means nothing any more."""
        known = self._ledger.followed_event()
        if known is None:
            return None, self._ledger.newest_event(), []
        piece = self._ledger.events_since(known, PIECE)
        reached = piece[-1].number if piece else self._ledger.newest_event()
        new = (_meaning(self._ledger, self._events, event) for event in piece)
        return known, reached, [notice for notice in new if notice is not None]


def _meaning(ledger: Ledger, events: Events, event: Event) -> NewNotice | None:
    """Return what an event means for people, if anything; a record that has gone since means nothing."""
    maker = MAKERS.get(event.kind)
    try:
        return maker(ledger, events, event) if maker is not None else None
    except NotFound:
        return None


def _job(ledger: Ledger, events: Events, event: Event) -> NewNotice | None:
    kind = _JOB_KINDS.get(event.detail)
    if kind is None:
        return None
    job = ledger.job(JobNumber(int(event.subject)))
    facts: Facts = {"job": job.number, "name": job.name, "type": job.run_type or job.type}
    if kind == "backup.failed":
        facts["error"] = job.error
        return events.new(kind, event.subject, f"Job {job.number} ({job.name}) has failed: {job.error}", facts)
    if kind != "backup.succeeded":
        verb = {"backup.started": "has begun", "backup.queued": "is queued", "backup.cancelled": "was cancelled"}[kind]
        return events.new(kind, event.subject, f"Job {job.number} ({job.name}) {verb}.", facts)
    text = f"Job {job.number} ({job.name}) is done."
    if job.set_id is not None:
        of_set, sentence = _totals(ledger, job.set_id, (job.finished_at_ns or event.at_ns) - job.started_at_ns)
        facts, text = facts | of_set, f"Job {job.number} ({job.name}) is done: {sentence}"
    return events.new(kind, event.subject, text, facts)


def _totals(ledger: Ledger, set_id: SetId, took_ns: int) -> tuple[Facts, str]:
    """Return what a set holds, as facts and as TAF tells it: size, files, ratio, duration, speed."""
    made = ledger.backup_set(set_id)
    took_s = max(took_ns, 0) / 1e9
    ratio = made.stored_bytes / made.bytes if made.bytes else 1.0
    speed = made.bytes / _GIB / (took_s / 3600) if took_s else 0.0
    facts: Facts = {
        "set_id": made.set_id,
        "files": made.files,
        "bytes": made.bytes,
        "stored_bytes": made.stored_bytes,
        "troubled_files": made.troubled_files,
        "tapes": ", ".join(made.tapes),
        "seconds": round(took_s, 1),
    }
    troubled = f" {counted(made.troubled_files, 'file')} could not be read as they were." if made.troubled_files else ""
    return facts, (
        f"{counted(made.files, 'file')}, {made.bytes:,} bytes, on tape {made.stored_bytes:,} bytes ({ratio:.0%}), "
        f"in {_duration(took_s)}, {speed:.1f} GiB/h, on {', '.join(made.tapes) or 'no tape'}.{troubled}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _hook_failed(ledger: Ledger, events: Events, event: Event) -> NewNotice | None:
    """A hook before a run is told with the run, which it has made fail."""
    job = ledger.job(JobNumber(int(event.subject)))
    error = next((each.error for each in job.hooks if each.is_after and each.name == event.detail), "")
    facts: Facts = {"job": job.number, "name": job.name, "hook": event.detail, "error": error}
    text = (
        f"Hook {event.detail} behind job {job.number} ({job.name}) has failed: {error or 'see the log'}. "
        f"The job itself is {job.state.value}."
    )
    return events.new("hook.failed", event.subject, text, facts)


def _restore(ledger: Ledger, events: Events, event: Event) -> NewNotice | None:
    state = RecoveryState(event.detail)
    kind = _RESTORE_KINDS.get(state)
    if kind is None:
        return None
    recovery = ledger.recovery(event.subject)
    number, name = _set_called(ledger, recovery.set_id)
    target = recovery.target.decode("utf-8", "backslashreplace")
    facts: Facts = {
        "restore": recovery.recovery_id,
        "set_id": recovery.set_id,
        "name": name,
        "target": target,
        "created_by": recovery.created_by,
    }
    if state is not RecoveryState.RUNNING:
        took_s = max(recovery.finished_at_ns - recovery.started_at_ns, 0) / 1e9 if recovery.started_at_ns else 0.0
        facts |= {"files": recovery.files, "bytes": recovery.bytes, "seconds": round(took_s, 1)}
    if kind in ("restore.failed", "restore.cancelled"):
        facts["error"] = recovery.error
        facts |= msgspec.structs.asdict(recovery.not_restored)
    how = _how_restored(recovery, state)
    text = f"Restore {recovery.recovery_id} of {number} to {target} {how}"
    return events.new(kind, recovery.recovery_id, text, facts)


def _set_called(ledger: Ledger, set_id: SetId) -> tuple[str, str]:
    """Return how a set is called in a sentence, and its name; one that was forgotten meanwhile has none."""
    try:
        made = ledger.backup_set(set_id)
    except NotFound:
        return f"set {set_id}", ""
    return f"set {made.number} ({made.name})", made.name


def _how_restored(recovery: Recovery, state: RecoveryState) -> str:
    count = f"{recovery.files:,} files, {recovery.bytes:,} bytes"
    written = f" ({count} were written)" if recovery.files else ""
    if state is RecoveryState.RUNNING:
        return "has begun."
    if state is RecoveryState.COMPLETED:
        return f"is done: {count}, in {_duration((recovery.finished_at_ns - recovery.started_at_ns) / 1e9)}."
    if state is RecoveryState.CANCELLED:
        return f"was cancelled; what it has written stays{written}."
    return f"has failed: {recovery.error}{written}"


def _volume(ledger: Ledger, events: Events, event: Event) -> NewNotice | None:
    state, _, reason = event.detail.partition(": ")
    if state not in ("suspect", "full"):
        return None
    label = ledger.volume(VolumeId(event.subject)).label
    if state == "full":
        return events.new("tape.full", label, f"Tape {label} is full.", {"tape": label})
    facts: Facts = {"tape": label, "reason": reason}
    return events.new(
        "tape.error", label, f"Tape {label} is not written any more: {reason or 'see its history'}", facts
    )


def _renewed(ledger: Ledger, events: Events, event: Event) -> NewNotice | None:
    label = event.detail.partition(", was ")[0]
    return events.new("tape.renewed", label, f"Tape {label} begins anew; what was on it is given up.", {"tape": label})


def _damaged(ledger: Ledger, events: Events, event: Event) -> NewNotice | None:
    segment = ledger.segment(SegmentId(event.subject))
    label, made = ledger.volume(VolumeId(event.detail)).label, ledger.backup_set(segment.set_id)
    facts: Facts = {"tape": label, "set_id": made.set_id, "name": made.name, "segment_id": segment.segment_id}
    others = [each for each in ledger.copies(segment.segment_id) if each.volume_id != event.detail]
    whole = [ledger.volume(each.volume_id).label for each in others if each.state is CopyState.GOOD]
    text = (
        f"Tape {label}: a copy of segment {segment.number} of {made.name} is damaged; see `tapefs report {made.name}`."
    )
    if whole:
        facts["others"] = " ".join(whole)
        text += f" Readers take it from {' or '.join(whole)}."
    else:
        text += " No tape has a whole copy: no older set goes for the sake of this one. Another drive may read it."
    return events.new("copy.damaged", label, text, facts)


def _expired(ledger: Ledger, events: Events, event: Event) -> NewNotice | None:
    facts: Facts = {"set_id": event.subject, "name": event.detail}
    return events.new("set.expired", event.subject, f"A set of {event.detail} has expired.", facts)


MAKERS: dict[str, Callable[[Ledger, Events, Event], NewNotice | None]] = {
    "job.state": _job,
    "job.hook_failed": _hook_failed,
    "restore.state": _restore,
    "volume.state": _volume,
    "volume.renewed": _renewed,
    "copy.damaged": _damaged,
    "set.expired": _expired,
}
