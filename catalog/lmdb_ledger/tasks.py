"""The operations on tasks.

See `catalog.lmdb_ledger` for threads and durability.
"""

from __future__ import annotations

from catalog.ledger_store import tasks
from catalog.ledger_store.environment import operation
from catalog.lmdb_ledger.base import LmdbBase
from catalog.task_records import TaskFamily, TaskRecord

_ADD_TASK = operation("add_task")
_CHANGE_TASK = operation("change_task")


class TaskOperations(LmdbBase):
    """See `catalog.ledger.Ledger` for what they do and raise."""

    def tasks(self, family: TaskFamily) -> list[TaskRecord]:
        """Return the tasks of a family that are kept, oldest first."""
        return self._read(tasks.of_family, family)

    def add_task(self, task: TaskRecord) -> TaskRecord:
        """Record a task under the next number of its family. Idempotent by `task_id`. Raises Conflict, ValueError."""
        return self._write(_ADD_TASK, tasks.add, task)

    def change_task(self, known: TaskRecord, wanted: TaskRecord, now_ns: int) -> TaskRecord:
        """A task goes on, or ends. Idempotent. Raises NotFound, Conflict."""
        return self._write(_CHANGE_TASK, tasks.change, known, wanted, now_ns)
