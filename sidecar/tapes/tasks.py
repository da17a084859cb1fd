"""What operators want done with tapes: identify, label, relabel, erase, reclaim. Which is next, what became of it.

One trio run; the drives take tasks from here when no recall and no job wants them. Each is in the ledger before it is
acknowledged, and before a drive begins it; `sidecar.tapes.restart` says what becomes of those that were open.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from catalog.errors import NotFound
from catalog.ids import VolumeId
from catalog.ledger import Ledger
from catalog.records import Volume
from catalog.task_records import KEPT_TASKS, TaskFamily, TaskRecord, TaskState
from sidecar.bell import Bell
from sidecar.drives.movers import Call, Mover, MoverDied
from sidecar.tapes.orders import Command, PutBack, kind_of
from sidecar.tapes.restart import Ending, ending_of
from sidecar.tapes.task_log import TaskLog
from tapefs.errors import NoSuchThing, NotNow
from tapefs.mover.messages import Cancel, FoundTape, Progress, ReclaimedTape
from tapefs.taf.views import Imported


class _Order(msgspec.Struct, frozen=True):
    """What was asked for, as the ledger keeps it."""

    command: Command
    #: The cartridge: its barcode, or its label where it has none.
    code: str
    #: `OWN_KEEPER`: whoever asked begins it anew after a restart.
    keeper: str = ""


class _Outcome(msgspec.Struct, frozen=True):
    """What came of it, as the ledger keeps it."""

    found: FoundTape | None = None
    reclaimed: ReclaimedTape | None = None
    imported: Imported | None = None


@dataclass(slots=True, eq=False)
class TapeTask:
    """One thing to be done with one tape."""

    number: int
    command: Command
    #: Label of the tape; the new one when that is known.
    tape: str
    started_at_ns: int
    state: TaskState = TaskState.WAITING
    #: Kind and sentence of what went wrong.
    error_kind: str = ""
    error: str = ""
    found: FoundTape | None = None
    #: Of a reclaim: how far it is, and what it has moved.
    progress: Progress | None = None
    reclaimed: ReclaimedTape | None = None
    #: Of an import: what it has taken in.
    imported: Imported | None = None
    #: Of a reclaim or an import: what its mover is told when it is cancelled.
    is_cancelled: bool = False
    call: Call | None = None
    mover: Mover | None = None
    finished_at_ns: int = 0

    @property
    def kind(self) -> str:
        """`identify`, `label`, `relabel`, `erase`, `reclaim`, `import` or `unload`."""
        return kind_of(self.command)

    async def attach(self, call: Call, mover: Mover) -> None:
        """A mover works on it now; it is told at once when the task was cancelled meanwhile."""
        self.call, self.mover = call, mover
        await self.tell_cancelled()

    async def tell_cancelled(self) -> None:
        """Have the mover stop at the next good place, if that is wanted."""
        if self.is_cancelled and self.call is not None and self.mover is not None:
            # A mover that has died ends the task by that.
            with suppress(MoverDied):
                await self.mover.tell(Cancel(target=self.call.number))

    @property
    def volume_id(self) -> VolumeId:
        """The tape it is about, as it was when the task was given."""
        return self.command.volume_id

    @property
    def is_open(self) -> bool:
        """Has it not come to an end?"""
        return self.state in (TaskState.WAITING, TaskState.RUNNING)


class TapeTasks:
    """All tasks."""

    def __init__(self, ledger: Ledger, bell: Bell, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._ledger = ledger
        self._bell = bell
        self._now_ns = now_ns
        self._log = TaskLog(ledger, TaskFamily.TAPE, now_ns)
        self._tasks: OrderedDict[int, TapeTask] = OrderedDict()

    def resume(self) -> None:
        """Take what the last sidecar has left. Blocking; before anything else. Raises CatalogError."""
        for record in self._log.kept():
            task = _restored(record)
            self._tasks[task.number] = task
            if record.is_open:
                self._go_on(task, record)

    def _go_on(self, task: TapeTask, record: TaskRecord) -> None:
        order = msgspec.json.decode(record.order, type=_Order)
        if self._log.is_stopping(task.number):
            ending: Ending | None = Ending(TaskState.CANCELLED)
        else:
            ending = ending_of(self._ledger, record, order.command, order.code, order.keeper)
        if ending is not None:
            task.state, task.error_kind, task.error = ending.state, ending.kind, ending.sentence
            self._end(task)
        elif record.state is TaskState.RUNNING:
            self._log.again(task.number)
            task.state = TaskState.WAITING

    # -- for HTTP ----------------------------------------------------------------------------------------------------

    def add(self, volume: Volume, command: Command, keeper: str = "") -> TapeTask:
        """Have something done with a tape when a drive is free. Raises NotNow while something else is to be.

        It is in the ledger when this returns. `keeper`: see `sidecar.tapes.task_log`.
        """
        other = next(
            (each for each in self._tasks.values() if each.is_open and each.volume_id == volume.volume_id), None
        )
        if other is not None:
            raise NotNow(f"tape {volume.label} is to be {_PAST[other.kind]} already, or is being: task {other.number}")
        now_ns = self._now_ns()
        order = msgspec.json.encode(_Order(command, volume.code, keeper))
        number = self._log.add(kind_of(command), volume.label, order, now_ns)
        task = TapeTask(number, command, volume.label, now_ns)
        self._tasks[task.number] = task
        self._forget_old()
        self._bell.ring()
        return task

    def task(self, number: int) -> TapeTask:
        """Return one. Raises NoSuchThing."""
        try:
            return self._tasks[number]
        except KeyError:
            raise NoSuchThing(f"there is no task {number}; the newest {KEPT_TASKS} are kept") from None

    def tasks(self) -> list[TapeTask]:
        """Return those that are remembered, oldest first."""
        return list(self._tasks.values())

    async def cancel(self, number: int) -> TapeTask:
        """Give up a task that waits, or have a reclaim or an import stop at the next good place.

        Raises NoSuchThing, NotNow when another one has begun: a tape is never left half done.
        """
        task = self.task(number)
        if task.state is TaskState.RUNNING and task.kind in ("reclaim", "import"):
            self._log.stopping(number)
            task.is_cancelled = True
            await task.tell_cancelled()
            return task
        if task.state is not TaskState.WAITING:
            if task.state is TaskState.RUNNING and task.kind == "erase":
                raise NotNow(f"tape {task.tape} is being erased, and no drive can be stopped doing that: it goes on")
            raise NotNow(f"task {number} is {task.state.value}: only one that waits can be cancelled")
        task.state = TaskState.CANCELLED
        self._end(task)
        return task

    def look_again(self) -> None:
        """Have the drives look whether there is something to be done with their tapes."""
        self._bell.ring()

    def is_idle(self) -> bool:
        """Is nothing to be done?"""
        return not any(task.is_open for task in self._tasks.values())

    # -- for the drives ----------------------------------------------------------------------------------------------

    def next_for(self, tape: VolumeId | None, is_usable: Callable[[VolumeId], bool]) -> TapeTask | None:
        """Return the next task: of the tape in the drive if there is one, else the oldest with a usable tape.

        Tapes are reclaimed one after the other: two at once would each begin a tape for what is left of them.
        """
        has_reclaim = any(task.state is TaskState.RUNNING and task.kind == "reclaim" for task in self._tasks.values())
        waiting = [
            task
            for task in self._tasks.values()
            if task.state is TaskState.WAITING
            and not isinstance(task.command, PutBack)
            and not (has_reclaim and task.kind == "reclaim")
        ]
        at_hand = next((task for task in waiting if task.volume_id == tape), None)
        return at_hand or next((task for task in waiting if is_usable(task.volume_id)), None)

    def to_put_back(self) -> list[TapeTask]:
        """Return what waits for the drive that has the tape to put it back."""
        return [
            task
            for task in self._tasks.values()
            if task.state is TaskState.WAITING and isinstance(task.command, PutBack)
        ]

    def begin(self, task: TapeTask) -> None:
        """A drive does it; `done` or `fail` must follow. Raises CatalogError: then it must not be done."""
        self._log.begun(task.number)
        task.state = TaskState.RUNNING

    def done(
        self,
        task: TapeTask,
        found: FoundTape | None,
        volume_id: VolumeId | None,
        reclaimed: ReclaimedTape | None = None,
        imported: Imported | None = None,
    ) -> None:
        """It was done; the tape is that one now."""
        task.state, task.found, task.reclaimed, task.imported = TaskState.DONE, found, reclaimed, imported
        if volume_id is not None:
            with suppress(NotFound):  # It was given up once more, meanwhile.
                task.tape = self._ledger.volume(volume_id).label
        self._end(task)

    def fail(self, task: TapeTask, kind: str, message: str) -> None:
        """It could not be done."""
        if kind == "cancelled":
            task.state = TaskState.CANCELLED
            self._end(task)
            return
        task.state, task.error_kind, task.error = TaskState.FAILED, kind, message
        self._end(task)

    def fail_all(self, message: str) -> None:
        """No drive works."""
        for task in self.tasks():
            if task.state is TaskState.WAITING:
                self.fail(task, "drive", message)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _end(self, task: TapeTask) -> None:
        task.finished_at_ns = self._now_ns()
        task.call = task.mover = None
        outcome = _Outcome(task.found, task.reclaimed, task.imported)
        self._log.ended(
            task.number,
            task.state,
            task.finished_at_ns,
            subject=task.tape,
            error_kind=task.error_kind,
            error=task.error,
            outcome=b"" if outcome == _Outcome() else msgspec.json.encode(outcome),
        )
        self._bell.ring()

    def _forget_old(self) -> None:
        ended = [number for number, task in self._tasks.items() if not task.is_open]
        for number in ended[: max(0, len(self._tasks) - KEPT_TASKS)]:
            del self._tasks[number]


_PAST = {
    "identify": "identified",
    "label": "labelled",
    "relabel": "relabelled",
    "erase": "erased",
    "reclaim": "reclaimed",
    "import": "imported",
    "unload": "unloaded",
}


def _restored(record: TaskRecord) -> TapeTask:
    """Return a task as the ledger has it."""
    order = msgspec.json.decode(record.order, type=_Order)
    outcome = msgspec.json.decode(record.outcome, type=_Outcome) if record.outcome else _Outcome()
    return TapeTask(
        number=record.number,
        command=order.command,
        tape=record.subject,
        started_at_ns=record.added_at_ns,
        state=record.state,
        error_kind=record.error_kind,
        error=record.error,
        found=outcome.found,
        reclaimed=outcome.reclaimed,
        imported=outcome.imported,
        finished_at_ns=record.finished_at_ns,
    )
