"""How the report of a run ends: with what the ledger knows, also when the run was killed.

Blocking; one writer for a set.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from catalog.errors import CatalogError
from catalog.ids import SetId
from catalog.ledger import Ledger
from catalog.records import BackupSet, Segment, SetState
from tapefs.home import Home
from tapefs.report.files import read_report, read_troubles, write_report
from tapefs.report.records import RunReport, TapeUse

log = structlog.get_logger(__name__)


def ended(report: RunReport, ledger: Ledger, error: str, now_ns: int) -> RunReport:
    """Return the report with its end, and what is on tape. Raises catalog errors."""
    backup_set = ledger.backup_set(report.set_id)
    content = report.content
    if backup_set.state in (SetState.SEALED, SetState.COMPLETE):
        content = msgspec.structs.replace(
            content, files=backup_set.files, directories=backup_set.directories, bytes=backup_set.bytes
        )
    segments = ledger.segments(report.set_id)
    return msgspec.structs.replace(
        report,
        content=content,
        finished_at_ns=now_ns,
        error=error,
        segments=len(segments),
        stored_bytes=sum(segment.stored_bytes for segment in segments),
        tapes=_tapes(ledger, backup_set, segments),
    )


def end_interrupted(home: Home, ledger: Ledger, set_id: SetId, error: str, now_ns: int) -> None:
    """Complete the report of a run whose process is gone; one that is complete stays as it is. Raises nothing.

    What only the process knew is missing: stages, what the drive did, and what is new if the set was not sealed.
    """
    try:
        report = read_report(home, set_id)
        if report is None or report.finished_at_ns:
            return
        report = msgspec.structs.replace(report, interrupted=True, troubles=sum(1 for _ in read_troubles(home, set_id)))
        write_report(home, ended(report, ledger, error, now_ns))
    except (OSError, ValueError, CatalogError) as failure:
        log.warning("the report of the interrupted run stays as it began", set=set_id, error=str(failure))


def _tapes(ledger: Ledger, backup_set: BackupSet, segments: Sequence[Segment]) -> list[TapeUse]:
    uses: dict[str, list[int]] = {label: [] for label in backup_set.tapes}
    for segment in segments:
        for copy in ledger.copies(segment.segment_id):
            uses.setdefault(ledger.volume(copy.volume_id).label, []).append(segment.stored_bytes)
    return [TapeUse(tape=tape, segments=len(sizes), stored_bytes=sum(sizes)) for tape, sizes in uses.items()]
