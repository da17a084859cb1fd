"""The seam of the ledger: named operations, each one transaction, idempotent by uuid.

LMDB implements it (`catalog.lmdb_ledger`); PostgreSQL can, too. No cursors and no transactions are visible outside.
An implementation may be used by several processes at once, and by several threads of each.

Every operation may raise StorageFailed and Damaged; others are named below. `now_ns` is passed in, never taken here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from catalog.access_records import Credential, User
from catalog.ids import JobNumber, PinId
from catalog.ledger_jobs import JobLedger
from catalog.ledger_sets import SetLedger
from catalog.ledger_tapes import TapeLedger
from catalog.notice_records import ChannelRecord, Condition, Delivery, NewNotice, Notice
from catalog.records import (
    Event,
    Installation,
    Job,
    StagePin,
)
from catalog.recovery_records import Recovery
from catalog.schedule_records import Schedule, ScheduleNumber, ScheduleRun
from catalog.stage_records import StageRequest
from catalog.task_records import TaskFamily, TaskRecord


class Ledger(TapeLedger, SetLedger, JobLedger, Protocol):
    """Tapes, sets and jobs by its parts; here schedules, pins, restores, access, events, notices and tasks."""

    # -- installation ------------------------------------------------------------------------------------------------

    def installation(self) -> Installation:
        """Return this ledger's identity."""
        ...

    def close(self) -> None:
        """Let go of the storage; harmless twice."""
        ...

    # -- schedules ---------------------------------------------------------------------------------------------------

    def schedules(self) -> list[Schedule]:
        """Return all schedules, oldest first."""
        ...

    def sound_schedules(self) -> tuple[list[Schedule], list[str]]:
        """Return the schedules that can be read, oldest first, and what is wrong with the others."""
        ...

    def schedule(self, number: ScheduleNumber) -> Schedule:
        """Return one schedule. Raises NotFound."""
        ...

    def put_schedule(self, known: Schedule | None, wanted: Schedule, now_ns: int) -> Schedule:
        """Record a schedule under the next number, or change one; return it. The same again is harmless.

        `known` is the schedule as the caller saw it, None for a new one: Conflict when it asks for something else by
        now. Its course stays, but for `decided_ns`, which is that of `wanted`. Raises NotFound.
        """
        ...

    def delete_schedule(self, number: ScheduleNumber, now_ns: int) -> None:
        """Forget a schedule and its runs; its number is never given out again. Idempotent.

        Raises NotFound for a number that no schedule had, Conflict while a run of it is under way.
        """
        ...

    def schedule_runs(self, number: ScheduleNumber, limit: int = 1000, offset: int = 0) -> list[ScheduleRun]:
        """Return the runs of a schedule that are kept, the newest first."""
        ...

    def open_schedule_runs(self) -> list[ScheduleRun]:
        """Return the runs of all schedules that have not ended, oldest first."""
        ...

    def plan_schedule_runs(
        self, number: ScheduleNumber, known_ns: int, decided_ns: int, planned: Sequence[ScheduleRun], now_ns: int
    ) -> list[ScheduleRun]:
        """Record runs, WAITING or SKIPPED, under the next numbers, and that all until `decided_ns` is decided.

        Returns those that were recorded: no instant gets a second run, but by hand. Raises NotFound; Conflict when the
        schedule had not been decided until `known_ns`.
        """
        ...

    def change_schedule_run(self, known: ScheduleRun, wanted: ScheduleRun, now_ns: int) -> ScheduleRun:
        """A run goes on, or ends, and is counted then. Idempotent. Raises NotFound; Conflict when it is another now."""
        ...

    def queue_scheduled_job(
        self, known: ScheduleRun, number: JobNumber, run_type: str, now_ns: int
    ) -> tuple[ScheduleRun, Job]:
        """Queue a job for a run of a schedule, which becomes RUNNING; both or none. Idempotent.

        Raises NotFound; Conflict while the job is queued or runs.
        """
        ...

    # -- pins --------------------------------------------------------------------------------------------------------

    def put_pin(self, pin: StagePin) -> StagePin:
        """Record a pin and return it. One known by that id holds these frames, too, until the later of both ends, and
        takes over the reason. Idempotent by `pin_id`. Raises Conflict when it is another owner's.
        """
        ...

    def drop_pin(self, pin_id: PinId, now_ns: int) -> None:
        """Forget a pin. Idempotent."""
        ...

    def pins(self) -> list[StagePin]:
        """Return all pins, those that have run out included, oldest first."""
        ...

    # -- requests to stage -------------------------------------------------------------------------------------------

    def put_stage_request(self, request: StageRequest) -> None:
        """Record a request, or how far it is now. Idempotent."""
        ...

    def drop_stage_request(self, request_id: str) -> None:
        """Forget a request. Idempotent."""
        ...

    def stage_requests(self) -> list[StageRequest]:
        """Return all requests, oldest first."""
        ...

    # -- restores ----------------------------------------------------------------------------------------------------

    def put_recovery(self, recovery: Recovery) -> None:
        """Record a restore, or how far it is now. Idempotent."""
        ...

    def drop_recovery(self, recovery_id: str) -> None:
        """Forget a restore. Idempotent."""
        ...

    def recovery(self, recovery_id: str) -> Recovery:
        """Return a restore. Raises NotFound."""
        ...

    def recoveries(self) -> list[Recovery]:
        """Return all restores that are kept, oldest first."""
        ...

    # -- access ------------------------------------------------------------------------------------------------------

    def users(self) -> list[User]:
        """Return all users, by name."""
        ...

    def put_user(self, known: User | None, wanted: User, now_ns: int) -> User:
        """Record a user under the next free number, or change one; return him. The same again is harmless.

        With another password or role his sessions and logins end. Raises Conflict when he is not as `known` by now, and
        when another one has the name.
        """
        ...

    def delete_user(self, user_id: str, now_ns: int) -> None:
        """Forget a user, and his sessions and logins with him. Idempotent."""
        ...

    def credentials(self) -> list[Credential]:
        """Return all tokens, sessions and logins, those that have run out included, oldest first."""
        ...

    def add_credential(self, credential: Credential) -> Credential:
        """Record what was given out. Idempotent by id. Raises Conflict when it is another, or its user is gone."""
        ...

    def use_credentials(self, used_at_ns: Mapping[str, int]) -> None:
        """Note, by id, when credentials were used last; times only grow. Those that are gone stay so. Idempotent."""
        ...

    def drop_credentials(self, credential_ids: Iterable[str], now_ns: int) -> None:
        """Forget credentials. Idempotent."""
        ...

    # -- events ------------------------------------------------------------------------------------------------------

    def events_since(self, number: int, limit: int = 1000) -> list[Event]:
        """Return events with a higher number, oldest first. Old ones are forgotten beyond the newest 10,000."""
        ...

    # -- notices -----------------------------------------------------------------------------------------------------

    def post_notices(
        self,
        new: Sequence[NewNotice],
        *,
        followed: tuple[int | None, int] | None = None,
        ended: Sequence[str] = (),
    ) -> list[Notice]:
        """Keep notices under the next numbers and queue their deliveries; return those that were news.

        `followed`: they are what events beyond the first number up to the second mean; when notices were made of them
        already nothing is done, so that the same again is harmless. `ended` are conditions of which nothing is said
        when they end. All in one transaction. Old notices are forgotten beyond the newest 10,000.
        """
        ...

    def notices_since(self, number: int, limit: int = 1000) -> list[Notice]:
        """Return notices with a higher number, oldest first."""
        ...

    def newest_notice(self) -> int:
        """Return the number of the newest notice; 0: there was none."""
        ...

    def followed_event(self) -> int | None:
        """Return up to which event notices were made; None: of none yet."""
        ...

    def unreadable_records(self) -> list[tuple[str, str]]:
        """Return (kind, what is wrong) of tapes, sets, jobs, schedules, tasks and such that cannot be read.

        Reads all of them; returns 100 at most.
        """
        ...

    def newest_event(self) -> int:
        """Return the number of the newest event; 0: there was none."""
        ...

    def conditions(self) -> list[Condition]:
        """Return what notices said has begun and has not ended, by name."""
        ...

    def deliveries(self, channel: str = "") -> list[Delivery]:
        """Return what is to be delivered, or was given up, by one channel or by all; oldest first in each."""
        ...

    def channel_records(self) -> list[ChannelRecord]:
        """Return how the channels have done, by name."""
        ...

    def note_delivery(self, known: Delivery, now_ns: int, error: str = "", next_at_ns: int | None = None) -> None:
        """A delivery was tried: it is done without `error`, is tried again at `next_at_ns`, or without that given up.

        `known` is the delivery as the caller tried it; when it is another by now nothing is done. Idempotent.
        """
        ...

    # -- tasks -------------------------------------------------------------------------------------------------------

    def tasks(self, family: TaskFamily) -> list[TaskRecord]:
        """Return the tasks of a family that are kept, oldest first: all that are open, and the newest 1,000 ended."""
        ...

    def add_task(self, task: TaskRecord) -> TaskRecord:
        """Record a WAITING task; its `number` is replaced by the next of its family. Idempotent by `task_id`.

        Raises Conflict when the task with that id asks for something else, ValueError for one that is not WAITING.
        """
        ...

    def change_task(self, known: TaskRecord, wanted: TaskRecord, now_ns: int) -> TaskRecord:
        """A task that is open and as `known` goes on or ends; what it asks for stays. Idempotent.

        Raises NotFound, and Conflict when it is another by now.
        """
        ...
