"""The operations on tasks of the ledger on LMDB: what `catalog.lmdb_ledger` says of threads holds here, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from catalog.ledger_store import tasks
from catalog.ledger_store.environment import Operation, operation
from catalog.ledger_store.transaction import Reader, Writer
from catalog.task_records import TaskFamily, TaskRecord

_ADD_TASK = operation("add_task")
_CHANGE_TASK = operation("change_task")

P = ParamSpec("P")
R = TypeVar("R")


class TaskOperations:
    """See `catalog.ledger.Ledger` for what they do and raise."""

    def _read(self, function: Callable[Concatenate[Reader, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        raise NotImplementedError

    def _write(
        self, what: Operation, function: Callable[Concatenate[Writer, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        raise NotImplementedError

    def tasks(self, family: TaskFamily) -> list[TaskRecord]:
        """Return the tasks of a family that are kept, oldest first."""
        return self._read(tasks.of_family, family)

    def add_task(self, task: TaskRecord) -> TaskRecord:
        """Record a task under the next number of its family. Idempotent by `task_id`. Raises Conflict, ValueError."""
        return self._write(_ADD_TASK, tasks.add, task)

    def change_task(self, known: TaskRecord, wanted: TaskRecord, now_ns: int) -> TaskRecord:
        """A task goes on, or ends. Idempotent. Raises NotFound, Conflict."""
        return self._write(_CHANGE_TASK, tasks.change, known, wanted, now_ns)
