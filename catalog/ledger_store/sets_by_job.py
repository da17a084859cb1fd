"""The sets of a job: an index, so that nobody reads all sets for those of one job. Functions of a transaction.

A ledger of an earlier version has none until `build` has made it: readers look through all sets then. An earlier
program that is given the ledger in between adds sets without entries; their number gives that away.
"""

from __future__ import annotations

from catalog.errors import Damaged
from catalog.ids import JobId, SetId
from catalog.ledger_store.tables import SETS, SETS_BY_JOB, parts, set_by_job_key, text_key
from catalog.ledger_store.transaction import Reader, Writer
from catalog.records import BackupSet


def link(tx: Writer, backup_set: BackupSet, known: BackupSet | None = None) -> None:
    """Note which job a new set is of, or one that is stored in place of `known`."""
    if known is not None and known.job_id != backup_set.job_id:
        tx.delete(SETS_BY_JOB, set_by_job_key(known.job_id, known.number))
    tx.put(SETS_BY_JOB, set_by_job_key(backup_set.job_id, backup_set.number), backup_set.set_id)


def build(tx: Writer) -> None:
    """Make the index of a ledger whose sets were stored without. Raises Damaged."""
    for key in list(tx.keys(SETS_BY_JOB)):
        tx.delete(SETS_BY_JOB, key)
    for _, backup_set in list(tx.scan(SETS)):
        link(tx, backup_set)


def is_built(tx: Reader) -> bool:
    """Has every set its entry?"""
    return tx.count(SETS) == tx.count(SETS_BY_JOB)


def of_job(tx: Reader, job_id: JobId) -> list[BackupSet]:
    """Return the job's sets in whatever state, oldest first. Raises Damaged."""
    if not is_built(tx):
        found = [backup_set for _, backup_set in tx.scan(SETS) if backup_set.job_id == job_id]
        return sorted(found, key=lambda backup_set: backup_set.number)
    return [_follow(tx, job_id, SetId(set_id)) for _, set_id in tx.scan(SETS_BY_JOB, parts(job_id))]


def _follow(tx: Reader, job_id: JobId, set_id: SetId) -> BackupSet:
    backup_set = tx.follow(SETS, text_key(set_id), f"sets_by_job {job_id}")
    if backup_set.job_id != job_id:
        raise Damaged(f"set {set_id} is of job {backup_set.job_id}", f"sets_by_job {job_id}")
    return backup_set
