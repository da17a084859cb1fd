"""What the catalog knows already, when tapes are read that it has: only what is new is taken in.

That is so after an old copy of the catalog was brought back. What the ledger knows counts, always: a segment of the
tape that contradicts it is left out, and its tape is in doubt; an end never moves back; what else made a tape SUSPECT
stays. One that was in doubt only because the ledger knew too little of it is so no more when all on it is understood.
Pure functions, but for `known_of`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from catalog.errors import NotFound
from catalog.ids import BlockNo, FileNo, InstallationId, JobId, SegmentId, SetId, VolumeId
from catalog.ledger import Ledger
from catalog.records import Adoption, BackupSet, Job, SegmentCopy, Volume, VolumeState
from catalog.records import Segment as SegmentRecord
from tapefs.rebuild.plan import Plan
from tapefs.rebuild.records import Survey
from tapefs.tape.doubts import is_of_ledger, remedy

#: What became of a job, not what it is asked for; and what tapes do not tell.
_COURSE = frozenset(
    {"number", "job_id", "state", "runs", "run_type", "set_id", "resume", "moves", "error"}
    | {"created_at_ns", "queued_at_ns", "started_at_ns", "finished_at_ns"}
)


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger says of the tapes that were read, and of what is on them."""

    installation_id: InstallationId
    volumes: Mapping[VolumeId, Volume]
    jobs: Mapping[JobId, Job]
    #: Those that have made sets with this very ledger.
    ran_here: frozenset[JobId]
    #: Those that are on the tapes.
    sets: Mapping[SetId, BackupSet]
    #: Of these, by number.
    segments: Mapping[SetId, Mapping[int, SegmentRecord]]
    #: Of the tapes that were read.
    copies: Mapping[VolumeId, Sequence[SegmentCopy]]

    def names(self) -> dict[VolumeId, str]:
        """Return the labels of all tapes."""
        return {volume.volume_id: volume.label for volume in self.volumes.values()}


def known_of(ledger: Ledger, surveys: Sequence[Survey]) -> Known:
    """Ask the ledger."""
    found = {header.set for survey in surveys for header in survey.headers}
    found |= {index.head.set for survey in surveys for index in survey.indexes}
    found |= {segment.set for survey in surveys for segment in survey.segments}
    sets = {set_id: backup_set for set_id in found if (backup_set := _set(ledger, set_id)) is not None}
    volumes = {volume.volume_id: volume for volume in ledger.volumes()}
    return Known(
        installation_id=ledger.installation().installation_id,
        volumes=volumes,
        jobs={job.job_id: job for job in ledger.jobs()},
        ran_here=frozenset(each.job_id for each in ledger.backup_sets() if not each.is_adopted),
        sets=sets,
        segments={set_id: {each.number: each for each in ledger.segments(set_id)} for set_id in sets},
        copies={
            survey.tape.volume_id: ledger.copies_on(survey.tape.volume_id)
            for survey in surveys
            if survey.tape.volume_id in volumes
        },
    )


def _set(ledger: Ledger, set_id: SetId) -> BackupSet | None:
    try:
        return ledger.backup_set(set_id)
    except NotFound:
        return None


def begun_anew(surveys: Iterable[Survey], known: Known) -> list[Volume]:
    """Return tapes of the ledger that are no more: we have labelled their cartridge anew since.

    In one catalog no two tapes have a name or a barcode in common, so at that time it had given them up.
    """
    read = list(surveys)
    there = {survey.tape.volume_id for survey in read}
    found = {}
    for survey in read:
        tape = survey.tape
        if tape.volume_id in known.volumes or tape.installation_id != known.installation_id:
            continue
        for volume in known.volumes.values():
            is_same = volume.code == tape.barcode if tape.barcode else volume.label == tape.label
            is_older = max(volume.labelled_at_ns, volume.written_at_ns) < tape.created_ns
            is_ours = volume.installation_id == known.installation_id
            if is_same and is_older and is_ours and volume.end_block and volume.volume_id not in there:
                found[volume.volume_id] = volume
    return list(found.values())


def leave_out_contradictions(plan: Plan, known: Known) -> dict[SegmentId, str]:
    """Take out of the plan what the ledger knows otherwise; return by segment what is wrong, for people."""
    wrong: dict[SegmentId, str] = {}
    for found in plan.sets.values():
        for number, record in known.segments.get(found.set_id, {}).items():
            segment = found.segments.get(number)
            if segment is None or (segment.segment, segment.payload_sha256) == (
                record.segment_id,
                record.payload_sha256,
            ):
                continue
            del found.segments[number]
            wrong[segment.segment] = (
                f"segment {number} of set {found.set_id[:8]} is {segment.segment}, but the catalog has "
                f"{record.segment_id} as that, or other content of it; the catalog's counts"
            )
    plan.ignored += wrong.values()
    return wrong


def fitted(adoption: Adoption, plan: Plan, known: Known, wrong: Mapping[SegmentId, str]) -> Adoption:
    """Return what the ledger is to take in, without what it knows; appends to the plan's sentences."""
    surveys = {survey.tape.volume_id: survey for survey in plan.surveys}
    has = {record.segment_id for records in known.segments.values() for record in records.values()}
    return msgspec.structs.replace(
        adoption,
        volumes=tuple(_volume(known, surveys[each.volume_id], each, wrong) for each in adoption.volumes),
        jobs=tuple(_job(plan, known, each) for each in adoption.jobs),
        segments=tuple(each for each in adoption.segments if each.segment_id not in has),
        copies=tuple(each for each in adoption.copies if _fits(known, each)),
        indexes=tuple(each for each in adoption.indexes if _is_before_end(known, surveys, each.volume_id)),
        intents=tuple(each for each in adoption.intents if _is_before_end(known, surveys, each.volume_id)),
        begun_anew=tuple(volume.volume_id for volume in begun_anew(plan.surveys, known)),
    )


def _is_before_end(known: Known, surveys: Mapping[VolumeId, Survey], volume_id: VolumeId) -> bool:
    """Does the tape hold all that the ledger says?"""
    volume = known.volumes.get(volume_id)
    return volume is None or surveys[volume_id].end_block >= volume.end_block


def _fits(known: Known, copy: SegmentCopy) -> bool:
    return all(each.segment_id != copy.segment_id for each in known.copies.get(copy.volume_id, ()))


def _volume(known: Known, survey: Survey, found: Volume, wrong: Mapping[SegmentId, str]) -> Volume:
    """Return the tape's record as it is to be; the ledger keeps what else it knows of it."""
    volume = known.volumes.get(found.volume_id)
    if volume is None:
        if found.state is VolumeState.SUSPECT:
            return msgspec.structs.replace(found, reason=f"{found.reason}: {remedy(found)} looks again")
        return found
    if found.end_block < volume.end_block:
        return volume
    doubt = survey.suspect or _disagreement(survey, volume, known.copies.get(volume.volume_id, ()), wrong)
    state, reason = _state(volume, found, doubt)
    return msgspec.structs.replace(
        found, state=state, reason=reason, end_block=BlockNo(found.end_block), end_file=FileNo(found.end_file)
    )


def _state(volume: Volume, found: Volume, doubt: str) -> tuple[VolumeState, str]:
    if volume.state is VolumeState.SUSPECT and not is_of_ledger(volume.reason):
        return volume.state, volume.reason
    is_new = found.end_block > volume.end_block
    if doubt and (is_new or volume.state is VolumeState.SUSPECT):
        return VolumeState.SUSPECT, f"{doubt}: {remedy(volume)} looks again"
    if volume.state in (VolumeState.APPENDABLE, VolumeState.FULL) and not is_new:
        return volume.state, volume.reason
    state = VolumeState.FULL if found.state is VolumeState.FULL else VolumeState.APPENDABLE
    state = VolumeState.FULL if volume.state is VolumeState.FULL else state
    return state, "" if found.state is VolumeState.SUSPECT else found.reason


def _disagreement(survey: Survey, volume: Volume, copies: Sequence[SegmentCopy], wrong: Mapping[SegmentId, str]) -> str:
    """Say what of a tape is otherwise than the ledger says; empty when all agrees."""
    tape = survey.tape
    if tape.installation_id != volume.installation_id:
        return f"its LABEL is of installation {tape.installation_id}, the catalog says {volume.installation_id}"
    has = (tape.key_fingerprint, tape.by_drive)
    if (volume.key_fingerprint, volume.by_drive) != has and volume.end_block:
        return "it is encrypted with another key, or another way, than the catalog says"
    places = {segment.segment: (segment.header_block, segment.end_block) for segment in survey.segments}
    for copy in copies:
        if places.get(copy.segment_id) != (copy.header_block, copy.end_block):
            return f"segment {copy.segment_id} is not at block {copy.header_block}, where the catalog has it"
    for segment in survey.segments:
        if segment.segment in wrong:
            return wrong[segment.segment]
    return ""


def _job(plan: Plan, known: Known, found: Job) -> Job:
    """Return the job with its runs counted; what it is asked for otherwise than by the newest set is told."""
    job = known.jobs.get(found.job_id)
    if job is None:
        return found
    new = [each for each in plan.sets.values() if each.told.job == found.job_id and each.set_id not in known.sets]
    is_newer = found.set_id not in (None, *known.sets) and found.started_at_ns > max(
        job.queued_at_ns, job.started_at_ns
    )
    differs = [
        field
        for field in Job.__struct_fields__
        if field not in _COURSE and getattr(job, field) != getattr(found, field)
    ]
    if is_newer and differs and job.job_id in known.ran_here:
        plan.ignored.append(
            f"job {job.number} ({job.name}) was asked for another {', '.join(differs)} when its newest set was made: "
            f"what the catalog says counts, `tapefs job show {job.number}` tells it"
        )
    return msgspec.structs.replace(found, runs=job.runs + len(new)) if new else found
