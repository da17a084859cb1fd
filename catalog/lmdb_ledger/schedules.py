"""The operations on schedules and their runs.

See `catalog.lmdb_ledger` for threads and durability.
"""

from __future__ import annotations

from collections.abc import Sequence

from catalog.ids import JobNumber
from catalog.ledger_store import schedules
from catalog.ledger_store.environment import operation
from catalog.lmdb_ledger.base import LmdbBase
from catalog.records import Job
from catalog.schedule_records import Schedule, ScheduleNumber, ScheduleRun

_PUT_SCHEDULE = operation("put_schedule")
_DELETE_SCHEDULE = operation("delete_schedule")
_PLAN_SCHEDULE_RUNS = operation("plan_schedule_runs")
_CHANGE_SCHEDULE_RUN = operation("change_schedule_run")
_QUEUE_SCHEDULED_JOB = operation("queue_scheduled_job")


class ScheduleOperations(LmdbBase):
    """See `catalog.ledger.Ledger` for what they do and raise."""

    def schedules(self) -> list[Schedule]:
        """Return all schedules, oldest first."""
        return self._read(schedules.all_by_number)

    def sound_schedules(self) -> tuple[list[Schedule], list[str]]:
        """Return the schedules that can be read, oldest first, and what is wrong with the others."""
        return self._read(schedules.sound)

    def schedule(self, number: ScheduleNumber) -> Schedule:
        """Return one schedule. Raises NotFound."""
        return self._read(schedules.get, number)

    def put_schedule(self, known: Schedule | None, wanted: Schedule, now_ns: int) -> Schedule:
        """Record a schedule, or change the one that is as `known`. Raises NotFound, Conflict."""
        return self._write(_PUT_SCHEDULE, schedules.put, known, wanted, now_ns)

    def delete_schedule(self, number: ScheduleNumber, now_ns: int) -> None:
        """Forget a schedule and its runs. Idempotent. Raises NotFound, Conflict."""
        self._write(_DELETE_SCHEDULE, schedules.delete, number, now_ns)

    def schedule_runs(self, number: ScheduleNumber, limit: int = 1000, offset: int = 0) -> list[ScheduleRun]:
        """Return the runs of a schedule that are kept, the newest first."""
        return self._read(schedules.runs, number, limit, offset)

    def open_schedule_runs(self) -> list[ScheduleRun]:
        """Return the runs of all schedules that have not ended, oldest first."""
        return self._read(schedules.open_runs)

    def plan_schedule_runs(
        self, number: ScheduleNumber, known_ns: int, decided_ns: int, planned: Sequence[ScheduleRun], now_ns: int
    ) -> list[ScheduleRun]:
        """Record runs and that all until `decided_ns` is decided. Raises NotFound, Conflict, ValueError."""
        return self._write(_PLAN_SCHEDULE_RUNS, schedules.plan, number, known_ns, decided_ns, planned, now_ns)

    def change_schedule_run(self, known: ScheduleRun, wanted: ScheduleRun, now_ns: int) -> ScheduleRun:
        """A run goes on, or ends. Idempotent. Raises NotFound, Conflict."""
        return self._write(_CHANGE_SCHEDULE_RUN, schedules.change, known, wanted, now_ns)

    def queue_scheduled_job(
        self, known: ScheduleRun, number: JobNumber, run_type: str, now_ns: int
    ) -> tuple[ScheduleRun, Job]:
        """Queue a job for a run, both or none. Idempotent. Raises NotFound, Conflict."""
        return self._write(_QUEUE_SCHEDULED_JOB, schedules.queue_job, known, number, run_type, now_ns)
