"""What is kept of tasks in the ledger, so that a restart forgets none and begins none twice.

One trio run. Writes are done at once, not in a thread: no await lies between a task's step and its record. Tasks are
few, and a write takes a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from catalog.errors import CatalogError
from catalog.ids import new_uuid
from catalog.ledger import Ledger
from catalog.task_records import TaskFamily, TaskRecord, TaskState

#: Who asks for a task that he begins anew himself after a restart: a schedule, or the check behind a job.
OWN_KEEPER = "own"
#: What `error_kind` of a task says that is to stop.
_STOPPING = "cancelled"

log = structlog.get_logger(__name__)


class TaskLog:
    """One family's."""

    def __init__(self, ledger: Ledger, family: TaskFamily, now_ns: Callable[[], int]) -> None:
        self._ledger = ledger
        self._family = family
        self._now_ns = now_ns
        self._known: dict[int, TaskRecord] = {}

    def kept(self) -> list[TaskRecord]:
        """Return what the ledger has, oldest first. Blocking."""
        records = self._ledger.tasks(self._family)
        self._known = {record.number: record for record in records if record.is_open}
        return records

    def add(self, kind: str, subject: str, order: bytes, at_ns: int) -> int:
        """Record a new task; return its number. Raises CatalogError: then there is none."""
        wanted = TaskRecord(
            task_id=new_uuid(), family=self._family, kind=kind, subject=subject, order=order, added_at_ns=at_ns
        )
        record = self._ledger.add_task(wanted)
        self._known[record.number] = record
        return record.number

    def begun(self, number: int) -> None:
        """A drive is about to do it. Raises CatalogError: then it must not."""
        known = self._known[number]
        self._change(
            msgspec.structs.replace(
                known, state=TaskState.RUNNING, begun=known.begun + 1, began_at_ns=max(1, self._now_ns())
            )
        )

    def again(self, number: int) -> None:
        """It is to be begun once more. Raises CatalogError."""
        self._change(msgspec.structs.replace(self._known[number], state=TaskState.WAITING))

    def ended(
        self,
        number: int,
        state: TaskState,
        at_ns: int,
        *,
        subject: str = "",
        error_kind: str = "",
        error: str = "",
        outcome: bytes = b"",
    ) -> None:
        """Record how it ended. A ledger that cannot be written leaves it open: a restart says that it was interrupted.

        Harmless for one that has ended.
        """
        known = self._known.get(number)
        if known is None:
            return
        wanted = msgspec.structs.replace(
            known,
            state=state,
            subject=subject or known.subject,
            error_kind=error_kind,
            error=error,
            outcome=outcome,
            finished_at_ns=at_ns,
        )
        try:
            self._change(wanted)
        except CatalogError as failure:
            log.error(
                "the end of a task is not recorded",
                family=self._family.value,
                number=number,
                state=state.value,
                error=str(failure),
            )
        del self._known[number]

    def stopping(self, number: int) -> None:
        """It is to stop, and will not be gone on with. Raises CatalogError."""
        self._change(msgspec.structs.replace(self._known[number], error_kind=_STOPPING))

    def is_stopping(self, number: int) -> bool:
        """Was it to stop when the sidecar ended?"""
        return self._known[number].error_kind == _STOPPING

    def _change(self, wanted: TaskRecord) -> None:
        number = wanted.number
        self._known[number] = self._ledger.change_task(self._known[number], wanted, self._now_ns())
