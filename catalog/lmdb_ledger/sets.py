"""The operations on sets, from begin to expiry, and their SET INDEX structures.

See `catalog.lmdb_ledger` for threads and durability.
"""

from __future__ import annotations

from catalog.ids import JobId, SetId
from catalog.ledger_store import sets, sets_by_job
from catalog.ledger_store.environment import operation
from catalog.lmdb_ledger.base import LmdbBase
from catalog.records import BackupSet, IndexCopy, SetTotals, VolumeEnd

_BEGIN_SET = operation("begin_set")
_SEAL_SET = operation("seal_set")
_COMMIT_INDEX = operation("commit_index")
_COMPLETE_SET = operation("complete_set")
_FAIL_SET = operation("fail_set")
_EXPIRE_SET = operation("expire_set")
_RESUME_SET = operation("resume_set")


class SetOperations(LmdbBase):
    """See `catalog.ledger.Ledger` for what they do and raise."""

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

    def readable_sets(self) -> list[BackupSet]:
        """Return the sets that can be read, oldest first."""
        return self._read(sets.readable)

    def sets_of(self, job_id: JobId) -> list[BackupSet]:
        """Return the sets of a job in whatever state, oldest first."""
        return self._read(sets_by_job.of_job, job_id)

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
