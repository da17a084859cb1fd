"""Checks and copies of the catalog that somebody asks for over HTTP, one after the other. One trio run.

Each is in the ledger before it is answered, and works in a process of its own. One that is open when the sidecar ends
is interrupted: nothing is half done by that, and whoever wants it asks again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import structlog
import trio

from catalog.errors import CatalogError
from catalog.ledger import Ledger
from catalog.schedule_records import CopyCatalog
from catalog.task_records import KEPT_TASKS, TaskFamily, TaskRecord, TaskState
from sidecar.notices.events import Events
from sidecar.schedules.programs import last_line
from sidecar.tapes.task_log import TaskLog
from sidecar.upkeep.checking import check_catalog
from sidecar.upkeep.copying import copy_catalog
from tapefs.check.process import Found, Told
from tapefs.errors import NoSuchThing, NotNow
from tapefs.home import Home

#: So many findings are kept; all are counted.
MOST_FOUND = 1000
_INTERRUPTED = "the sidecar ended: ask again"

log = structlog.get_logger(__name__)


class CheckOrder(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="check"):
    """A check that is wanted."""

    #: Names; empty: all.
    checks: list[str] = []
    #: Put right what can be made again from what is there.
    repair: bool = False


class CopyOrder(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="copy"):
    """A copy that is wanted."""

    #: Empty: to tape.
    folder: str = ""
    #: So many copies stay in the folder; to tape: for how many days. 0: all, for ever.
    keep: int = 0


Order = CheckOrder | CopyOrder


class Result(msgspec.Struct, kw_only=True):
    """What has come of it so far."""

    #: Of a check: the first thousand, how many there are, and how many of them were put right.
    found: list[Found] = []
    found_total: int = 0
    repaired: int = 0
    #: Of a copy: where it is; empty until it is whole.
    where: str = ""


@dataclass(eq=False, slots=True)
class UpkeepTask:
    """One of them."""

    number: int
    order: Order
    added_at_ns: int
    state: TaskState = TaskState.WAITING
    #: What it is at, for people.
    progress: str = ""
    #: Why it has failed, or was interrupted.
    error: str = ""
    began_at_ns: int = 0
    finished_at_ns: int = 0
    result: Result = field(default_factory=Result)
    given_up: trio.Event = field(default_factory=trio.Event)

    @property
    def is_open(self) -> bool:
        """Does something still become of it?"""
        return self.state in (TaskState.WAITING, TaskState.RUNNING)


class Upkeep:
    """All of them. `run` must run meanwhile."""

    def __init__(self, home: Home, ledger: Ledger, events: Events, now_ns: Callable[[], int]) -> None:
        self._home = home
        self._events = events
        self._now_ns = now_ns
        self._log = TaskLog(ledger, TaskFamily.UPKEEP, now_ns)
        self._tasks: OrderedDict[int, UpkeepTask] = OrderedDict()
        self._changed = trio.Event()

    def resume(self) -> None:
        """Take what the last sidecar has left. Blocking; before anything else. Raises CatalogError."""
        for record in self._log.kept():
            task = self._tasks[record.number] = _restored(record)
            if task.is_open:
                task.error = _INTERRUPTED
                self._end(task, TaskState.INTERRUPTED)

    # -- for HTTP ----------------------------------------------------------------------------------------------------

    def add(self, order: Order) -> UpkeepTask:
        """Have something done when its turn comes. Raises CatalogError."""
        now_ns = self._now_ns()
        kind = str(type(order).__struct_config__.tag)
        subject = (order.folder or "tape") if isinstance(order, CopyOrder) else " ".join(order.checks) or "catalog"
        number = self._log.add(kind, subject, msgspec.json.encode(order), now_ns)
        task = self._tasks[number] = UpkeepTask(number, order, now_ns)
        ended = [each.number for each in self._tasks.values() if not each.is_open]
        for old in ended[: max(0, len(self._tasks) - KEPT_TASKS)]:
            del self._tasks[old]
        self._changed.set()
        return task

    def task(self, number: int) -> UpkeepTask:
        """Return one. Raises NoSuchThing."""
        try:
            return self._tasks[number]
        except KeyError:
            raise NoSuchThing(f"there is no check or copy of the catalog {number}") from None

    def tasks(self) -> list[UpkeepTask]:
        """Return those that are remembered, oldest first."""
        return list(self._tasks.values())

    def cancel(self, number: int) -> UpkeepTask:
        """Give one up; what a check has put right stays. Raises NoSuchThing, NotNow when it has ended."""
        task = self.task(number)
        if not task.is_open:
            raise NotNow(f"{number} is {task.state.value} already")
        task.given_up.set()
        if task.state is TaskState.WAITING:
            self._end(task, TaskState.CANCELLED)
        return task

    def is_idle(self) -> bool:
        """Is nothing wanted?"""
        return not any(task.is_open for task in self._tasks.values())

    # -- at work -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do what is wanted until cancelled."""
        while True:
            task = next((each for each in self._tasks.values() if each.state is TaskState.WAITING), None)
            if task is None:
                self._changed = trio.Event()
                await self._changed.wait()
            else:
                await self._do(task)

    async def _do(self, task: UpkeepTask) -> None:
        try:
            self._log.begun(task.number)
        except CatalogError as error:
            task.error = str(error)
            self._end(task, TaskState.FAILED)
            return
        task.state, task.began_at_ns = TaskState.RUNNING, self._now_ns()
        order = task.order
        try:
            task.error = await (self._check(task, order) if isinstance(order, CheckOrder) else self._copy(task, order))
        except CatalogError as error:
            task.error = str(error)
        if task.error and task.given_up.is_set():
            task.error = ""
            self._end(task, TaskState.CANCELLED)
        else:
            self._end(task, TaskState.FAILED if task.error else TaskState.DONE)

    async def _check(self, task: UpkeepTask, order: CheckOrder) -> str:
        """Return why it has not come to its end; empty: it has."""
        result = task.result

        def listen(told: Told) -> None:
            task.progress = told.looks_at or task.progress
            if told.found is not None:
                result.found_total += 1
                result.repaired += told.found.repaired
                if len(result.found) < MOST_FOUND:
                    result.found.append(told.found)

        return await check_catalog(self._home, order.checks, task.given_up, listen, repair=order.repair)

    async def _copy(self, task: UpkeepTask, order: CopyOrder) -> str:
        """Return why there is none; empty: there is one."""

        def listen(piece: bytes) -> None:
            lines = piece.decode("utf-8", "backslashreplace").split("\n")
            task.progress = next((line.strip() for line in reversed(lines) if line.strip()), task.progress)

        wanted = CopyCatalog(folder=order.folder, keep=order.keep)
        where, ended = await copy_catalog(self._home, wanted, self._now_ns(), task.given_up, listen)
        if ended.error:
            return last_line(ended) or ended.error
        task.result.where = where
        await self._events.say("catalog.copied", where, f"the catalog was copied to {where}", {"to": where})
        return ""

    def _end(self, task: UpkeepTask, state: TaskState) -> None:
        task.state, task.finished_at_ns, task.progress = state, self._now_ns(), ""
        outcome = msgspec.json.encode(task.result)
        self._log.ended(task.number, state, task.finished_at_ns, error=task.error, outcome=outcome)
        log.info("upkeep ended", number=task.number, state=state.value, error=task.error)


def _restored(record: TaskRecord) -> UpkeepTask:
    """Return a task as the ledger has it."""
    return UpkeepTask(
        number=record.number,
        order=msgspec.json.decode(record.order, type=Order),
        added_at_ns=record.added_at_ns,
        state=record.state,
        error=record.error,
        began_at_ns=record.began_at_ns,
        finished_at_ns=record.finished_at_ns,
        result=msgspec.json.decode(record.outcome, type=Result) if record.outcome else Result(),
    )
