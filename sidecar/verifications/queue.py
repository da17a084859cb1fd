"""Verifications on request: which copies are to be read back, which is next, and what was found.

One trio run; the drives take copies from here when no recall and no job wants them. What was asked for is in the ledger
before it is acknowledged, and so is what came of it. What is read back is marked there, too: after a restart a run goes
on with the copies that were not read.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from catalog.errors import NotFound
from catalog.ids import SegmentId, SetId, VolumeId
from catalog.ledger import Ledger
from catalog.records import BackupSet, CopyState, SegmentCopy, SetState
from catalog.task_records import KEPT_TASKS, TaskFamily, TaskRecord
from catalog.task_records import TaskState as RunState
from sidecar.bell import Bell
from sidecar.tapes.task_log import OWN_KEEPER, TaskLog
from sidecar.verifications.outcome import CopyTask, Outcome, TaskState, outcome_of
from tapefs.errors import NoSuchThing, NotNow
from tapefs.mover.messages import LostFile, Report, Verified, VerifyProgress

#: Lost files kept for each run; beyond them they are only counted, and the damage files have them all.
NEWEST_LOST = 100
#: Runs of which every copy is remembered; of others their outcome.
NEWEST_RUNS = 100
#: Findings that the ledger keeps of each run; the ledger's records of copies have all.
KEPT_FINDINGS = 1000
#: A copy is put off for recalls so often; then it is read to its end.
MOST_INTERRUPTIONS = 3
#: So many drives may fail, or movers die, while a copy is read; then it counts as not read.
MOST_FAILURES = 3


OPEN = (TaskState.WAITING, TaskState.RUNNING)


class _Order(msgspec.Struct, frozen=True):
    """What was asked for, as the ledger keeps it."""

    sets: list[SetId]
    tapes: list[str]
    everything: bool
    since_ns: int | None
    #: With a sample: the copies that were chosen; None: all of these sets and tapes.
    chosen: list[tuple[SegmentId, VolumeId]] | None
    #: `OWN_KEEPER`: whoever asked begins it anew after a restart.
    keeper: str = ""


@dataclass(slots=True, eq=False)
class VerifyRun:
    """What somebody has asked for."""

    number: int
    tasks: list[CopyTask]
    started_at_ns: int
    finished_at_ns: int = 0
    is_cancelled: bool = False
    #: A drive has begun with it.
    has_begun: bool = False
    #: It was asked for before the sidecar began.
    is_restored: bool = False
    #: How it ended, and what came of it, once its copies are not remembered any more.
    ended_as: RunState | None = None
    past: Outcome | None = None
    #: Why it was not gone on with; empty: it was.
    error: str = ""
    lost: deque[tuple[CopyTask, bytes]] = field(default_factory=lambda: deque(maxlen=NEWEST_LOST))

    @property
    def is_open(self) -> bool:
        """Is anything still to be read?"""
        return self.ended_as is None and any(task.state in OPEN for task in self.tasks)

    @property
    def state(self) -> str:
        """`running`, `cancelled`, `failed` when anything is not good, `interrupted`, else `completed`."""
        if self.ended_as is not None:
            return "completed" if self.ended_as is RunState.DONE else self.ended_as.value
        if self.is_open:
            return "running"
        if any(task.state is TaskState.CANCELLED for task in self.tasks):
            return "cancelled"
        return "completed" if all(task.state is TaskState.GOOD for task in self.tasks) else "failed"

    @property
    def outcome(self) -> Outcome:
        """What came of it so far."""
        return self.past or outcome_of(self.tasks, self.lost)


class Verifications:
    """All runs."""

    def __init__(self, ledger: Ledger, bell: Bell, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._ledger = ledger
        self._bell = bell
        self._now_ns = now_ns
        self._log = TaskLog(ledger, TaskFamily.VERIFICATION, now_ns)
        self._runs: OrderedDict[int, VerifyRun] = OrderedDict()
        #: What drives work on.
        self._running: dict[tuple[SegmentId, VolumeId], tuple[VerifyRun, CopyTask]] = {}

    def resume(self) -> None:
        """Take what the last sidecar has left. Blocking; before anything else. Raises CatalogError."""
        for record in self._log.kept():
            run = _restored(record)
            self._runs[run.number] = run
            if record.is_open:
                self._go_on(run, record)

    def _go_on(self, run: VerifyRun, record: TaskRecord) -> None:
        order = msgspec.json.decode(record.order, type=_Order)
        if order.keeper == OWN_KEEPER:
            run.ended_as, run.error = RunState.INTERRUPTED, "the sidecar ended; whoever asked for it asks anew"
        elif self._log.is_stopping(run.number):
            run.ended_as = RunState.CANCELLED
        run.tasks = _plan_rest(self._ledger, order, record.added_at_ns)
        if run.ended_as is not None:
            _cancel_waiting(run)
        self._note_end(run)

    # -- for HTTP ----------------------------------------------------------------------------------------------------

    async def start(
        self,
        sets: Sequence[SetId],
        tapes: Sequence[str],
        *,
        everything: bool,
        since_ns: int | None,
        sample: int = 0,
        keeper: str = "",
    ) -> VerifyRun:
        """Have copies read back: of these sets, on these tapes, or all. Copies read since `since_ns` are not again.

        With `sample` of each tape only so many of them, which were read back the longest ago. Raises NoSuchThing,
        NotNow when a set is not complete. In the ledger when this returns. `keeper`: see `sidecar.tapes.task_log`.
        """
        tasks = await trio.to_thread.run_sync(_plan, self._ledger, sets, tapes, everything, since_ns, sample)
        chosen = [(task.segment_id, task.volume_id) for task in tasks] if sample else None
        order = msgspec.json.encode(_Order(list(sets), list(tapes), everything, since_ns, chosen, keeper))
        now_ns = self._now_ns()
        run = VerifyRun(self._log.add("verify", _subject_of(sets, tapes), order, now_ns), tasks, now_ns)
        self._runs[run.number] = run
        self._note_end(run)
        self._forget_old()
        self._bell.ring()
        return run

    def run(self, number: int) -> VerifyRun:
        """Return one. Raises NoSuchThing."""
        try:
            return self._runs[number]
        except KeyError:
            raise NoSuchThing(f"there is no verification {number}: the newest {KEPT_TASKS} are kept") from None

    def runs(self) -> list[VerifyRun]:
        """Return those that are remembered, oldest first."""
        return list(self._runs.values())

    def cancel(self, number: int) -> VerifyRun:
        """Stop it; what is being read is given up. Raises NoSuchThing, NotNow when it has ended."""
        run = self.run(number)
        if not run.is_open:
            raise NotNow(f"verification {number} has ended: there is nothing to cancel")
        self._log.stopping(number)
        run.is_cancelled = True
        _cancel_waiting(run)
        self._note_end(run)
        self._bell.ring()
        return run

    def is_idle(self) -> bool:
        """Is nothing to be read?"""
        return not any(run.is_open for run in self._runs.values())

    # -- for the drives ----------------------------------------------------------------------------------------------

    def next_for(self, tape: VolumeId | None, is_usable: Callable[[VolumeId], bool]) -> CopyTask | None:
        """Return the next copy: of the tape in the drive if there is one, else of a usable tape, the oldest run first.

        Copies of a tape come in its order.
        """
        chosen: VolumeId | None = None
        for run in self._runs.values():
            for task in run.tasks:
                if task.state is not TaskState.WAITING:
                    continue
                if task.volume_id == tape:
                    return task
                if chosen is None and is_usable(task.volume_id):
                    chosen = task.volume_id
        return None if chosen is None else self._first_on(chosen)

    def _first_on(self, volume_id: VolumeId) -> CopyTask:
        return next(task for _, task in self._waiting() if task.volume_id == volume_id)

    def _waiting(self) -> Iterable[tuple[VerifyRun, CopyTask]]:
        for run in list(self._runs.values()):
            for task in run.tasks:
                if task.state is TaskState.WAITING:
                    yield run, task

    def begin(self, task: CopyTask) -> None:
        """A drive reads the copy; `done`, `put_off` or `fail` must follow. Raises CatalogError."""
        run = next(run for run, each in self._waiting() if each is task)
        if not run.has_begun:
            self._log.begun(run.number)
            run.has_begun = True
        task.state, task.done_bytes = TaskState.RUNNING, 0
        self._running[(task.segment_id, task.volume_id)] = (run, task)

    def note(self, report: Report) -> None:
        """Keep what the mover tells."""
        if not isinstance(report, VerifyProgress | LostFile | Verified):
            return
        found = self._running.get((report.segment_id, report.volume_id))
        if found is None:
            return
        run, task = found
        if isinstance(report, VerifyProgress):
            task.done_bytes = report.payload_bytes
        elif isinstance(report, LostFile):
            run.lost.append((task, report.path))
        else:
            task.state = TaskState.DAMAGED if report.problems else TaskState.GOOD
            task.problems, task.files = report.problems, report.files
            task.done_bytes = task.payload_bytes

    def is_cancelled(self, task: CopyTask) -> bool:
        """Was the run cancelled that this copy is read for?"""
        found = self._running.get((task.segment_id, task.volume_id))
        return found is not None and found[0].is_cancelled

    def done(self, task: CopyTask) -> None:
        """The mover has answered, having told what it found."""
        if task.state is TaskState.RUNNING:
            task.state = TaskState.UNREAD
            task.problems = ["the mover ended the verification without a result"]
        self._end(task)

    def put_off(self, task: CopyTask) -> None:
        """It was interrupted for somebody who waits: it is to do again."""
        task.interruptions += 1
        task.state, task.done_bytes = TaskState.WAITING, 0
        self._end(task)

    def fail(self, task: CopyTask, message: str, *, is_cancelled: bool = False) -> None:
        """It could not be read, or was cancelled."""
        task.state = TaskState.CANCELLED if is_cancelled else TaskState.UNREAD
        task.problems = [message]
        self._end(task)

    def drive_failed(self, task: CopyTask, message: str) -> None:
        """The drive failed, or its mover died, while it was read: it is for whichever drive gets the tape next."""
        task.drive_failures += 1
        if task.drive_failures >= MOST_FAILURES or self.is_cancelled(task):
            self.fail(task, message, is_cancelled=self.is_cancelled(task))
        else:
            task.state, task.done_bytes = TaskState.WAITING, 0
            self._end(task)

    def tape_failed(self, volume_id: VolumeId, message: str) -> None:
        """The tape cannot be had: nothing on it is read."""
        for run, task in list(self._waiting()):
            if task.volume_id == volume_id:
                task.state, task.problems = TaskState.UNREAD, [message]
                self._note_end(run)
        self._bell.ring()

    def fail_all(self, message: str) -> None:
        """No drive works."""
        for volume_id in {task.volume_id for _, task in self._waiting()}:
            self.tape_failed(volume_id, message)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _end(self, task: CopyTask) -> None:
        run, _ = self._running.pop((task.segment_id, task.volume_id))
        self._note_end(run)
        self._bell.ring()

    def _note_end(self, run: VerifyRun) -> None:
        if not run.finished_at_ns and not run.is_open:
            run.finished_at_ns = self._now_ns()
            outcome = msgspec.json.encode(outcome_of(run.tasks, run.lost, KEPT_FINDINGS))
            state = run.ended_as or _ENDS[run.state]
            self._log.ended(run.number, state, run.finished_at_ns, error=run.error, outcome=outcome)

    def _forget_old(self) -> None:
        ended = [run for run in self._runs.values() if not run.is_open]
        for run in ended[: max(0, len(self._runs) - KEPT_TASKS)]:
            del self._runs[run.number]
        for run in [run for run in ended if run.past is None][:-NEWEST_RUNS]:
            run.past, run.ended_as = outcome_of(run.tasks, run.lost, KEPT_FINDINGS), _ENDS[run.state]
            run.tasks = []
            run.lost.clear()


_ENDS = {"completed": RunState.DONE, "failed": RunState.FAILED, "cancelled": RunState.CANCELLED}


def _cancel_waiting(run: VerifyRun) -> None:
    for task in run.tasks:
        if task.state is TaskState.WAITING:
            task.state = TaskState.CANCELLED


def _subject_of(sets: Sequence[SetId], tapes: Sequence[str]) -> str:
    """Return in a few words what is read back, for people."""
    names = [*tapes, *sets]
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0] if names else "all"


def _restored(record: TaskRecord) -> VerifyRun:
    """Return a run as the ledger has it; without copies."""
    past = msgspec.json.decode(record.outcome, type=Outcome) if record.outcome else outcome_of((), deque())
    return VerifyRun(
        number=record.number,
        tasks=[],
        started_at_ns=record.added_at_ns,
        finished_at_ns=record.finished_at_ns,
        has_begun=record.state is RunState.RUNNING,
        is_restored=True,
        ended_as=None if record.is_open else record.state,
        past=None if record.is_open else past,
        error=record.error,
    )


# -- planning: in a thread -------------------------------------------------------------------------------------------


def _plan(
    ledger: Ledger,
    sets: Sequence[SetId],
    tapes: Sequence[str],
    everything: bool,
    since_ns: int | None,
    sample: int,
    begun_ns: int = 0,
) -> list[CopyTask]:
    """Return the copies, tape by tape in the order of the tape. Blocking. Raises NoSuchThing, NotNow.

    With `begun_ns` those that were read since then were read for this run.
    """
    complete = {each.set_id: each for each in ledger.backup_sets() if each.state is SetState.COMPLETE}
    copies: dict[tuple[SegmentId, VolumeId], SegmentCopy] = {}
    for copy in itertools.chain(_of_sets(ledger, sets, complete), _on_tapes(ledger, tapes, everything)):
        copies[(copy.segment_id, copy.volume_id)] = copy
    labels = {volume.volume_id: volume.label for volume in ledger.volumes()}
    tasks = []
    chosen = _longest_ago(ledger, complete, copies.values(), sample) if sample else copies.values()
    for copy in sorted(chosen, key=lambda copy: (labels.get(copy.volume_id, ""), copy.header_block)):
        segment = ledger.segment(copy.segment_id)
        if segment.set_id in complete:  # Others are never shown.
            task = CopyTask(
                copy.segment_id,
                segment.set_id,
                copy.volume_id,
                labels.get(copy.volume_id, copy.volume_id),
                copy.header_block,
                segment.stored_bytes,
            )
            if begun_ns and copy.verified_at_ns >= begun_ns:
                _judge(task, copy, "found damaged before the sidecar was started anew")
            else:
                _pass_over(task, copy, since_ns)
            tasks.append(task)
    return tasks


def _plan_rest(ledger: Ledger, order: _Order, asked_ns: int) -> list[CopyTask]:
    """Return the copies of a run that has begun: those that were read since then are done. Blocking.

    Sets and tapes that are gone by now are not read, nor are sets that were not complete then.
    """
    complete = {each.set_id: each for each in ledger.backup_sets() if each.state is SetState.COMPLETE}
    known = {volume.label for volume in ledger.volumes()}
    sets = [set_id for set_id in order.sets if set_id in complete]
    tapes = [label for label in order.tapes if label in known]
    tasks = _plan(ledger, sets, tapes, order.everything, order.since_ns, 0, asked_ns)
    chosen = None if order.chosen is None else set(order.chosen)
    return [
        task
        for task in tasks
        if complete[task.set_id].finished_at_ns <= asked_ns
        and (chosen is None or (task.segment_id, task.volume_id) in chosen)
    ]


def _longest_ago(
    ledger: Ledger, complete: dict[SetId, BackupSet], copies: Iterable[SegmentCopy], most: int
) -> Iterable[SegmentCopy]:
    """Return of each tape the copies that were read back the longest ago; at first those that never were."""
    counts: Counter[VolumeId] = Counter()
    for copy in sorted(copies, key=lambda copy: (copy.verified_at_ns, copy.header_block)):
        if ledger.segment(copy.segment_id).set_id in complete and counts[copy.volume_id] < most:
            counts[copy.volume_id] += 1
            yield copy


def _of_sets(ledger: Ledger, sets: Iterable[SetId], complete: dict[SetId, BackupSet]) -> Iterable[SegmentCopy]:
    for set_id in sets:
        if set_id not in complete:
            try:
                state = ledger.backup_set(set_id).state
            except NotFound as error:
                raise NoSuchThing(f"there is no backup set {set_id}") from error
            raise NotNow(f"set {set_id} is {state.value}: only complete sets are read back")
        for segment in ledger.segments(set_id):
            yield from ledger.copies(segment.segment_id)


def _on_tapes(ledger: Ledger, tapes: Sequence[str], everything: bool) -> Iterable[SegmentCopy]:
    volumes = ledger.volumes()
    known = {volume.label for volume in volumes}
    for label in tapes:
        if label not in known:
            raise NoSuchThing(f"there is no tape {label}: see `tapefs tapes`")
    for volume in volumes:
        if everything or volume.label in tapes:
            yield from ledger.copies_on(volume.volume_id)


def _pass_over(task: CopyTask, copy: SegmentCopy, since_ns: int | None) -> None:
    """What was read back lately is not again; if it was damaged, that is told all the same."""
    if since_ns is None or not copy.verified_at_ns or copy.verified_at_ns < since_ns:
        return
    task.is_old = True
    _judge(task, copy, "found damaged when it was read back lately")


def _judge(task: CopyTask, copy: SegmentCopy, damaged: str) -> None:
    task.done_bytes = task.payload_bytes
    if copy.state is CopyState.GOOD:
        task.state = TaskState.GOOD
    else:
        task.state = TaskState.DAMAGED
        task.problems = [damaged]
