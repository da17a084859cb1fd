"""What the catalog knows of a job and a set besides what the format names: it goes to tape for a rebuilt catalog.

The keys are the fields of the catalog's records; what has its default is left out. So a field that is new goes along by
itself, and one that a later version does not know any more is ignored. Pure, but for the look at the job.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from catalog.errors import NotFound
from catalog.ids import JobNumber
from catalog.ledger import Ledger
from catalog.records import BackupSet, Job

R = TypeVar("R", bound=msgspec.Struct)

#: Of a job: what the index says itself, and what became of its runs.
_JOB_SAID = frozenset(
    {"number", "job_id", "name", "sources", "state", "runs", "set_id", "run_type", "resume", "error"}
    | {"queued_at_ns", "started_at_ns", "finished_at_ns"}
)
#: Of a set: what the index says itself, and what only the catalog that has it can know.
_SET_SAID = frozenset(
    {"set_id", "number", "job_id", "job_number", "name", "type", "level", "sources", "state", "started_at_ns"}
    | {"finished_at_ns", "parent_id", "files", "directories", "bytes", "stored_bytes", "troubled_files", "segments"}
    | {"tapes", "error", "is_adopted", "is_imported", "foreign_name", "partial"}
)


def job_settings(ledger: Ledger, number: JobNumber) -> dict[str, object]:
    """Return what a job is asked for; nothing when it was deleted meanwhile. Raises catalog errors."""
    try:
        job = ledger.job(number)
    except NotFound:
        return {}
    return _said(job, _JOB_SAID)


def set_settings(backup_set: BackupSet) -> dict[str, object]:
    """Return what is known of a set."""
    return _said(backup_set, _SET_SAID)


def job_with(settings: dict[str, object], job: Job) -> Job | None:
    """Return the job with what `job_settings` said; None when that makes no job."""
    return _with(settings, job, _JOB_SAID)


def set_with(settings: dict[str, object], backup_set: BackupSet) -> BackupSet | None:
    """Return the set with what `set_settings` said; None when that makes no set."""
    return _with(settings, backup_set, _SET_SAID)


def _said(record: msgspec.Struct, others: frozenset[str]) -> dict[str, object]:
    builtins: dict[str, object] = msgspec.to_builtins(record)
    defaults = {field.name: field.default for field in msgspec.structs.fields(record)}
    return {
        name: value
        for name, value in builtins.items()
        if name not in others and getattr(record, name) != defaults[name]
    }


def _with(settings: dict[str, object], record: R, others: frozenset[str]) -> R | None:
    known = {name: value for name, value in settings.items() if name not in others}
    try:
        return msgspec.convert({**msgspec.to_builtins(record), **known}, type(record))
    except msgspec.ValidationError:
        return None
