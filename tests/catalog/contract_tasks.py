"""What every ledger must do about tasks; see `ledger_contract`."""

from __future__ import annotations

import msgspec
import pytest

from catalog.errors import Conflict, NotFound
from catalog.ledger import Ledger
from catalog.task_records import KEPT_TASKS, TaskFamily, TaskRecord, TaskState
from tests.catalog.builders import NOW, uuid_of
from tests.catalog.contract_base import Again, kinds, newest

replace = msgspec.structs.replace
TAPE, CLEANING = TaskFamily.TAPE, TaskFamily.CLEANING


def task_of(name: str, family: TaskFamily = TAPE, **fields: object) -> TaskRecord:
    task = TaskRecord(
        task_id=uuid_of(name), family=family, kind="erase", subject="T1", order=b'{"tape":"T1"}', added_at_ns=NOW
    )
    return replace(task, **fields)


def begun(ledger: Ledger, task: TaskRecord) -> TaskRecord:
    return ledger.change_task(task, replace(task, state=TaskState.RUNNING, begun=1, began_at_ns=NOW + 1), NOW + 1)


class TasksContract:
    def test_a_task_is_kept_from_its_beginning_to_its_end(self, ledger: Ledger, again: Again) -> None:
        before = newest(ledger)
        task = ledger.add_task(task_of("erase"))
        assert task == task_of("erase", number=1)
        running = begun(ledger, task)
        assert again().tasks(TAPE) == [running]
        done = replace(running, state=TaskState.DONE, outcome=b"{}", finished_at_ns=NOW + 2)
        for _ in range(2):
            assert ledger.change_task(running, done, NOW + 2) == done
        assert again().tasks(TAPE) == [done]
        assert kinds(ledger, before) == [
            ("tape.added", "erase T1"),
            ("tape.running", "erase T1"),
            ("tape.done", "erase T1"),
        ]

    def test_the_same_task_again_is_the_same(self, ledger: Ledger) -> None:
        task = ledger.add_task(task_of("erase"))
        assert ledger.add_task(task_of("erase")) == task
        running = begun(ledger, task)
        assert ledger.add_task(task_of("erase")) == running
        with pytest.raises(Conflict):
            ledger.add_task(task_of("erase", order=b'{"tape":"T2"}'))
        with pytest.raises(ValueError, match="not a new one"):
            ledger.add_task(task_of("other", state=TaskState.RUNNING))

    def test_each_family_has_its_own_numbers(self, ledger: Ledger) -> None:
        numbers = [ledger.add_task(task_of(str(number))).number for number in range(3)]
        assert numbers == [1, 2, 3]
        cleaning = ledger.add_task(task_of("cleaning", CLEANING))
        assert (cleaning.number, ledger.tasks(CLEANING)) == (1, [cleaning])
        assert ledger.tasks(TaskFamily.VERIFICATION) == []

    def test_what_has_ended_or_is_another_stays(self, ledger: Ledger) -> None:
        task = ledger.add_task(task_of("erase"))
        running = begun(ledger, task)
        ended = replace(running, state=TaskState.FAILED, error="a\udcff", finished_at_ns=NOW + 2)
        with pytest.raises(Conflict):
            ledger.change_task(task, ended, NOW + 2)
        with pytest.raises(Conflict):
            ledger.change_task(running, replace(ended, order=b"{}"), NOW + 2)
        stored = ledger.change_task(running, ended, NOW + 2)
        assert stored.error == "a\\udcff"
        with pytest.raises(Conflict):
            ledger.change_task(stored, replace(stored, state=TaskState.WAITING), NOW + 3)
        with pytest.raises(NotFound):
            ledger.change_task(replace(task, number=7), ended, NOW + 2)
        assert ledger.tasks(TAPE) == [stored]

    def test_old_ones_are_forgotten_open_ones_are_not(self, ledger: Ledger) -> None:
        """No number comes again for that."""
        open_one = ledger.add_task(task_of("open", CLEANING))
        ended = []
        for number in range(KEPT_TASKS + 2):
            task = ledger.add_task(task_of(str(number), CLEANING))
            ended.append(ledger.change_task(task, replace(task, state=TaskState.CANCELLED), NOW + 1))
        assert ledger.tasks(CLEANING) == [open_one, *ended[2:]]
        assert ledger.add_task(task_of("next", CLEANING)).number == KEPT_TASKS + 4
