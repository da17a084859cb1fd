"""A ledger of many jobs and sets, made up, for measurements and tests. Blocking; any thread."""

from __future__ import annotations

import time
from uuid import UUID

from catalog.ids import (
    BlockNo,
    FileNo,
    InstallationId,
    JobId,
    JobNumber,
    SegmentId,
    SetId,
    SetNumber,
    VolumeId,
)
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import (
    Adoption,
    BackupSet,
    Job,
    JobState,
    Segment,
    SegmentCopy,
    SetState,
    Volume,
    VolumeState,
)
from tapefs.home import Home

_STATES = (JobState.COMPLETED, JobState.FAILED, JobState.PENDING)
#: So many names the jobs have among them.
_NAMES = 97
#: A segment: HEADER, PAYLOAD and TRAILER with their filemarks, so far apart on tape.
_SEGMENT_BLOCKS, _SEGMENT_FILES = 10, 3


def fill_ledger(home: Home, *, jobs: int, sets: int, tapes: int = 0, segments: int = 0) -> None:
    """Have the ledger know `jobs` jobs of which none is on its way, and of `sets` of them a complete set.

    Each set has `segments` segments, all with one copy on one of `tapes` tapes.
    """
    now = time.time_ns()
    many = tuple(_job(number, now) for number in range(1, jobs + 1))
    theirs = tuple(_set(number, job, now, tapes) for number, job in enumerate(many[:sets], 1))
    volumes = tuple(_volume(number, now, (sets + 1) * segments) for number in range(tapes))
    parts = tuple(_segment(each, number, segments) for each in theirs for number in range(segments))
    copies = tuple(_copy(place, part, place // segments % tapes) for place, part in enumerate(parts, segments))
    with LmdbLedger.open(home.ledger) as ledger:
        ledger.adopt(Adoption(volumes=volumes, jobs=many, sets=theirs, segments=parts, copies=copies), now)


def set_id_of(number: int) -> SetId:
    """Return the id of the set of that number."""
    return SetId(_uuid(2, number))


def _job(number: int, now_ns: int) -> Job:
    return Job(
        number=JobNumber(number),
        job_id=JobId(_uuid(1, number)),
        name=f"job{number % _NAMES}",
        sources=(b"/srv/data",),
        state=_STATES[number % 3],
        created_at_ns=now_ns - number,
    )


def _set(number: int, job: Job, now_ns: int, tapes: int) -> BackupSet:
    return BackupSet(
        set_id=set_id_of(number),
        number=SetNumber(number),
        job_id=job.job_id,
        job_number=job.number,
        name=job.name,
        type="full",
        codec="zstd",
        level=3,
        sources=job.sources,
        state=SetState.COMPLETE,
        started_at_ns=now_ns - number * 10**9,
        finished_at_ns=now_ns - number * 10**9,
        tapes=(_label(number % tapes),) if tapes else (),
    )


def _label(number: int) -> str:
    return f"BN{number:04}L9"


def _volume(number: int, now_ns: int, segments: int) -> Volume:
    return Volume(
        volume_id=VolumeId(_uuid(3, number)),
        label=_label(number),
        pool="default",
        installation_id=InstallationId(_uuid(4, 0)),
        generation=9,
        capacity_bytes=18 * 10**12,
        block_size=256 << 10,
        state=VolumeState.FULL,
        created_at_ns=now_ns,
        labelled_at_ns=now_ns,
        end_block=BlockNo(_SEGMENT_BLOCKS * segments),
        end_file=FileNo(_SEGMENT_FILES * segments),
    )


def _segment(backup_set: BackupSet, number: int, segments: int) -> Segment:
    return Segment(
        segment_id=SegmentId(_uuid(5, backup_set.number * segments + number)),
        set_id=backup_set.set_id,
        number=number,
        codec="zstd",
        plain_bytes=4 << 30,
        stored_bytes=2 << 30,
        members=1000,
        frames=1024,
        payload_sha256=bytes(32),
        committed_at_ns=backup_set.started_at_ns,
    )


def _copy(place: int, segment: Segment, tape: int) -> SegmentCopy:
    first = _SEGMENT_BLOCKS * place
    return SegmentCopy(
        segment_id=segment.segment_id,
        volume_id=VolumeId(_uuid(3, tape)),
        header_file=FileNo(_SEGMENT_FILES * place),
        header_block=BlockNo(first),
        payload_block=BlockNo(first + 2),
        trailer_block=BlockNo(first + 6),
        end_block=BlockNo(first + 9),
        block_size=256 << 10,
    )


def _uuid(kind: int, number: int) -> str:
    return str(UUID(int=(kind << 100) | (4 << 76) | (8 << 60) | number))
