"""Operations on tasks: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

import msgspec

from catalog.errors import Conflict, NotFound
from catalog.ledger_store import unreadable
from catalog.ledger_store.tables import TASK_COUNTERS, TASKS, parts, task_key
from catalog.ledger_store.transaction import Reader, Writer, plain_text
from catalog.task_records import KEPT_TASKS, TaskFamily, TaskRecord, TaskState


def of_family(tx: Reader, family: TaskFamily) -> list[TaskRecord]:
    """Return the tasks that are kept and can be read, oldest first."""
    return [task for _, task in unreadable.readable(tx, TASKS, parts(family.value))]


def add(tx: Writer, wanted: TaskRecord) -> TaskRecord:
    """Record a task under the next number of its family; the same again is harmless. Raises Conflict, ValueError."""
    if wanted.state is not TaskState.WAITING:
        raise ValueError(f"a task that is {wanted.state.value} is not a new one")
    for known in of_family(tx, wanted.family):
        if known.task_id == wanted.task_id:
            if (known.kind, known.order) != (wanted.kind, wanted.order):
                raise Conflict(f"task {known.number} has that id, and asks for something else")
            return known
    number = tx.next_number(TASK_COUNTERS[wanted.family])
    added = _plain(msgspec.structs.replace(wanted, number=number))
    tx.insert(TASKS, task_key(added.family, number), added)
    tx.tell(f"{added.family.value}.added", number, f"{added.kind} {added.subject}", added.added_at_ns)
    return added


def change(tx: Writer, known: TaskRecord, wanted: TaskRecord, now_ns: int) -> TaskRecord:
    """A task that has not ended becomes as `wanted`; the same again is harmless. Raises NotFound, Conflict."""
    key, plain = task_key(known.family, known.number), _plain(wanted)
    there = tx.find(TASKS, key)
    if there is None:
        raise NotFound(f"there is no {known.family.value} task {known.number}")
    if there == plain:
        return there
    if there != known or not there.is_open or _identity(there) != _identity(plain):
        raise Conflict(f"{known.family.value} task {known.number} is {there.state.value} by now")
    tx.put(TASKS, key, plain)
    if there.state is not plain.state:
        tx.tell(f"{plain.family.value}.{plain.state.value}", plain.number, f"{plain.kind} {plain.subject}", now_ns)
    if not plain.is_open:
        _forget_oldest(tx, plain.family)
    return plain


def _identity(task: TaskRecord) -> tuple[object, ...]:
    return task.family, task.number, task.task_id, task.kind, task.order


def _plain(task: TaskRecord) -> TaskRecord:
    return msgspec.structs.replace(task, subject=plain_text(task.subject), error=plain_text(task.error))


def _forget_oldest(tx: Writer, family: TaskFamily) -> None:
    if tx.count(TASKS) <= KEPT_TASKS:  # Of all families together: the usual case, and cheap.
        return
    ended = [key for key, task in unreadable.readable(tx, TASKS, parts(family.value)) if not task.is_open]
    for key in ended[:-KEPT_TASKS]:
        tx.delete(TASKS, key)
