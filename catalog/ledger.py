"""The seam of the ledger: named operations, each one transaction, idempotent by uuid.

LMDB implements it (`catalog.lmdb_ledger`); PostgreSQL can, too. No cursors and no transactions are visible outside.
An implementation may be used by several processes at once, and by several threads of each.

Every operation may raise StorageFailed and Damaged; others are named below. `now_ns` is passed in, never taken here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Protocol

from catalog.access_records import Credential, User
from catalog.ids import InstallationId, JobId, JobNumber, PinId, SegmentId, SetId, VolumeId
from catalog.ledger_jobs import JobLedger
from catalog.life_records import CartridgeLife, MediumFacts, Mounting
from catalog.notice_records import ChannelRecord, Condition, Delivery, NewNotice, Notice
from catalog.pool_records import Pool
from catalog.records import (
    Adoption,
    BackupSet,
    CopyState,
    Event,
    IndexCopy,
    Installation,
    Intent,
    Job,
    Segment,
    SegmentCopy,
    SetTotals,
    StagePin,
    Volume,
    VolumeEnd,
    VolumeState,
)
from catalog.recovery_records import Recovery
from catalog.schedule_records import Schedule, ScheduleNumber, ScheduleRun
from catalog.stage_records import StageRequest
from catalog.task_records import TaskFamily, TaskRecord


class Ledger(JobLedger, Protocol):
    """Volumes, jobs, sets, segments, copies, intents, pins, requests to stage and events."""

    # -- installation ------------------------------------------------------------------------------------------------

    def installation(self) -> Installation:
        """Return this ledger's identity."""
        ...

    def close(self) -> None:
        """Let go of the storage; harmless twice."""
        ...

    # -- volumes -----------------------------------------------------------------------------------------------------

    def add_volume(self, volume: Volume) -> None:
        """Record a tape. The same record again is harmless; another one with that label or id raises Conflict."""
        ...

    def volume(self, volume_id: VolumeId) -> Volume:
        """Return one tape. Raises NotFound."""
        ...

    def volume_by_label(self, label: str) -> Volume:
        """Return one tape. Raises NotFound."""
        ...

    def volume_by_code(self, code: str) -> Volume:
        """Return the tape with this barcode, or with this label and no other barcode. Raises NotFound."""
        ...

    def volumes(self) -> list[Volume]:
        """Return all tapes, by label."""
        ...

    def claim_volume(self, volume_id: VolumeId) -> int:
        """Take the tape for writing: count its fencing token up and return it. Older holders then fail to commit."""
        ...

    def label_volume(
        self,
        volume_id: VolumeId,
        claim: int,
        end: VolumeEnd,
        now_ns: int,
        key_fingerprint: str = "",
        *,
        by_drive: bool = False,
    ) -> None:
        """BLANK becomes APPENDABLE, its label having been written and read back; closes the label's intent.

        `key_fingerprint`: of the key that all its data is encrypted with from now on: `by_drive`, or before it gets
        there.

        Raises StaleClaim, Conflict.
        """
        ...

    def mark_volume(self, volume_id: VolumeId, state: VolumeState, reason: str = "") -> None:
        """Set the state, with the reason for an operator."""
        ...

    def size_volume(self, volume_id: VolumeId, capacity_bytes: int, generation: int) -> None:
        """Record what a drive has told of the cartridge; until then its barcode let us guess."""
        ...

    # -- pools -------------------------------------------------------------------------------------------------------

    def pools(self) -> list[Pool]:
        """Return the pools that were recorded, by name; the one of the settings need not be among them."""
        ...

    def put_pool(self, known: Pool | None, wanted: Pool, now_ns: int) -> Pool:
        """Record a pool, or change one; return it. The same again is harmless.

        `known` is the pool as the caller saw it, None when there was none: Conflict when it is another by now.
        """
        ...

    def delete_pool(self, name: str, now_ns: int) -> None:
        """Forget a pool. Idempotent. Raises Conflict while a tape, a job or another pool names it."""
        ...

    def assign_volume(self, volume_id: VolumeId, pool: str, now_ns: int) -> None:
        """Put a BLANK tape into a pool. Idempotent. Raises NotFound, and Conflict once a label is written to it."""
        ...

    def move_volume(self, volume_id: VolumeId, location: str, now_ns: int) -> None:
        """Note where a tape lies; empty means the library. Idempotent. Raises NotFound."""
        ...

    # -- the life of cartridges --------------------------------------------------------------------------------------

    def note_mounting(self, mounting: Mounting, medium: MediumFacts | None = None) -> None:
        """Record one time that a cartridge was in a drive, as it is by now, and add what is new to its life.

        Idempotent by `mounting_id`: to be called when a tape is threaded, when something fails, and when it leaves.
        `medium` is what its memory says now.
        """
        ...

    def mountings(self, code: str) -> list[Mounting]:
        """Return the mountings of a cartridge that are kept, the newest first."""
        ...

    def mountings_since(self, since_ns: int) -> list[Mounting]:
        """Return what is kept of all mountings that began at that time or later, oldest first."""
        ...

    def life(self, code: str) -> CartridgeLife:
        """Return the life of a cartridge; an empty one when nothing is known of it."""
        ...

    def lives(self) -> list[CartridgeLife]:
        """Return all lives that are known, by code."""
        ...

    def note_erased(self, code: str, now_ns: int) -> None:
        """A cartridge was erased. Idempotent."""
        ...

    def note_used_up(self, code: str, now_ns: int) -> None:
        """A cleaning cartridge does not clean any more. Idempotent."""
        ...

    # -- giving tapes up ---------------------------------------------------------------------------------------------

    def live_sets(self, volume_id: VolumeId) -> list[BackupSet]:
        """Return the sets that have not expired and have anything on the tape, or are about to; by number."""
        ...

    def lost_sets(self, volume_id: VolumeId) -> list[BackupSet]:
        """Return those of them of which no other tape has a whole copy of some segment; by number."""
        ...

    def renew_volume(self, volume_id: VolumeId, claim: int, new: Volume, now_ns: int) -> None:
        """Put the BLANK record `new`, which has an id of its own, in place of a tape's; nothing else changes its id.

        Copies of expired sets on it are forgotten, its intents too. Idempotent. Raises NotFound, StaleClaim; Conflict
        when a live set has anything on it, or when another tape has that label or barcode; ValueError.
        """
        ...

    def identify_volume(self, volume_id: VolumeId, now_ns: int) -> None:
        """Note that somebody has looked what is on it. Idempotent. Raises NotFound."""
        ...

    def settle_volume(self, volume_id: VolumeId, claim: int) -> None:
        """Note that a BLANK tape is blank: its label is to be written over nothing. Idempotent. Raises StaleClaim."""
        ...

    def forget_volume(self, volume_id: VolumeId, claim: int, losing: Set[SetId], now_ns: int) -> None:
        """Forget a tape and all that lies on it; only sets of `losing` may lose their only copy of something.

        Of those COMPLETE ones stay, with what is left of them, and FAILED ones expire. Idempotent. Raises StaleClaim;
        Conflict when another set would lose something, or while one is written to it.
        """
        ...

    def leave_volume(self, set_id: SetId, volume_id: VolumeId, now_ns: int) -> None:
        """A COMPLETE set leaves a tape: its copies and indexes there are forgotten. Idempotent.

        Raises NotFound; Conflict unless each of its segments there has a GOOD copy that was made to replace it and was
        read back, and its indexes there one that replaces them, on tapes that are not SUSPECT.
        """
        ...

    def newest_number(self, stem: str) -> int:
        """Return the highest number behind `stem` that a tape has, or was given by `renew_volume`; 0: none."""
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

    # -- sets --------------------------------------------------------------------------------------------------------

    def begin_set(self, backup_set: BackupSet) -> BackupSet:
        """Record a RUNNING set; its `number` is replaced by the next one, and its job becomes RUNNING with this set.

        Idempotent by `set_id`. Raises Conflict when the job is not QUEUED, or 2**24 sets were made.
        """
        ...

    def backup_set(self, set_id: SetId) -> BackupSet:
        """Return one set. Raises NotFound."""
        ...

    def backup_sets(self) -> list[BackupSet]:
        """Return all sets in whatever state, oldest first."""
        ...

    def sets_of(self, job_id: JobId) -> list[BackupSet]:
        """Return the sets of a job, which may be deleted by now, in whatever state; oldest first."""
        ...

    def seal_set(
        self, set_id: SetId, totals: SetTotals, index: IndexCopy, claim: int, end: VolumeEnd, now_ns: int
    ) -> None:
        """RUNNING becomes SEALED, its SET INDEX being on tape; closes the index's intent and moves the tape's end.

        Idempotent by `index.index_id`. Raises StaleClaim, Conflict.
        """
        ...

    def commit_index(self, index: IndexCopy, claim: int, end: VolumeEnd, now_ns: int) -> None:
        """A SET INDEX is on tape that does not seal its set: record it, close its intent, move the tape's end.

        The set is RUNNING, FAILED, or COMPLETE when it is an index of a further copy.
        Idempotent by `index.index_id`. Raises StaleClaim, Conflict.
        """
        ...

    def complete_set(self, set_id: SetId, now_ns: int) -> None:
        """SEALED becomes COMPLETE, its namespace index being in place, and its job COMPLETED. Idempotent.

        A job that is to be verified is left to `finish_job`: it is not done before its set was read back.
        """
        ...

    def resume_set(self, set_id: SetId, now_ns: int) -> BackupSet:
        """FAILED becomes RUNNING again, and its job, which is QUEUED to resume it, too; its segments stay. Idempotent.

        A set that is SEALED or COMPLETE stays as it is: only its job runs. Raises Conflict.
        """
        ...

    def fail_set(self, set_id: SetId, error: str, now_ns: int) -> None:
        """RUNNING becomes FAILED; the job is left to `finish_job`. Idempotent. Raises Conflict in later states."""
        ...

    def expire_set(self, set_id: SetId, now_ns: int) -> None:
        """COMPLETE or FAILED becomes EXPIRED: nobody shows it or builds on it any more. Idempotent.

        Its segments and their copies stay recorded. Raises Conflict in other states, while a set that has not expired
        has it as `parent_id`, and while its job is queued or runs with it.
        """
        ...

    # -- segments ----------------------------------------------------------------------------------------------------

    def open_intent(self, intent: Intent, claim: int) -> None:
        """Record what is about to be written. Idempotent by `structure_id`. Raises StaleClaim."""
        ...

    def intents(self, volume_id: VolumeId) -> list[Intent]:
        """Return the open intents on a tape, oldest first."""
        ...

    def drop_intent(self, structure_id: str, volume_id: VolumeId) -> None:
        """Forget an intent whose structure is not on that tape, or is torn there. Idempotent.

        What is to be written to other tapes at the same time stays announced there.
        """
        ...

    def commit_segment(self, segment: Segment, copy: SegmentCopy, claim: int, end: VolumeEnd, label: str) -> None:
        """The segment is on tape and synced: record it, close its intent, move the tape's end, name it in the set.

        Idempotent by segment and volume. Raises StaleClaim, Conflict.
        """
        ...

    def segments(self, set_id: SetId) -> list[Segment]:
        """Return the set's committed segments, by number."""
        ...

    def segment(self, segment_id: SegmentId) -> Segment:
        """Return one segment. Raises NotFound."""
        ...

    def copies(self, segment_id: SegmentId) -> list[SegmentCopy]:
        """Return where the segment lies; empty when nowhere."""
        ...

    def copies_on(self, volume_id: VolumeId) -> list[SegmentCopy]:
        """Return what lies on a tape, in tape order."""
        ...

    def mark_copy(
        self, segment_id: SegmentId, volume_id: VolumeId, state: CopyState, now_ns: int, *, wholly: bool = True
    ) -> None:
        """The copy was read back at `now_ns`, and this is what was found. Idempotent. Raises NotFound.

        Not `wholly`: a part of it was read, so it does not count as read back.
        """
        ...

    def damaged_sets(self, *, by_copies: bool = False) -> frozenset[SetId]:
        """Return the sets of which some segment has no good copy, from an index.

        With `by_copies` all copies are read for that: whoever lets something go trusts no index.
        """
        ...

    def index_copies(self, set_id: SetId) -> list[IndexCopy]:
        """Return where the set's SET INDEX structures lie."""
        ...

    # -- what was found on tapes -------------------------------------------------------------------------------------

    def take_identity(self, installation_id: InstallationId) -> None:
        """Have the ledger be that of an installation whose tapes were found. Raises Conflict when it has sets."""
        ...

    def adopt(self, found: Adoption, now_ns: int) -> None:
        """Take in what was found on tapes, all in one transaction; the same again, or more of it, is harmless.

        Jobs and sets keep their numbers where these are free. A record that is there stays, but for these: a set that
        is FAILED and was adopted, or is SEALED now; a tape whose data ends no earlier than it did: its end and state
        are as was found; a BLANK tape of a label that was found; how the runs of a job of ours went on; and tapes that
        were `begun_anew`, which are forgotten as by `forget_volume`. Raises Conflict.
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
