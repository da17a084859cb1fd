"""What came of a verification so far: for people and programs, and for the ledger, which keeps it. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from catalog.ids import SegmentId, SetId, VolumeId
from sidecar.http.answers import shown
from tapefs.format.records import as_text


class TaskState(Enum):
    """How far a copy is."""

    WAITING = "waiting"
    RUNNING = "running"
    GOOD = "good"
    DAMAGED = "damaged"
    #: It could not be read: no tape, or the drive failed. Says nothing about the copy.
    UNREAD = "unread"
    CANCELLED = "cancelled"


@dataclass(slots=True, eq=False)
class CopyTask:
    """One copy to be read back."""

    segment_id: SegmentId
    set_id: SetId
    volume_id: VolumeId
    #: Label of the tape.
    tape: str
    header_block: int
    payload_bytes: int
    state: TaskState = TaskState.WAITING
    #: Found a while ago, and not read again.
    is_old: bool = False
    done_bytes: int = 0
    interruptions: int = 0
    drive_failures: int = 0
    #: What is wrong with it, or why it was not read.
    problems: list[str] = field(default_factory=list)
    files: int = 0


class Finding(msgspec.Struct, frozen=True):
    """A copy that is not good, or could not be read."""

    segment_id: str
    set_id: str
    tape: str
    volume_id: str
    state: str
    problems: list[str]
    files: int
    is_old: bool


class LostPath(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that has lost content."""

    segment_id: str
    set_id: str
    tape: str
    path: str
    #: Its bytes where they are not UTF-8.
    path_b64: bytes = b""


class Outcome(msgspec.Struct, frozen=True):
    """Copies of segments in all, and by what became of them; what was lost."""

    copies: int
    waiting: int
    running: int
    good: int
    damaged: int
    unread: int
    cancelled: int
    passed_over: int
    bytes: int
    done_bytes: int
    tape: str
    lost_files: int
    lost: list[LostPath]
    findings: list[Finding]


def outcome_of(tasks: Sequence[CopyTask], lost: deque[tuple[CopyTask, bytes]], most_findings: int = 0) -> Outcome:
    """Return it, with so many findings; 0: all."""
    by_state = Counter(task.state for task in tasks)
    bad = [task for task in tasks if task.state in (TaskState.DAMAGED, TaskState.UNREAD)]
    return Outcome(
        copies=len(tasks),
        waiting=by_state[TaskState.WAITING],
        running=by_state[TaskState.RUNNING],
        good=by_state[TaskState.GOOD],
        damaged=by_state[TaskState.DAMAGED],
        unread=by_state[TaskState.UNREAD],
        cancelled=by_state[TaskState.CANCELLED],
        passed_over=sum(task.is_old for task in tasks),
        bytes=sum(task.payload_bytes for task in tasks),
        done_bytes=sum(task.done_bytes for task in tasks),
        tape=next((task.tape for task in tasks if task.state is TaskState.RUNNING), ""),
        lost_files=sum(task.files for task in tasks),
        lost=[_lost(task, path) for task, path in lost],
        findings=[_finding(task) for task in (bad[:most_findings] if most_findings else bad)],
    )


def _finding(task: CopyTask) -> Finding:
    return Finding(
        segment_id=task.segment_id,
        set_id=task.set_id,
        tape=task.tape,
        volume_id=task.volume_id,
        state=task.state.value,
        problems=task.problems,
        files=task.files,
        is_old=task.is_old,
    )


def _lost(task: CopyTask, path: bytes) -> LostPath:
    text, raw = as_text(path)
    return LostPath(task.segment_id, task.set_id, task.tape, shown(path) if raw else text, raw)
