"""The ledger on LMDB: the embedded default, for one host.

Every operation is one transaction in one function and one thread; a writing one is on disk when it returns. Any thread
may call any method, and any number of processes may have the ledger open; writers take turns. What is stored under
which key stands in `catalog.ledger_store.tables`, why LMDB is set as it is in `catalog.ledger_store.environment`, the
order of writes and what a crash leaves in `docs/ledger.md`.

Crash points: `ledger.OPERATION.before` and `ledger.OPERATION.after`, directly before and after the commit of each
writing operation, `create` included; a call that finds its work done already commits nothing and passes none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, TypeVar

from catalog.access_records import Credential, User
from catalog.errors import StorageFailed
from catalog.ids import InstallationId, JobNumber, PinId, SegmentId, SetId, VolumeId
from catalog.ledger_store import (
    access,
    adopting,
    appending,
    events,
    giving_up,
    job_indexes,
    layout,
    leaving,
    lives,
    pins,
    pools,
    recoveries,
    schedules,
    segments,
    sets,
    stage_requests,
    verify,
    volumes,
)
from catalog.ledger_store.environment import (
    MAP_SIZE_BYTES,
    Operation,
    SharedEnvironment,
    acquire,
    operation,
    release,
)
from catalog.ledger_store.transaction import Reader, Writer
from catalog.life_records import CartridgeLife, MediumFacts, Mounting
from catalog.lmdb_notices import NoticeOperations
from catalog.lmdb_queue import QueueOperations
from catalog.lmdb_tasks import TaskOperations
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

_ADD_VOLUME = operation("add_volume")
_CLAIM_VOLUME = operation("claim_volume")
_LABEL_VOLUME = operation("label_volume")
_MARK_VOLUME = operation("mark_volume")
_SIZE_VOLUME = operation("size_volume")
_PUT_POOL = operation("put_pool")
_DELETE_POOL = operation("delete_pool")
_ASSIGN_VOLUME = operation("assign_volume")
_MOVE_VOLUME = operation("move_volume")
_RENEW_VOLUME = operation("renew_volume")
_IDENTIFY_VOLUME = operation("identify_volume")
_SETTLE_VOLUME = operation("settle_volume")
_FORGET_VOLUME = operation("forget_volume")
_LEAVE_VOLUME = operation("leave_volume")
_BEGIN_SET = operation("begin_set")
_SEAL_SET = operation("seal_set")
_COMMIT_INDEX = operation("commit_index")
_COMPLETE_SET = operation("complete_set")
_FAIL_SET = operation("fail_set")
_EXPIRE_SET = operation("expire_set")
_OPEN_INTENT = operation("open_intent")
_DROP_INTENT = operation("drop_intent")
_COMMIT_SEGMENT = operation("commit_segment")
_RESUME_SET = operation("resume_set")
_MARK_COPY = operation("mark_copy")
_TAKE_IDENTITY = operation("take_identity")
_ADOPT = operation("adopt")
_NOTE_MOUNTING = operation("note_mounting")
_NOTE_ERASED = operation("note_erased")
_NOTE_USED_UP = operation("note_used_up")
_PUT_PIN = operation("put_pin")
_DROP_PIN = operation("drop_pin")
_PUT_SCHEDULE = operation("put_schedule")
_DELETE_SCHEDULE = operation("delete_schedule")
_PLAN_SCHEDULE_RUNS = operation("plan_schedule_runs")
_CHANGE_SCHEDULE_RUN = operation("change_schedule_run")
_QUEUE_SCHEDULED_JOB = operation("queue_scheduled_job")
_PUT_STAGE_REQUEST = operation("put_stage_request")
_DROP_STAGE_REQUEST = operation("drop_stage_request")
_PUT_RECOVERY = operation("put_recovery")
_DROP_RECOVERY = operation("drop_recovery")
_PUT_USER = operation("put_user")
_DELETE_USER = operation("delete_user")
_ADD_CREDENTIAL = operation("add_credential")
_USE_CREDENTIALS = operation("use_credentials")
_DROP_CREDENTIALS = operation("drop_credentials")

P = ParamSpec("P")
R = TypeVar("R")


class LmdbLedger(NoticeOperations, QueueOperations, TaskOperations):
    """A `catalog.ledger.Ledger` in a folder; see there for what the operations do and raise.

    Several in one process on the same folder share one LMDB environment. Never take one over a fork: every use in the
    child raises StorageFailed. A context manager that closes itself.
    """

    def __init__(self, environment: SharedEnvironment, *, readonly: bool) -> None:
        self._environment: SharedEnvironment | None = environment
        self._path = environment.path
        self._readonly = readonly

    @classmethod
    def create(cls, path: Path, now_ns: int) -> LmdbLedger:
        """Make an empty ledger in the folder `path`, which must not exist or be empty, and open it.

        Raises Conflict when something is there, StorageFailed.
        """
        layout.create(path, now_ns)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, *, readonly: bool = False, map_size_bytes: int = MAP_SIZE_BYTES) -> LmdbLedger:
        """Open the ledger in the folder `path`; with `readonly` writing operations raise StorageFailed.

        `map_size_bytes` is where the map begins to grow. Raises NotFound, WrongVersion, Damaged, StorageFailed.
        """
        path = path.absolute()
        environment = acquire(path, readonly=readonly, map_size_bytes=map_size_bytes)
        try:
            environment.read(layout.check, path)
            ledger = cls(environment, readonly=readonly)
            if not readonly and not environment.read(job_indexes.is_built):
                ledger.index_jobs()
        except BaseException:
            release(environment)
            raise
        return ledger

    def __enter__(self) -> LmdbLedger:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Let go of the storage; harmless twice."""
        environment, self._environment = self._environment, None
        if environment is not None:
            release(environment)

    def verify(self) -> list[str]:
        """Read everything; return one sentence per damaged, missing or contradicting record, none when all is well."""
        return self._read(verify.problems)

    def copy_to(self, folder: Path) -> None:
        """Write a copy of all that is committed now to the existing folder; writers go on meanwhile.

        Raises Conflict when a ledger is there, StorageFailed.
        """
        self._open_environment().copy_to(folder)

    def _open_environment(self) -> SharedEnvironment:
        if self._environment is None:
            raise StorageFailed(f"the ledger {self._path} is closed", retryable=False)
        return self._environment

    def _read(self, function: Callable[Concatenate[Reader, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._open_environment().read(function, *args, **kwargs)

    def _write(
        self, what: Operation, function: Callable[Concatenate[Writer, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        environment = self._open_environment()
        if self._readonly:
            raise StorageFailed(f"the ledger {self._path} is open for reading only: no {what.name}", retryable=False)
        return environment.write(what, function, *args, **kwargs)

    # -- installation ------------------------------------------------------------------------------------------------

    def installation(self) -> Installation:
        """Return this ledger's identity."""
        return self._read(layout.installation)

    # -- volumes -----------------------------------------------------------------------------------------------------

    def add_volume(self, volume: Volume) -> None:
        """Record a tape. The same again is harmless, whatever has been done with it since. Raises Conflict."""
        self._write(_ADD_VOLUME, volumes.add, volume)

    def volume(self, volume_id: VolumeId) -> Volume:
        """Return one tape. Raises NotFound."""
        return self._read(volumes.get, volume_id)

    def volume_by_label(self, label: str) -> Volume:
        """Return one tape. Raises NotFound."""
        return self._read(volumes.by_label, label)

    def volume_by_code(self, code: str) -> Volume:
        """Return one tape, by what a library calls it. Raises NotFound."""
        return self._read(volumes.by_code, code)

    def volumes(self) -> list[Volume]:
        """Return all tapes, by label."""
        return self._read(volumes.all_by_label)

    def claim_volume(self, volume_id: VolumeId) -> int:
        """Count the tape's fencing token up and return it. Raises NotFound."""
        return self._write(_CLAIM_VOLUME, volumes.claim, volume_id)

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
        """BLANK becomes APPENDABLE; closes the label's intent. Raises NotFound, StaleClaim, Conflict."""
        self._write(_LABEL_VOLUME, appending.label, volume_id, claim, end, now_ns, key_fingerprint, by_drive)

    def mark_volume(self, volume_id: VolumeId, state: VolumeState, reason: str = "") -> None:
        """Set the state. Raises NotFound, and Conflict when a tape with data would become BLANK."""
        self._write(_MARK_VOLUME, volumes.mark, volume_id, state, reason)

    def size_volume(self, volume_id: VolumeId, capacity_bytes: int, generation: int) -> None:
        """Record what a drive has told of the cartridge. Raises NotFound."""
        self._write(_SIZE_VOLUME, volumes.size, volume_id, capacity_bytes, generation)

    # -- pools -------------------------------------------------------------------------------------------------------

    def pools(self) -> list[Pool]:
        """Return the pools that were recorded, by name."""
        return self._read(pools.all_by_name)

    def put_pool(self, known: Pool | None, wanted: Pool, now_ns: int) -> Pool:
        """Record a pool, or change the one that is as `known`. Raises Conflict."""
        return self._write(_PUT_POOL, pools.put, known, wanted, now_ns)

    def delete_pool(self, name: str, now_ns: int) -> None:
        """Forget a pool that nobody names. Idempotent. Raises Conflict."""
        self._write(_DELETE_POOL, pools.delete, name, now_ns)

    def assign_volume(self, volume_id: VolumeId, pool: str, now_ns: int) -> None:
        """Put a BLANK tape into a pool. Idempotent. Raises NotFound, Conflict."""
        self._write(_ASSIGN_VOLUME, pools.assign, volume_id, pool, now_ns)

    def move_volume(self, volume_id: VolumeId, location: str, now_ns: int) -> None:
        """Note where a tape lies. Idempotent. Raises NotFound."""
        self._write(_MOVE_VOLUME, pools.move, volume_id, location, now_ns)

    # -- the life of cartridges --------------------------------------------------------------------------------------

    def note_mounting(self, mounting: Mounting, medium: MediumFacts | None = None) -> None:
        """Record a mounting as it is by now. Idempotent."""
        self._write(_NOTE_MOUNTING, lives.note_mounting, mounting, medium)

    def mountings(self, code: str) -> list[Mounting]:
        """Return the mountings of a cartridge that are kept, the newest first."""
        return self._read(lives.mountings, code)

    def mountings_since(self, since_ns: int) -> list[Mounting]:
        """Return what is kept of all mountings since then, oldest first."""
        return self._read(lives.all_mountings, since_ns)

    def life(self, code: str) -> CartridgeLife:
        """Return the life of a cartridge."""
        return self._read(lives.life, code)

    def lives(self) -> list[CartridgeLife]:
        """Return all lives that are known, by code."""
        return self._read(lives.lives)

    def note_erased(self, code: str, now_ns: int) -> None:
        """A cartridge was erased. Idempotent."""
        self._write(_NOTE_ERASED, lives.note_erased, code, now_ns)

    def note_used_up(self, code: str, now_ns: int) -> None:
        """A cleaning cartridge does not clean any more. Idempotent."""
        self._write(_NOTE_USED_UP, lives.note_used_up, code, now_ns)

    # -- giving tapes up ---------------------------------------------------------------------------------------------

    def live_sets(self, volume_id: VolumeId) -> list[BackupSet]:
        """Return the sets that have not expired and have anything on the tape, or are about to."""
        return self._read(giving_up.live_sets, volume_id)

    def lost_sets(self, volume_id: VolumeId) -> list[BackupSet]:
        """Return those of them of which the tape has the only copy of a segment."""
        return self._read(giving_up.lost_sets, volume_id)

    def renew_volume(self, volume_id: VolumeId, claim: int, new: Volume, now_ns: int) -> None:
        """Put a BLANK record in place of a tape's. Raises NotFound, StaleClaim, Conflict, ValueError."""
        self._write(_RENEW_VOLUME, giving_up.renew, volume_id, claim, new, now_ns)

    def identify_volume(self, volume_id: VolumeId, now_ns: int) -> None:
        """Note that somebody has looked what is on it. Raises NotFound."""
        self._write(_IDENTIFY_VOLUME, volumes.identify, volume_id, now_ns)

    def settle_volume(self, volume_id: VolumeId, claim: int) -> None:
        """Note that a BLANK tape is blank. Raises NotFound, StaleClaim, Conflict."""
        self._write(_SETTLE_VOLUME, giving_up.settle, volume_id, claim)

    def forget_volume(self, volume_id: VolumeId, claim: int, losing: Set[SetId], now_ns: int) -> None:
        """Forget a tape and all that lies on it. Idempotent. Raises StaleClaim, Conflict."""
        self._write(_FORGET_VOLUME, giving_up.forget, volume_id, claim, losing, now_ns)

    def leave_volume(self, set_id: SetId, volume_id: VolumeId, now_ns: int) -> None:
        """A set that was copied off a tape leaves it. Idempotent. Raises NotFound, Conflict."""
        self._write(_LEAVE_VOLUME, leaving.leave, set_id, volume_id, now_ns)

    def newest_number(self, stem: str) -> int:
        """Return the highest number behind `stem` among the names of tapes."""
        return self._read(giving_up.newest_number, stem)

    # -- schedules ---------------------------------------------------------------------------------------------------

    def schedules(self) -> list[Schedule]:
        """Return all schedules, oldest first."""
        return self._read(schedules.all_by_number)

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

    # -- sets --------------------------------------------------------------------------------------------------------

    def begin_set(self, backup_set: BackupSet) -> BackupSet:
        """Record a RUNNING set under the next number and start its job. Idempotent by `set_id`.

        Raises NotFound, Conflict, and ValueError when the record is not RUNNING.
        """
        return self._write(_BEGIN_SET, sets.begin, backup_set)

    def backup_set(self, set_id: SetId) -> BackupSet:
        """Return one set. Raises NotFound."""
        return self._read(sets.get, set_id)

    def backup_sets(self) -> list[BackupSet]:
        """Return all sets in whatever state, oldest first."""
        return self._read(sets.all_by_number)

    def seal_set(
        self, set_id: SetId, totals: SetTotals, index: IndexCopy, claim: int, end: VolumeEnd, now_ns: int
    ) -> None:
        """RUNNING becomes SEALED. Idempotent by `index.index_id`. Raises NotFound, StaleClaim, Conflict, ValueError."""
        self._write(_SEAL_SET, sets.seal, set_id, totals, index, claim, end, now_ns)

    def commit_index(self, index: IndexCopy, claim: int, end: VolumeEnd, now_ns: int) -> None:
        """Record a SET INDEX that is not the last one. Idempotent by `index.index_id` and tape.

        Raises NotFound, StaleClaim, Conflict.
        """
        self._write(_COMMIT_INDEX, sets.commit_index, index, claim, end, now_ns)

    def complete_set(self, set_id: SetId, now_ns: int) -> None:
        """SEALED becomes COMPLETE, its job COMPLETED unless it is to be verified. Idempotent.

        Raises NotFound, Conflict.
        """
        self._write(_COMPLETE_SET, sets.complete, set_id, now_ns)

    def resume_set(self, set_id: SetId, now_ns: int) -> BackupSet:
        """FAILED becomes RUNNING again, and its job. Idempotent. Raises NotFound, Conflict."""
        return self._write(_RESUME_SET, sets.resume, set_id, now_ns)

    def fail_set(self, set_id: SetId, error: str, now_ns: int) -> None:
        """RUNNING becomes FAILED. Idempotent. Raises NotFound, Conflict."""
        self._write(_FAIL_SET, sets.fail, set_id, error, now_ns)

    def expire_set(self, set_id: SetId, now_ns: int) -> None:
        """COMPLETE or FAILED becomes EXPIRED. Idempotent. Raises NotFound, Conflict."""
        self._write(_EXPIRE_SET, sets.expire, set_id, now_ns)

    # -- segments ----------------------------------------------------------------------------------------------------

    def open_intent(self, intent: Intent, claim: int) -> None:
        """Record what is about to be written. Idempotent by structure and tape.

        Raises NotFound, StaleClaim; Conflict when the tape's state forbids it, or committed data would be overwritten.
        """
        self._write(_OPEN_INTENT, appending.open_intent, intent, claim)

    def intents(self, volume_id: VolumeId) -> list[Intent]:
        """Return the open intents on a tape, oldest first."""
        return self._read(appending.intents_on, volume_id)

    def drop_intent(self, structure_id: str, volume_id: VolumeId) -> None:
        """Forget the structure's open intent on a tape. Idempotent."""
        self._write(_DROP_INTENT, appending.drop_intent, structure_id, volume_id)

    def commit_segment(self, segment: Segment, copy: SegmentCopy, claim: int, end: VolumeEnd, label: str) -> None:
        """Record a segment that is on tape and synced. Idempotent by segment and tape.

        A segment of a FAILED set is accepted (an adopted one); the set stays FAILED.
        Raises NotFound, StaleClaim, Conflict, ValueError.
        """
        self._write(_COMMIT_SEGMENT, segments.commit, segment, copy, claim, end, label)

    def segments(self, set_id: SetId) -> list[Segment]:
        """Return the set's committed segments, by number."""
        return self._read(segments.of_set, set_id)

    def segment(self, segment_id: SegmentId) -> Segment:
        """Return one segment. Raises NotFound."""
        return self._read(segments.get, segment_id)

    def copies(self, segment_id: SegmentId) -> list[SegmentCopy]:
        """Return where the segment lies; empty when nowhere."""
        return self._read(segments.copies, segment_id)

    def copies_on(self, volume_id: VolumeId) -> list[SegmentCopy]:
        """Return what lies on a tape, in tape order."""
        return self._read(segments.copies_on, volume_id)

    def mark_copy(self, segment_id: SegmentId, volume_id: VolumeId, state: CopyState, now_ns: int) -> None:
        """Record what reading a copy back has found. Idempotent. Raises NotFound."""
        self._write(_MARK_COPY, segments.mark_copy, segment_id, volume_id, state, now_ns)

    def index_copies(self, set_id: SetId) -> list[IndexCopy]:
        """Return where the set's SET INDEX structures lie, by tape and block."""
        return self._read(sets.index_copies, set_id)

    # -- what was found on tapes -------------------------------------------------------------------------------------

    def take_identity(self, installation_id: InstallationId) -> None:
        """Be that installation's. Raises Conflict when there are sets."""
        self._write(_TAKE_IDENTITY, adopting.take_identity, installation_id)

    def adopt(self, found: Adoption, now_ns: int) -> None:
        """Take in what was found on tapes. Idempotent. Raises Conflict."""
        self._write(_ADOPT, adopting.adopt, found, now_ns)

    # -- pins --------------------------------------------------------------------------------------------------------

    def put_pin(self, pin: StagePin) -> StagePin:
        """Record a pin, or extend the one of that id. Raises Conflict when that is another owner's."""
        return self._write(_PUT_PIN, pins.put, pin)

    def drop_pin(self, pin_id: PinId, now_ns: int) -> None:
        """Forget a pin. Idempotent."""
        self._write(_DROP_PIN, pins.drop, pin_id, now_ns)

    def pins(self) -> list[StagePin]:
        """Return all pins, oldest first."""
        return self._read(pins.oldest_first)

    # -- requests to stage -------------------------------------------------------------------------------------------

    def put_stage_request(self, request: StageRequest) -> None:
        """Record a request, or how far it is now. Idempotent."""
        self._write(_PUT_STAGE_REQUEST, stage_requests.put, request)

    def drop_stage_request(self, request_id: str) -> None:
        """Forget a request. Idempotent."""
        self._write(_DROP_STAGE_REQUEST, stage_requests.drop, request_id)

    def stage_requests(self) -> list[StageRequest]:
        """Return all requests, oldest first."""
        return self._read(stage_requests.oldest_first)

    # -- restores ----------------------------------------------------------------------------------------------------

    def put_recovery(self, recovery: Recovery) -> None:
        """Record a restore, or how far it is now. Idempotent."""
        self._write(_PUT_RECOVERY, recoveries.put, recovery)

    def drop_recovery(self, recovery_id: str) -> None:
        """Forget a restore. Idempotent."""
        self._write(_DROP_RECOVERY, recoveries.drop, recovery_id)

    def recoveries(self) -> list[Recovery]:
        """Return all restores that are kept, oldest first."""
        return self._read(recoveries.oldest_first)

    # -- access ------------------------------------------------------------------------------------------------------

    def users(self) -> list[User]:
        """Return all users, by name."""
        return self._read(access.users)

    def put_user(self, known: User | None, wanted: User, now_ns: int) -> User:
        """Record a user, or change the one that is as `known`. Raises Conflict."""
        return self._write(_PUT_USER, access.put_user, known, wanted, now_ns)

    def delete_user(self, user_id: str, now_ns: int) -> None:
        """Forget a user with his sessions and logins. Idempotent."""
        self._write(_DELETE_USER, access.delete_user, user_id, now_ns)

    def credentials(self) -> list[Credential]:
        """Return all tokens, sessions and logins, oldest first."""
        return self._read(access.credentials)

    def add_credential(self, credential: Credential) -> Credential:
        """Record what was given out. Idempotent. Raises Conflict."""
        return self._write(_ADD_CREDENTIAL, access.add_credential, credential)

    def use_credentials(self, used_at_ns: Mapping[str, int]) -> None:
        """Note when credentials were used last. Idempotent."""
        self._write(_USE_CREDENTIALS, access.use_credentials, used_at_ns)

    def drop_credentials(self, credential_ids: Iterable[str], now_ns: int) -> None:
        """Forget credentials. Idempotent."""
        self._write(_DROP_CREDENTIALS, access.drop_credentials, tuple(credential_ids), now_ns)

    # -- events ------------------------------------------------------------------------------------------------------

    def events_since(self, number: int, limit: int = 1000) -> list[Event]:
        """Return events with a higher number, oldest first; the newest 10,000 are kept."""
        return self._read(events.since, number, limit)

    def newest_event(self) -> int:
        """Return the number of the newest event; 0: there was none."""
        return self._read(events.newest)
