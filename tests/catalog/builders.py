"""Records for the ledger's tests: sensible values, and ids that are the same in every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from catalog.access_records import AccessRole, Credential, CredentialKind, User
from catalog.ids import BlockNo, FileNo, InstallationId, JobId, JobNumber, PinId, SegmentId, SetId, SetNumber, VolumeId
from catalog.ledger import Ledger
from catalog.records import (
    BackupSet,
    IndexCopy,
    Intent,
    IntentKind,
    Job,
    PinnedFrames,
    Segment,
    SegmentCopy,
    SetState,
    SetTotals,
    StagePin,
    Volume,
    VolumeEnd,
    VolumeState,
)
from catalog.schedule_records import BackUp, Course, Daily, RunNumber, Schedule, ScheduleNumber, ScheduleRun

_SPACE = UUID("6f1d5e0c-6d1f-4c7f-9d0e-6a51a9f0b001")
NOW = 1_800_000_000_000_000_000
TOTALS = SetTotals(files=3, directories=2, bytes=1000, stored_bytes=500, troubled_files=1)
LABEL_END = VolumeEnd(block=BlockNo(4), file=FileNo(2), used_bytes=2048)


def uuid_of(name: str) -> str:
    """Return the test id of that name."""
    return str(uuid5(_SPACE, name))


def volume_of(label: str, /, **changes: Any) -> Volume:
    fields: dict[str, Any] = {
        "volume_id": VolumeId(uuid_of(label)),
        "label": label,
        "pool": "default",
        "installation_id": InstallationId(uuid_of("here")),
        "generation": 9,
        "capacity_bytes": 2 << 30,
        "block_size": 256 << 10,
        "state": VolumeState.BLANK,
        "created_at_ns": NOW,
    }
    return Volume(**(fields | changes))


def job_of(name: str, **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "number": JobNumber(0),
        "job_id": JobId(uuid_of(name)),
        "name": name,
        "sources": (b"/srv/\xff",),
        "created_at_ns": NOW,
    }
    return Job(**(fields | changes))


def set_of(name: str, job: Job, **changes: Any) -> BackupSet:
    fields: dict[str, Any] = {
        "set_id": SetId(uuid_of(name)),
        "number": SetNumber(0),
        "job_id": job.job_id,
        "job_number": job.number,
        "name": job.name,
        "type": "full",
        "codec": "zstd",
        "level": 3,
        "sources": job.sources,
        "state": SetState.RUNNING,
        "started_at_ns": NOW + 10,
    }
    return BackupSet(**(fields | changes))


def segment_of(name: str, backup_set: BackupSet, number: int, **changes: Any) -> Segment:
    fields: dict[str, Any] = {
        "segment_id": SegmentId(uuid_of(name)),
        "set_id": backup_set.set_id,
        "number": number,
        "codec": "zstd",
        "plain_bytes": 10_000,
        "stored_bytes": 5_000,
        "members": 7,
        "frames": 2,
        "payload_sha256": bytes(32),
        "committed_at_ns": NOW + 20,
    }
    return Segment(**(fields | changes))


def pin_of(name: str, segment: Segment, *runs: tuple[int, int], **changes: Any) -> StagePin:
    fields: dict[str, Any] = {
        "pin_id": PinId(uuid_of(name)),
        "owner": "ada",
        "reason": "to look at",
        "frames": (PinnedFrames(segment.segment_id, runs),),
        "created_at_ns": NOW + 30,
        "expires_at_ns": NOW + 1000,
    }
    return StagePin(**(fields | changes))


def user_of(name: str, **changes: Any) -> User:
    fields: dict[str, Any] = {"user_id": uuid_of(f"user {name}"), "name": name, "role": AccessRole.VIEWER}
    return User(**(fields | changes))


def credential_of(name: str, user: User | None = None, **changes: Any) -> Credential:
    fields: dict[str, Any] = {
        "credential_id": uuid_of(f"credential {name}"),
        "kind": CredentialKind.TOKEN if user is None else CredentialKind.SESSION,
        "digest": bytes(32),
        "name": name,
        "user_id": user.user_id if user is not None else "",
        "created_at_ns": NOW,
    }
    return Credential(**(fields | changes))


def copy_of(segment: Segment, volume: Volume, block: int, file: int) -> SegmentCopy:
    """Where `segment` lies when its HEADER is at `block`: six blocks, filemarks included."""
    return SegmentCopy(
        segment_id=segment.segment_id,
        volume_id=volume.volume_id,
        header_file=FileNo(file),
        header_block=BlockNo(block),
        payload_block=BlockNo(block + 2),
        trailer_block=BlockNo(block + 4),
        end_block=BlockNo(block + 6),
        block_size=volume.block_size,
    )


def end_of(block: int, file: int) -> VolumeEnd:
    return VolumeEnd(block=BlockNo(block), file=FileNo(file), used_bytes=block * 1000)


def index_of(name: str, backup_set: BackupSet, volume: Volume, block: int, file: int) -> IndexCopy:
    return IndexCopy(
        index_id=uuid_of(name),
        set_id=backup_set.set_id,
        volume_id=volume.volume_id,
        file=FileNo(file),
        block=BlockNo(block),
        end_block=BlockNo(block + 2),
    )


def intent_of(structure_id: str, kind: IntentKind, volume: Volume, block: int, set_id: SetId | None) -> Intent:
    return Intent(
        structure_id=structure_id,
        kind=kind,
        volume_id=volume.volume_id,
        block=BlockNo(block),
        set_id=set_id,
        opened_at_ns=NOW + 5,
    )


@dataclass(frozen=True)
class Stage:
    """A ledger in which a set runs on a labelled and claimed tape whose data ends at LABEL_END."""

    volume: Volume
    claim: int
    job: Job
    backup_set: BackupSet

    def intent(self, name: str, kind: IntentKind = IntentKind.SEGMENT, block: int = LABEL_END.block) -> Intent:
        return intent_of(uuid_of(name), kind, self.volume, block, self.backup_set.set_id)

    def commit(self, ledger: Ledger, name: str, number: int, block: int, file: int) -> Segment:
        """Commit a segment whose HEADER is at `block` with `file` filemarks before it."""
        segment = segment_of(name, self.backup_set, number)
        copy = copy_of(segment, self.volume, block, file)
        ledger.commit_segment(segment, copy, self.claim, end_of(block + 6, file + 3), self.volume.label)
        return segment

    def seal(self, ledger: Ledger, name: str, block: int, file: int) -> IndexCopy:
        index = index_of(name, self.backup_set, self.volume, block, file)
        end = end_of(block + 2, file + 1)
        ledger.seal_set(self.backup_set.set_id, TOTALS, index, self.claim, end, NOW + 30)
        return index


def labelled(ledger: Ledger, label: str) -> tuple[Volume, int]:
    """Add, claim and label a tape; return its record and the claim."""
    ledger.add_volume(volume_of(label))
    claim = ledger.claim_volume(volume_of(label).volume_id)
    ledger.label_volume(volume_of(label).volume_id, claim, LABEL_END, NOW + 1)
    return ledger.volume_by_label(label), claim


def started(ledger: Ledger, name: str = "home") -> tuple[Job, BackupSet]:
    """Add and queue a job and begin its set `name`-set."""
    number = ledger.add_job(job_of(name)).number
    ledger.queue_job(number, NOW + 2)
    backup_set = ledger.begin_set(set_of(f"{name}-set", ledger.job(number)))
    return ledger.job(number), backup_set


def staged(ledger: Ledger) -> Stage:
    volume, claim = labelled(ledger, "T00001L9")
    return Stage(volume, claim, *started(ledger))


def schedule_of(name: str, **fields: Any) -> Schedule:
    usual: dict[str, Any] = {
        "number": ScheduleNumber(0),
        "schedule_id": uuid_of(name),
        "name": name,
        "rule": Daily(time="02:30"),
        "zone": "Europe/Berlin",
        "action": BackUp(job=JobNumber(1)),
        "course": Course(decided_ns=NOW),
    }
    return Schedule(**(usual | fields))


def run_of(schedule: Schedule, **fields: Any) -> ScheduleRun:
    usual: dict[str, Any] = {
        "number": RunNumber(0),
        "schedule": schedule.number,
        "planned_ns": NOW + 1,
        "due_ns": NOW + 1,
    }
    return ScheduleRun(**(usual | fields))
