"""What is known of a set now: the report of its run, and what reading it back has found. Blocking; any thread."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import structlog

from catalog.ledger import Ledger
from catalog.records import BackupSet, CopyState, Job
from tapefs.home import Home
from tapefs.report.files import read_report
from tapefs.report.records import Path, RunReport, Stage, Trouble
from tapefs.report.views import (
    DamageView,
    MoveView,
    PathView,
    ReportView,
    StageView,
    Streaming,
    TroubleView,
    VerificationView,
)
from tapefs.verify.damage import read_damage
from tapefs.vfs.roster import iso_time

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DamagedCopy:
    """A copy of a segment that is not as it was written."""

    segment_id: str
    #: Label.
    tape: str
    verified_at_ns: int
    problems: list[str]
    #: Files of which it has lost content.
    lost: list[bytes]


@dataclass(frozen=True, slots=True)
class Verification:
    """What reading the copies back has found."""

    copies: int
    #: How many were ever read back, and when that was longest ago; 0 unless all were.
    verified: int
    oldest_at_ns: int
    damaged: list[DamagedCopy]


@dataclass(frozen=True, slots=True)
class SetReport:
    """All of it."""

    backup_set: BackupSet
    #: None for a set of before reports were written, or whose report is damaged.
    run: RunReport | None
    verification: Verification


def set_report(home: Home, ledger: Ledger, backup_set: BackupSet) -> SetReport:
    """Return what is known of a set. Raises OSError, catalog errors."""
    try:
        run = read_report(home, backup_set.set_id)
    except ValueError:
        run = None
    return SetReport(backup_set, run, _verification(home, ledger, backup_set))


def _verification(home: Home, ledger: Ledger, backup_set: BackupSet) -> Verification:
    copies = [copy for segment in ledger.segments(backup_set.set_id) for copy in ledger.copies(segment.segment_id)]
    times = [copy.verified_at_ns for copy in copies]
    damaged = []
    for copy in copies:
        if copy.state is CopyState.DAMAGED:
            read = read_damage(home.damage(copy.segment_id, copy.volume_id))
            problems, lost = ([], []) if read is None else (read[0].problems, list(read[1]))
            tape = ledger.volume(copy.volume_id).label
            damaged.append(DamagedCopy(copy.segment_id, tape, copy.verified_at_ns, problems, lost))
    return Verification(len(copies), sum(map(bool, times)), min(times, default=0), damaged)


def view_of(report: SetReport, *, most_lost: int | None = None) -> ReportView:
    """Return the report as JSON shows it, without its troubles; of each damaged copy at most `most_lost` files."""
    backup_set, run = report.backup_set, report.run
    # Before a set is sealed only its run has counted.
    counted = run.content if run is not None and not backup_set.directories else backup_set
    return ReportView(
        set_id=backup_set.set_id,
        number=backup_set.number,
        job=backup_set.job_number,
        name=backup_set.name,
        type=backup_set.type,
        parent=backup_set.parent_id,
        state=backup_set.state,
        error=backup_set.error or (run.error if run is not None else "") or None,
        codec=backup_set.codec,
        level=backup_set.level,
        sources=[_path(source) for source in backup_set.sources],
        begun_at=iso_time(backup_set.started_at_ns),
        files=counted.files,
        directories=counted.directories,
        bytes=counted.bytes,
        troubled_files=backup_set.troubled_files,
        **(_run(run) if run is not None else {}),
        verification=_found(report.verification, run, most_lost),
    )


def _run(run: RunReport) -> dict[str, Any]:
    stages = {"read": run.read, "compress": run.compress, "write": run.write}
    return {
        "runs": run.runs,
        "started_at": iso_time(run.started_at_ns),
        "finished_at": iso_time(run.finished_at_ns),
        "interrupted": run.interrupted,
        "moves": [
            MoveView(drive=move.drive, tape=move.tape or None, reason=move.reason, at=iso_time(move.at_ns))
            for move in run.moves
        ],
        "new_files": run.content.new_files,
        "changed_files": run.content.changed_files,
        "removed_files": run.content.removed_files,
        "read_bytes": run.content.read_bytes,
        "stored_bytes": run.stored_bytes,
        "ratio": None if run.ratio is None else round(run.ratio, 4),
        "segments": run.segments,
        "tapes": run.tapes,
        "stages": {name: _stage(stage) for name, stage in stages.items() if stage is not None},
        "levels": {level: run.levels[level] for level in sorted(run.levels)},
        "drive": run.drive,
        "buffer": run.buffer,
        "troubles": run.troubles,
    }


def streaming_of(home: Home, job: Job) -> Streaming:
    """Return what tells whether the drive streamed when a job's newest set was made. Raises nothing."""
    try:
        run = None if job.set_id is None else read_report(home, job.set_id)
    except (OSError, ValueError) as error:
        log.warning("no report of the run", set=job.set_id, error=str(error))
        run = None
    return Streaming() if run is None else Streaming(drive=run.drive, buffer=run.buffer)


def _stage(stage: Stage) -> StageView:
    return StageView(
        busy_s=round(stage.busy_s, 3),
        waited_s=round(stage.waited_s, 3),
        bytes=stage.bytes,
        bytes_per_s=round(stage.bytes_per_s),
    )


def _found(verification: Verification, run: RunReport | None, most_lost: int | None) -> VerificationView:
    return VerificationView(
        copies=verification.copies,
        verified=verification.verified,
        oldest_at=iso_time(verification.oldest_at_ns),
        seconds=round(run.verify_s, 3) if run is not None else 0.0,
        damaged=[
            DamageView(
                segment_id=copy.segment_id,
                tape=copy.tape,
                verified_at=iso_time(copy.verified_at_ns),
                problems=copy.problems,
                lost_files=len(copy.lost),
                lost=[_path(path) for path in copy.lost[:most_lost]],
            )
            for copy in verification.damaged
        ],
    )


def _path(raw: bytes) -> PathView:
    """Return a path: as text for people, and exactly as `path_b64` when it is not UTF-8."""
    return PathView(**_texts(raw))


def _texts(raw: bytes) -> dict[str, str]:
    if not Path.of(raw).path_b64:
        return {"path": raw.decode()}
    return {"path": raw.decode("utf-8", "replace"), "path_b64": base64.b64encode(raw).decode("ascii")}


def trouble_view(trouble: Trouble) -> TroubleView:
    """Return a trouble as JSON shows it."""
    return TroubleView(**_texts(trouble.raw), reason=trouble.reason)
