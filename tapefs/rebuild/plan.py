"""What a catalog of these tapes holds: from what each tape says to the ledger's records. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from catalog.ids import BlockNo, FileNo, InstallationId, JobId, JobNumber, SegmentId, SetId, SetNumber, VolumeId
from catalog.records import (
    Adoption,
    BackupSet,
    IndexCopy,
    Intent,
    IntentKind,
    Job,
    JobState,
    SegmentCopy,
    SetState,
    Volume,
    VolumeState,
)
from catalog.records import Segment as SegmentRecord
from tapefs.format.catalog_settings import job_with, set_with
from tapefs.format.records import Header, IndexHead, IndexSegment, join_sources
from tapefs.rebuild.records import Index, Segment, Survey

#: Of adopted sets whose index is not built yet.
UNBUILT = "its index is being built from what was found on tape"


@dataclass(slots=True)
class FoundSet:
    """A set as all tapes together tell of it."""

    set_id: SetId
    #: The index that sealed it, if one was found.
    final: IndexHead | None
    #: Who else tells what it is.
    told: Header | IndexHead
    #: By number.
    segments: dict[int, Segment] = field(default_factory=dict)
    #: What indexes say of segments that were not found, by number.
    missing: dict[int, IndexSegment] = field(default_factory=dict)
    #: Labels of its tapes in the order of writing.
    tapes: tuple[str, ...] = ()
    is_imported: bool = False

    @property
    def parent_id(self) -> SetId | None:
        """The set that it builds on."""
        return self.told.base_set if isinstance(self.told, IndexHead) else self.told.parent_set

    @property
    def goes_on(self) -> bool:
        """Does it go on on another tape? That is what an index before a change of tapes says."""
        return self.final is None and isinstance(self.told, IndexHead)

    def lacks(self, known: Collection[int]) -> str:
        """Say which segments are missing beside those `known` by number, and where they are; empty when none is."""
        gaps = [number for number in range(max(known, default=-1) + 1) if number not in known]
        numbers = sorted({*gaps, *(number for number in self.missing if number not in known)})
        if not numbers:
            return "" if known else "none of its segments was found"
        tapes = sorted({line.label for number, line in self.missing.items() if number in numbers})
        where = f", on tape {', '.join(tapes)}" if tapes else ""
        return f"{len(numbers)} of {len(known) + len(numbers)} segments are missing{where}"


@dataclass(slots=True)
class Plan:
    """All that was found."""

    surveys: Sequence[Survey]
    installation_id: InstallationId
    #: What the catalog calls each tape.
    names: dict[VolumeId, str] = field(default_factory=dict)
    sets: dict[SetId, FoundSet] = field(default_factory=dict)
    #: Sentences for people.
    ignored: list[str] = field(default_factory=list)
    #: Sets and jobs of which the tapes tell no settings.
    unsettled: list[str] = field(default_factory=list)


def installation_of(surveys: Iterable[Survey]) -> InstallationId | None:
    """Return the installation that has made the most sets, None when there are no tapes."""
    sets: dict[SetId, InstallationId] = {}
    tapes: Counter[InstallationId] = Counter()
    for survey in surveys:
        tapes[survey.tape.installation_id] += 1
        sets.update({header.set: header.installation for header in survey.headers})
        sets.update({index.head.set: index.head.installation for index in survey.indexes})
    counts = Counter(sets.values()) or tapes
    return counts.most_common(1)[0][0] if counts else None


def plan_of(
    surveys: Sequence[Survey],
    installation_id: InstallationId,
    taken: Mapping[str, VolumeId],
    called: Mapping[VolumeId, str] | None = None,
) -> Plan:
    """Put together what the tapes say; `taken` are names in the catalog, `called` are those of tapes that it knows."""
    plan = Plan(surveys, installation_id, {**_names(surveys, taken), **_called(surveys, called or {})})
    for survey in surveys:
        for index in survey.indexes:
            _hear_head(plan, index.head)
        for header in survey.headers:
            if header.set not in plan.sets:
                plan.sets[header.set] = FoundSet(header.set, None, header)
    tables = _tables(surveys)
    for survey in surveys:
        for segment in survey.segments:
            _hear_segment(plan, tables, survey, segment)
    for set_id, table in tables.items():
        found = plan.sets[set_id]
        found.missing = {number: line for number, line in table.items() if number not in found.segments}
    for found in plan.sets.values():
        found.is_imported = found.told.installation != installation_id
        found.tapes = _tapes_of(plan, found.set_id)
    return plan


def _hear_head(plan: Plan, head: IndexHead) -> None:
    found = plan.sets.setdefault(head.set, FoundSet(head.set, None, head))
    if head.final and (found.final is None or head.created_ns < found.final.created_ns):
        # That of a further copy is younger.
        found.final = found.told = head
    elif found.final is None and not (isinstance(found.told, IndexHead) and found.told.created_ns >= head.created_ns):
        found.told = head


def _tables(surveys: Sequence[Survey]) -> dict[SetId, dict[int, IndexSegment]]:
    """Return by set what indexes say of its segments."""
    tables: dict[SetId, dict[int, IndexSegment]] = {}
    for index in sorted((index for survey in surveys for index in survey.indexes), key=lambda each: each.head.final):
        tables.setdefault(index.head.set, {}).update({line.number: line for line in index.table})
    return tables


def _hear_segment(plan: Plan, tables: dict[SetId, dict[int, IndexSegment]], survey: Survey, segment: Segment) -> None:
    found = plan.sets[segment.set]
    known = found.segments.get(segment.number)
    if known is None:
        found.segments[segment.number] = segment
        return
    if known.segment == segment.segment:
        if known.payload_sha256 != segment.payload_sha256:
            plan.ignored.append(
                f"segment {segment.number} of set {segment.set[:8]} on tape {survey.tape.label}: "
                "its copies say different things of it; the first one counts"
            )
        elif known.is_from_payload:
            found.segments[segment.number] = segment
        return
    said = tables.get(segment.set, {}).get(segment.number)
    keeps_new = said is not None and said.segment == segment.segment
    if keeps_new:
        found.segments[segment.number] = segment
    plan.ignored.append(
        f"set {segment.set[:8]} has two segments with the number {segment.number}, {known.segment} and "
        f"{segment.segment}: {'the second' if keeps_new else 'the first'} counts"
    )


def _names(surveys: Sequence[Survey], taken: Mapping[str, VolumeId]) -> dict[VolumeId, str]:
    """Return for each tape what its LABEL says; where another one has that name, something is added."""
    names: dict[VolumeId, str] = {}
    used = dict(taken)
    for survey in surveys:
        volume_id, label = survey.tape.volume_id, survey.tape.label
        if used.setdefault(label, volume_id) != volume_id:
            label = f"{label}-{volume_id[:8]}"
            used[label] = volume_id
        names[volume_id] = label
    return names


def _called(surveys: Sequence[Survey], called: Mapping[VolumeId, str]) -> dict[VolumeId, str]:
    """Return the names of those that the catalog knows."""
    ids = [survey.tape.volume_id for survey in surveys]
    return {volume_id: called[volume_id] for volume_id in ids if volume_id in called}


def _tapes_of(plan: Plan, set_id: SetId) -> tuple[str, ...]:
    """Return the labels of a set's tapes in the order of writing: that of their oldest index, or HEADER."""
    times: dict[str, int] = {}
    for survey in plan.surveys:
        of_set = [index.head.created_ns for index in survey.indexes if index.head.set == set_id]
        of_set = of_set or [header.created_ns for header in survey.headers if header.set == set_id]
        if of_set:
            times[plan.names[survey.tape.volume_id]] = min(of_set)
    return tuple(sorted(times, key=lambda label: times[label]))


# -- records ---------------------------------------------------------------------------------------------------------


def adoption_of(plan: Plan, now_ns: int) -> Adoption:
    """Return what the ledger is to take in; sets are FAILED until their indexes are built."""
    sets = [set_record(plan, found) for found in plan.sets.values()]
    return Adoption(
        volumes=tuple(_volume(plan, survey) for survey in plan.surveys),
        jobs=tuple(_jobs(plan)),
        sets=tuple(sorted(sets, key=lambda each: (each.number, each.started_at_ns, each.set_id))),
        segments=tuple(_segment(each) for found in plan.sets.values() for each in found.segments.values()),
        copies=tuple(copy for survey in plan.surveys for copy in _copies(plan, survey)),
        indexes=tuple(_index(survey, index) for survey in plan.surveys for index in survey.indexes if index.is_whole),
        intents=tuple(intent for survey in plan.surveys for intent in _intents(survey, now_ns)),
    )


def _volume(plan: Plan, survey: Survey) -> Volume:
    tape = survey.tape
    is_ours = tape.installation_id == plan.installation_id
    state = VolumeState.FULL if survey.is_full or not is_ours else VolumeState.APPENDABLE
    return Volume(
        volume_id=tape.volume_id,
        label=plan.names[tape.volume_id],
        barcode="" if tape.barcode == plan.names[tape.volume_id] else tape.barcode,
        labelled_at_ns=tape.created_ns,
        pool=tape.pool,
        installation_id=tape.installation_id,
        generation=tape.generation,
        capacity_bytes=tape.capacity_bytes,
        block_size=tape.block_size,
        key_fingerprint=tape.key_fingerprint,
        by_drive=tape.by_drive,
        state=VolumeState.SUSPECT if survey.suspect else state,
        reason=survey.suspect or ("" if is_ours else f"written by installation {tape.installation_id}"),
        end_block=BlockNo(survey.end_block),
        end_file=FileNo(survey.end_file),
        used_bytes=survey.label_bytes
        + sum(segment.payload_bytes + segment.trailer_bytes for segment in survey.segments)
        + sum(index.stored_bytes for index in survey.indexes),
        created_at_ns=tape.created_ns,
        written_at_ns=survey.written_ns,
    )


def set_record(plan: Plan, found: FoundSet) -> BackupSet:
    """Return the ledger's record of a set: FAILED, because its index is not built yet."""
    told = found.told
    head = told if isinstance(told, IndexHead) else None
    record = BackupSet(
        set_id=found.set_id,
        number=SetNumber(told.set_number),
        job_id=told.job,
        job_number=JobNumber(told.job_number),
        name=told.job_name,
        type=told.type,
        codec=told.codec,
        level=-1 if head is None else head.level,
        sources=tuple(join_sources(told)),
        state=SetState.FAILED,
        started_at_ns=told.set_started_ns,
        finished_at_ns=told.created_ns,
        parent_id=found.parent_id,
        files=0 if head is None else head.files,
        directories=0 if head is None else head.directories,
        bytes=0 if head is None else head.bytes,
        stored_bytes=sum(segment.payload_bytes for segment in found.segments.values()),
        troubled_files=0 if head is None else head.troubled_files,
        segments=len(found.segments),
        tapes=found.tapes,
        error=UNBUILT,
        is_adopted=True,
        is_imported=found.is_imported,
    )
    if head is None:
        plan.unsettled.append(f"set {record.set_id[:8]} ({record.name})")
        return record
    return set_with(head.set_settings, record) or record


def _jobs(plan: Plan) -> list[Job]:
    """Return our own jobs, as the newest set of each tells of them."""
    by_job: dict[JobId, list[FoundSet]] = {}
    for found in plan.sets.values():
        if not found.is_imported:
            by_job.setdefault(found.told.job, []).append(found)
    return [_job(sets) for sets in by_job.values()]


def _job(sets: list[FoundSet]) -> Job:
    newest = max(sets, key=lambda each: (each.told.set_started_ns, each.set_id)).told
    sealed = [each.final for each in sets if each.final is not None]
    done = max(sealed, key=lambda each: each.set_started_ns, default=None)
    job = Job(
        number=JobNumber(newest.job_number),
        job_id=newest.job,
        name=newest.job_name,
        sources=tuple(join_sources(newest)),
        type=newest.type,
        codec=newest.codec,
        level=newest.level if isinstance(newest, IndexHead) else -1,
        state=JobState.PENDING if done is None else JobState.COMPLETED,
        runs=len(sets),
        set_id=None if done is None else done.set,
        created_at_ns=min(each.told.set_started_ns for each in sets),
        queued_at_ns=0 if done is None else done.set_started_ns,
        started_at_ns=0 if done is None else done.set_started_ns,
        finished_at_ns=0 if done is None else done.created_ns,
    )
    heads = [each.told for each in sets if isinstance(each.told, IndexHead) and each.told.job_settings]
    settings = max(heads, key=lambda head: head.created_ns, default=None)
    return job if settings is None else job_with(settings.job_settings, job) or job


def _segment(found: Segment) -> SegmentRecord:
    return SegmentRecord(
        segment_id=found.segment,
        set_id=found.set,
        number=found.number,
        codec=found.codec,
        plain_bytes=found.plain_bytes,
        stored_bytes=found.payload_bytes,
        members=found.members,
        frames=found.frames,
        payload_sha256=found.payload_sha256,
        committed_at_ns=found.committed_ns,
        key_fingerprint=found.key_fingerprint,
        preamble=found.preamble,
    )


def _copies(plan: Plan, survey: Survey) -> list[SegmentCopy]:
    copies: dict[SegmentId, SegmentCopy] = {}
    for segment in survey.segments:
        counted = plan.sets[segment.set].segments.get(segment.number)
        if counted is None or (counted.segment, counted.payload_sha256) != (segment.segment, segment.payload_sha256):
            continue
        if segment.segment in copies:
            plan.ignored.append(
                f"segment {segment.number} of set {segment.set[:8]} is on tape {survey.tape.label} twice: "
                "the first one counts"
            )
            continue
        copies[segment.segment] = SegmentCopy(
            segment_id=segment.segment,
            volume_id=survey.tape.volume_id,
            header_file=FileNo(segment.header_file),
            header_block=BlockNo(segment.header_block),
            payload_block=BlockNo(segment.payload_block),
            trailer_block=BlockNo(segment.trailer_block),
            end_block=BlockNo(segment.end_block),
            block_size=segment.block_size,
            trailer_sha256=segment.trailer_sha256,
        )
    return list(copies.values())


def _index(survey: Survey, index: Index) -> IndexCopy:
    return IndexCopy(
        index_id=index.head.index,
        set_id=index.head.set,
        volume_id=survey.tape.volume_id,
        file=FileNo(index.file),
        block=BlockNo(index.block),
        end_block=BlockNo(index.end_block),
    )


def _intents(survey: Survey, now_ns: int) -> list[Intent]:
    """Have what is torn at the end of the data be overwritten, as if this catalog had announced it."""
    return [
        Intent(
            structure_id=torn.structure,
            kind=IntentKind.INDEX if torn.is_index else IntentKind.SEGMENT,
            volume_id=VolumeId(survey.tape.volume_id),
            block=BlockNo(torn.block),
            set_id=torn.set,
            opened_at_ns=now_ns,
        )
        for torn in survey.torn
        if torn.block == survey.end_block
    ]
