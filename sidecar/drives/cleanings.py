"""Cleaning of drives: which want it, which cartridge cleans next, and what has been asked for.

One trio run; each drive's task takes what is for it between two tapes (`cleaner`). What is asked for is in the ledger
before it is acknowledged and before it begins, as are cleanings themselves, and which cartridge is used up.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec
import structlog

from catalog.ledger import Ledger
from catalog.task_records import KEPT_TASKS, TaskFamily, TaskRecord, TaskState
from drivers.interface import ElementKind
from drivers.registry import drive_name
from sidecar.bell import Bell
from sidecar.tapes.library import Library
from sidecar.tapes.task_log import OWN_KEEPER, TaskLog
from tapefs.condition.cleaning import has_cleanings_left
from tapefs.errors import NoSuchThing, NoTape, NotNow

#: What `[library] cleaning` in tapefs.toml may say.
AUTO, ASK = "auto", "ask"

log = structlog.get_logger(__name__)


class _Order(msgspec.Struct, frozen=True):
    """What was asked for, as the ledger keeps it."""

    cartridge: str = ""
    is_automatic: bool = False
    #: `OWN_KEEPER`: whoever asked begins it anew after a restart.
    keeper: str = ""


class _Outcome(msgspec.Struct, frozen=True):
    """What came of it, as the ledger keeps it."""

    cartridge: str


@dataclass(slots=True, eq=False)
class CleaningTask:
    """One drive is to be cleaned."""

    number: int
    drive: str
    #: Barcode of the cartridge that is to be used; empty: any. Then the one that is.
    cartridge: str
    #: The drive has asked for it, nobody else has.
    is_automatic: bool
    asked_at_ns: int
    state: TaskState = TaskState.WAITING
    error_kind: str = ""
    error: str = ""
    began_at_ns: int = 0
    finished_at_ns: int = 0

    @property
    def is_open(self) -> bool:
        """Has it not come to an end?"""
        return self.state in (TaskState.WAITING, TaskState.RUNNING)


class Cleanings:
    """All drives'."""

    def __init__(
        self,
        ledger: Ledger,
        library: Library,
        bell: Bell,
        policy: str,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`policy` is as `[library] cleaning` has it."""
        self.policy = policy
        self._ledger = ledger
        self._library = library
        self._bell = bell
        self._now_ns = now_ns
        self._log = TaskLog(ledger, TaskFamily.CLEANING, now_ns)
        self._tasks: OrderedDict[int, CleaningTask] = OrderedDict()
        #: Drives that want to be cleaned, by their own newest word; and those of them that must not write before.
        self._wishes: dict[str, bool] = {}
        #: Since when they want it.
        self._since_ns: dict[str, int] = {}
        #: Drives whose wish could not be met, and what the operator was told.
        self._given_up: dict[str, str] = {}
        #: Those of them that could not be cleaned with what is there: they are not tried again by themselves.
        self._failed: set[str] = set()
        #: Which drive has refused which cartridge since the start.
        self._unfit: set[tuple[str, str]] = set()

    def resume(self, drives: Collection[str]) -> None:
        """Take what the last sidecar has left; these drives there are. Blocking; before anything else.

        What waits goes on waiting. Nobody knows what became of a cleaning that had begun: the drive does, and asks
        again if it is not clean. Raises CatalogError.
        """
        for record in self._log.kept():
            task = _restored(record)
            self._tasks[task.number] = task
            if record.is_open and (why := _obstacle_to(record, drives)):
                task.error_kind, task.error = "interrupted", why
                self._end(task, TaskState.INTERRUPTED)

    # -- what drives say ---------------------------------------------------------------------------------------------

    def note(self, drive: str, *, wants: bool, must: bool) -> None:
        """Take a drive's newest word."""
        was_wanted = drive in self._wishes
        if not wants:
            self._forget_wish(drive)
            return
        self._wishes[drive] = must
        self._since_ns.setdefault(drive, self._now_ns())
        if not was_wanted and self.policy == ASK:
            log.warning("a drive asks to be cleaned", drive=drive, at_once=must, todo=f"tapefs tape clean {drive}")

    def is_wanted(self, drive: str) -> bool:
        """Does the drive want to be cleaned?"""
        return drive in self._wishes

    def since_ns(self, drive: str) -> int:
        """Return since when it wants that; 0: it does not."""
        return self._since_ns.get(drive, 0)

    def must_be(self, drive: str) -> bool:
        """Must it be cleaned before it writes?"""
        return self._wishes.get(drive, False)

    def asking(self) -> list[str]:
        """Return the drives for which an operator is to do something, in order: nobody else does."""
        if self.policy == ASK:
            return [drive for drive in sorted(self._wishes) if self._open_task(drive) is None]
        return [drive for drive in sorted(self._wishes) if drive in self._given_up]

    def sentence(self, drive: str) -> str:
        """Say for people what a drive wants that is not cleaned by itself."""
        how = "at once" if self.must_be(drive) else "soon"
        why = self._given_up.get(drive)
        hint = f"`tapefs tape clean {drive}`"
        return f"{drive} asks to be cleaned {how}: {f'{why}; then ' if why else ''}{hint}"

    def leaves_writing_to(self, drive: str, up: Collection[str]) -> bool:
        """Must it be cleaned before it writes, cannot be, and is there a drive that need not?"""
        if self.policy != AUTO or not self.must_be(drive):
            return False
        return any(not self.must_be(other) for other in up if other != drive)

    # -- for HTTP ----------------------------------------------------------------------------------------------------

    def add(self, drive: str, cartridge: str = "", keeper: str = "") -> CleaningTask:
        """Have a drive cleaned as soon as it is free. Raises NotNow while that is to be, NoTape without a cartridge.

        It is in the ledger when this returns. `keeper`: see `sidecar.tapes.task_log`.
        """
        other = self._open_task(drive)
        if other is not None:
            raise NotNow(f"{drive} is to be cleaned already, or is being: cleaning {other.number}")
        self.choose(drive, cartridge)
        return self._new(drive, _Order(cartridge, keeper=keeper))

    def task(self, number: int) -> CleaningTask:
        """Return one. Raises NoSuchThing."""
        try:
            return self._tasks[number]
        except KeyError:
            raise NoSuchThing(f"there is no cleaning {number}: the newest {KEPT_TASKS} are kept") from None

    def tasks(self) -> list[CleaningTask]:
        """Return those that are remembered, oldest first."""
        return list(self._tasks.values())

    def cancel(self, number: int) -> CleaningTask:
        """Give up one that waits. Raises NoSuchThing, NotNow when it has begun: a drive cannot be stopped then."""
        task = self.task(number)
        if task.state is not TaskState.WAITING:
            raise NotNow(f"cleaning {number} is {task.state.value}: only one that waits can be cancelled")
        self._end(task, TaskState.CANCELLED)
        return task

    def is_idle(self) -> bool:
        """Is nothing to be done?"""
        return not any(task.is_open for task in self._tasks.values())

    # -- for the drives ----------------------------------------------------------------------------------------------

    def next_for(self, drive: str) -> CleaningTask | None:
        """Return what is to be done with a drive: what somebody has asked for, else what it wants itself."""
        task = self._open_task(drive)
        if task is not None:
            return task
        if self.policy != AUTO or not self.is_wanted(drive) or drive in self._failed:
            return None
        try:
            self.choose(drive)
        except NoTape as error:
            self._give_up(drive, str(error))
            return None
        return self._new(drive, _Order(is_automatic=True))

    def choose(self, drive: str, cartridge: str = "") -> str:
        """Return the barcode of the cartridge to be used: the one that has been used most. Raises NoTape."""
        here = self._library.cleaning_cartridges()
        if cartridge:
            return self._check_named(drive, cartridge, [each.barcode for each in here])
        usable = [
            (-self._ledger.life(code).mountings, code)
            for code in (each.barcode for each in here if self._is_free(each.kind, each.number, drive))
            if code is not None and not self._obstacle(drive, code)
        ]
        if not usable:
            raise NoTape(self._none_left(drive))
        return min(usable)[1]

    def begin(self, task: CleaningTask) -> None:
        """A drive does it; `done` or `fail` must follow. Raises CatalogError: then it must not be done."""
        self._log.begun(task.number)
        task.state, task.began_at_ns = TaskState.RUNNING, self._now_ns()

    def refused(self, task: CleaningTask) -> None:
        """The drive has not been cleaned by that cartridge: it is used up, or none for this drive."""
        self._unfit.add((task.drive, task.cartridge))

    def done(self, task: CleaningTask) -> None:
        """The drive is clean."""
        self._forget_wish(task.drive)
        self._end(task, TaskState.DONE)

    def fail(self, task: CleaningTask, kind: str, message: str) -> None:
        """It could not be done; a drive that wants it is left as it is until an operator does something."""
        task.error_kind, task.error = kind, message
        self._end(task, TaskState.FAILED)
        if task.is_automatic:
            self._give_up(task.drive, message)
            if self._has_choice(task.drive):  # Else it is tried with the next cartridge that comes.
                self._failed.add(task.drive)

    def fail_all(self, drives: Collection[str], message: str) -> None:
        """These drives do not work."""
        for task in self.tasks():
            if task.state is TaskState.WAITING and task.drive in drives:
                self.fail(task, "drive", message)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _open_task(self, drive: str) -> CleaningTask | None:
        return next((task for task in self._tasks.values() if task.is_open and task.drive == drive), None)

    def _new(self, drive: str, order: _Order) -> CleaningTask:
        now_ns = self._now_ns()
        number = self._log.add("clean", drive, msgspec.json.encode(order), now_ns)
        task = CleaningTask(number, drive, order.cartridge, order.is_automatic, now_ns)
        self._tasks[task.number] = task
        ended = [number for number, each in self._tasks.items() if not each.is_open]
        for number in ended[: max(0, len(self._tasks) - KEPT_TASKS)]:
            del self._tasks[number]
        self._bell.ring()
        return task

    def _end(self, task: CleaningTask, state: TaskState) -> None:
        task.state, task.finished_at_ns = state, self._now_ns()
        outcome = msgspec.json.encode(_Outcome(task.cartridge)) if task.cartridge else b""
        self._log.ended(
            task.number, state, task.finished_at_ns, error_kind=task.error_kind, error=task.error, outcome=outcome
        )
        self._bell.ring()

    def _forget_wish(self, drive: str) -> None:
        self._wishes.pop(drive, None)
        self._since_ns.pop(drive, None)
        self._given_up.pop(drive, None)
        self._failed.discard(drive)

    def _has_choice(self, drive: str) -> bool:
        try:
            self.choose(drive)
        except NoTape:
            return False
        return True

    def _give_up(self, drive: str, why: str) -> None:
        if self._given_up.get(drive) != why:
            self._given_up[drive] = why
            log.warning("a drive asks to be cleaned, and cannot be", drive=drive, at_once=self.must_be(drive), why=why)

    def _is_free(self, kind: ElementKind, number: int, drive: str) -> bool:
        """Does no other drive have it, nor is it on its way out?"""
        return kind is ElementKind.SLOT or (kind is ElementKind.DRIVE and drive_name(number) == drive)

    def _obstacle(self, drive: str, code: str) -> str:
        """Say why a cartridge cleans this drive no more; nothing when it does."""
        running = (task for task in self._tasks.values() if task.state is TaskState.RUNNING and task.drive != drive)
        if any(task.cartridge == code for task in running):
            return "it cleans another drive"
        if not has_cleanings_left(self._ledger.life(code)):
            return "it is used up"
        return "the drive has refused it" if (drive, code) in self._unfit else ""

    def _check_named(self, drive: str, code: str, here: Collection[str | None]) -> str:
        if code not in here:
            raise NoTape(f"cleaning cartridge {code} is not in the library: put it in")
        self._unfit.discard((drive, code))
        if obstacle := self._obstacle(drive, code):
            raise NoTape(f"cleaning cartridge {code}: {obstacle}")
        return code

    def _none_left(self, drive: str) -> str:
        here = [each.barcode for each in self._library.cleaning_cartridges() if each.barcode is not None]
        if not here:
            return "no cleaning cartridge is in the library: put one in"
        reasons = "; ".join(f"{code}: {self._obstacle(drive, code) or 'it is in another drive'}" for code in here)
        return f"no cleaning cartridge in the library cleans {drive} any more ({reasons}): put another one in"


def _restored(record: TaskRecord) -> CleaningTask:
    """Return a task as the ledger has it."""
    order = msgspec.json.decode(record.order, type=_Order)
    used = msgspec.json.decode(record.outcome, type=_Outcome).cartridge if record.outcome else order.cartridge
    return CleaningTask(
        number=record.number,
        drive=record.subject,
        cartridge=used,
        is_automatic=order.is_automatic,
        asked_at_ns=record.added_at_ns,
        state=record.state,
        error_kind=record.error_kind,
        error=record.error,
        began_at_ns=record.began_at_ns,
        finished_at_ns=record.finished_at_ns,
    )


def _obstacle_to(record: TaskRecord, drives: Collection[str]) -> str:
    """Say why an open task is not gone on with after a restart; nothing when it is."""
    if record.state is TaskState.RUNNING:
        return "the sidecar ended during it: the drive asks again if it is not clean"
    if record.subject not in drives:
        return f"there is no drive {record.subject} any more"
    if msgspec.json.decode(record.order, type=_Order).keeper == OWN_KEEPER:
        return "the sidecar ended; whoever asked for it asks anew"
    return ""
