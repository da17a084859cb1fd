"""What every ledger must do with schedules and their runs; see `ledger_contract`."""

from __future__ import annotations

import msgspec
import pytest

from catalog.errors import Conflict, NotFound
from catalog.ids import JobNumber
from catalog.ledger import Ledger
from catalog.queue_records import HookResult
from catalog.records import JobState
from catalog.schedule_records import (
    KEPT_RUNS,
    BackUp,
    Blackout,
    Missed,
    Monthly,
    Overlap,
    RunNumber,
    RunState,
    Schedule,
    ScheduleNumber,
    ScheduleRun,
    Weekly,
)
from tests.catalog.builders import NOW, job_of, run_of, schedule_of
from tests.catalog.contract_base import Again, kinds

replace = msgspec.structs.replace
S = 1_000_000_000


def kept(ledger: Ledger, **fields: object) -> Schedule:
    return ledger.put_schedule(None, schedule_of("nightly", **fields), NOW)


def planned(ledger: Ledger, schedule: Schedule, at_ns: int = NOW + 1, **fields: object) -> ScheduleRun:
    known = ledger.schedule(schedule.number).course.decided_ns
    run = run_of(schedule, planned_ns=at_ns, due_ns=at_ns, **fields)
    [added] = ledger.plan_schedule_runs(schedule.number, known, max(known, at_ns), [run], NOW)
    return added


def ended(ledger: Ledger, run: ScheduleRun, state: RunState, seconds: int = 5, error: str = "") -> ScheduleRun:
    running = replace(run, state=RunState.RUNNING, started_at_ns=NOW)
    ledger.change_schedule_run(run, running, NOW)
    done = replace(running, state=state, finished_at_ns=NOW + seconds * S, error=error)
    return ledger.change_schedule_run(running, done, NOW + seconds * S)


class SchedulesContract:
    def test_a_schedule_is_kept_as_it_was_given(self, ledger: Ledger, again: Again) -> None:
        wanted = schedule_of(
            "nightly",
            rule=Weekly(days=(0, 4), time="02:30"),
            zone="Europe/Berlin",
            before=("freeze",),
            after=("thaw", "tell"),
            missed=Missed.ALL,
            overlap=Overlap.CANCEL,
            blackouts=(Blackout(days=(5,), begins="22:00", ends="06:00"),),
            jitter_s=60,
            tags=("a",),
            notes='{"x": 1}',
        )
        for _ in range(2):
            stored = ledger.put_schedule(None, wanted, NOW)
            assert stored == replace(wanted, number=ScheduleNumber(1), created_at_ns=NOW, changed_at_ns=NOW)
        assert again().schedules() == [stored] == [again().schedule(stored.number)]
        assert kinds(ledger) == [("schedule.added", "nightly")]
        with pytest.raises(Conflict, match="recorded already"):
            ledger.put_schedule(None, replace(wanted, zone="UTC"), NOW)

    def test_a_change_keeps_what_has_become_of_it(self, ledger: Ledger) -> None:
        stored = kept(ledger)
        ended(ledger, planned(ledger, stored), RunState.COMPLETED)
        known = ledger.schedule(stored.number)
        wanted = replace(known, rule=Monthly(day=31), course=replace(known.course, runs=0, decided_ns=NOW + 9))
        for _ in range(2):
            changed = ledger.put_schedule(known, wanted, NOW + 7)
            assert changed.rule == Monthly(day=31)
            assert (changed.course.runs, changed.course.decided_ns, changed.changed_at_ns) == (1, NOW + 9, NOW + 7)
            assert (changed.number, changed.created_at_ns) == (stored.number, NOW)

    def test_who_saw_another_schedule_changes_nothing(self, ledger: Ledger) -> None:
        stored = kept(ledger)
        changed = ledger.put_schedule(stored, replace(stored, enabled=False), NOW)
        with pytest.raises(Conflict, match="changed by somebody else"):
            ledger.put_schedule(stored, replace(stored, zone="UTC", jitter_s=9), NOW)
        assert ledger.schedules() == [changed]
        with pytest.raises(NotFound):
            ledger.put_schedule(replace(stored, number=ScheduleNumber(7)), stored, NOW)

    def test_a_deleted_schedule_takes_its_runs_along(self, ledger: Ledger, again: Again) -> None:
        stored = kept(ledger)
        ended(ledger, planned(ledger, stored), RunState.FAILED)
        planned(ledger, stored, NOW + 2)
        other = ledger.put_schedule(None, schedule_of("other"), NOW)
        theirs = planned(ledger, other)
        for _ in range(2):
            ledger.delete_schedule(stored.number, NOW)
            assert again().schedules() == [ledger.schedule(other.number)]
            assert (again().schedule_runs(stored.number), again().open_schedule_runs()) == ([], [theirs])
        assert kept(ledger).number == 3

    @pytest.mark.parametrize("state", [RunState.PREPARING, RunState.RUNNING, RunState.FINISHING])
    def test_a_schedule_stays_while_it_runs(self, ledger: Ledger, state: RunState) -> None:
        stored = kept(ledger)
        run = planned(ledger, stored)
        ledger.change_schedule_run(run, replace(run, state=state), NOW)
        with pytest.raises(Conflict, match=state.value):
            ledger.delete_schedule(stored.number, NOW)

    def test_a_job_stays_while_a_schedule_runs_it(self, ledger: Ledger) -> None:
        job = ledger.add_job(job_of("job"))
        stored = kept(ledger, action=BackUp(job=job.number))
        with pytest.raises(Conflict, match="run by schedule 1"):
            ledger.delete_job(job.number, NOW)
        ledger.delete_schedule(stored.number, NOW)
        ledger.delete_job(job.number, NOW)

    @pytest.mark.parametrize("number", [0, -1, 1, 2**64])
    def test_no_such_schedule(self, ledger: Ledger, number: int) -> None:
        nowhere = ScheduleNumber(number)
        for ask in (
            lambda: ledger.schedule(nowhere),
            lambda: ledger.delete_schedule(nowhere, NOW),
            lambda: ledger.plan_schedule_runs(nowhere, 0, 1, [], NOW),
        ):
            with pytest.raises(NotFound):
                ask()
        assert ledger.schedule_runs(nowhere) == []

    # -- runs --------------------------------------------------------------------------------------------------------

    def test_no_instant_is_planned_twice(self, ledger: Ledger, again: Again) -> None:
        stored = kept(ledger)
        runs = [run_of(stored, planned_ns=NOW + n, due_ns=NOW + n) for n in (1, 2)]
        first = ledger.plan_schedule_runs(stored.number, NOW, NOW + 2, runs, NOW)
        assert [(run.number, run.planned_ns) for run in first] == [(1, NOW + 1), (2, NOW + 2)]
        assert ledger.plan_schedule_runs(stored.number, NOW, NOW + 2, runs, NOW) == []
        by_hand = replace(runs[0], by_hand=True)
        [third] = ledger.plan_schedule_runs(stored.number, NOW + 2, NOW + 2, [by_hand], NOW)
        assert again().schedule_runs(stored.number) == [third, *reversed(first)]
        assert again().schedule_runs(stored.number, limit=1, offset=1) == [first[1]]
        assert again().open_schedule_runs() == [*first, third]
        assert again().schedule(stored.number).course.decided_ns == NOW + 2

    def test_who_decides_from_another_instant_is_refused(self, ledger: Ledger) -> None:
        stored = kept(ledger)
        planned(ledger, stored, NOW + 5)
        with pytest.raises(Conflict, match="somebody else"):
            ledger.plan_schedule_runs(stored.number, NOW, NOW + 9, [run_of(stored)], NOW)
        run = run_of(stored, state=RunState.RUNNING, planned_ns=NOW + 8)
        with pytest.raises(ValueError, match="is no plan"):
            ledger.plan_schedule_runs(stored.number, NOW + 5, NOW + 9, [run], NOW)
        assert len(ledger.schedule_runs(stored.number)) == 1

    def test_runs_are_counted_when_they_end(self, ledger: Ledger) -> None:
        stored = kept(ledger)
        outcomes = [(RunState.COMPLETED, 10), (RunState.FAILED, 3), (RunState.COMPLETED, 20), (RunState.CANCELLED, 1)]
        for place, (state, seconds) in enumerate(outcomes, 1):
            done = ended(ledger, planned(ledger, stored, NOW + place), state, seconds, f"{place} \udcff")
            for _ in range(2):
                ledger.change_schedule_run(done, done, NOW)
            if state is RunState.FAILED:
                assert ledger.schedule(stored.number).course.last_error == "2 \\udcff"
        planned(ledger, stored, NOW + 9, state=RunState.SKIPPED, error="missed")
        waiting = planned(ledger, stored, NOW + 10)
        ledger.change_schedule_run(waiting, replace(waiting, state=RunState.SKIPPED, error="late"), NOW)
        course = ledger.schedule(stored.number).course
        assert (course.runs, course.successes, course.failures) == (4, 2, 1)
        assert (course.cancelled, course.skipped) == (1, 2)
        assert course.duration_ns == 30 * S
        assert (course.last_run_ns, course.last_success_ns, course.last_failure_ns) == (NOW, NOW + 20 * S, NOW + 3 * S)
        assert course.last_error == ""

    def test_a_run_that_has_ended_stays_so(self, ledger: Ledger) -> None:
        stored = kept(ledger)
        run = planned(ledger, stored)
        done = ended(ledger, run, RunState.FAILED, error="no tape")
        with pytest.raises(Conflict, match="is failed by now"):
            ledger.change_schedule_run(run, replace(run, state=RunState.RUNNING), NOW)
        missing = replace(run, number=RunNumber(99))
        with pytest.raises(NotFound):
            ledger.change_schedule_run(missing, missing, NOW)
        assert ledger.schedule_runs(stored.number) == [done]

    def test_what_hooks_print_may_be_anything(self, ledger: Ledger, again: Again) -> None:
        stored = kept(ledger)
        run = planned(ledger, stored)
        hook = HookResult(name="freeze", error="exit status 1 \udcff", output="x\udc80", duration_ns=5)
        done = ledger.change_schedule_run(run, replace(run, state=RunState.PREPARING, hooks=(hook,)), NOW)
        assert done.hooks == (replace(hook, error="exit status 1 \\udcff", output="x\\udc80"),)
        assert again().schedule_runs(stored.number) == [done]

    def test_the_newest_runs_are_kept(self, ledger: Ledger) -> None:
        stored = kept(ledger)
        waiting = planned(ledger, stored, NOW + 1)
        many = [
            run_of(stored, planned_ns=NOW + n, due_ns=NOW + n, state=RunState.SKIPPED) for n in range(2, KEPT_RUNS + 12)
        ]
        ledger.plan_schedule_runs(stored.number, NOW + 1, NOW + KEPT_RUNS + 12, many, NOW)
        runs = ledger.schedule_runs(stored.number)
        assert len(runs) == KEPT_RUNS + 1
        assert runs[-1] == waiting
        assert runs[0].planned_ns == NOW + KEPT_RUNS + 11
        assert ledger.schedule(stored.number).course.skipped == KEPT_RUNS + 10

    # -- jobs --------------------------------------------------------------------------------------------------------

    def test_a_run_and_its_job_begin_together(self, ledger: Ledger, again: Again) -> None:
        job = ledger.add_job(job_of("job"))
        ledger.queue_job(job.number, NOW)
        ledger.finish_job(job.number, JobState.FAILED, "no tape", NOW)
        stored = kept(ledger, action=BackUp(job=job.number))
        run = planned(ledger, stored)
        for _ in range(2):
            running, queued = ledger.queue_scheduled_job(run, job.number, "incremental", NOW + 3)
            assert (running.state, running.job, running.job_runs) == (RunState.RUNNING, job.number, 2)
            assert running.started_at_ns == NOW + 3
            assert (queued.state, queued.runs, queued.run_type) == (JobState.QUEUED, 2, "incremental")
        assert again().open_schedule_runs() == [running]
        assert again().job(job.number) == queued

    def test_a_job_that_runs_begins_no_run(self, ledger: Ledger) -> None:
        job = ledger.add_job(job_of("job"))
        ledger.queue_job(job.number, NOW)
        stored = kept(ledger, action=BackUp(job=job.number))
        run = planned(ledger, stored)
        with pytest.raises(Conflict, match="is queued already"):
            ledger.queue_scheduled_job(run, job.number, "", NOW)
        with pytest.raises(NotFound):
            ledger.queue_scheduled_job(run, JobNumber(99), "", NOW)
        assert ledger.open_schedule_runs() == [run]
