"""The operations on tapes: records, states, giving them up.

See `catalog.lmdb_ledger` for threads and durability.
"""

from __future__ import annotations

from collections.abc import Set

from catalog.ids import SetId, VolumeId
from catalog.ledger_store import appending, giving_up, leaving, volumes
from catalog.ledger_store.environment import operation
from catalog.lmdb_ledger.base import LmdbBase
from catalog.records import BackupSet, Volume, VolumeEnd, VolumeState

_ADD_VOLUME = operation("add_volume")
_CLAIM_VOLUME = operation("claim_volume")
_LABEL_VOLUME = operation("label_volume")
_MARK_VOLUME = operation("mark_volume")
_SIZE_VOLUME = operation("size_volume")
_RENEW_VOLUME = operation("renew_volume")
_IDENTIFY_VOLUME = operation("identify_volume")
_SETTLE_VOLUME = operation("settle_volume")
_FORGET_VOLUME = operation("forget_volume")
_LEAVE_VOLUME = operation("leave_volume")


class VolumeOperations(LmdbBase):
    """See `catalog.ledger.Ledger` for what they do and raise."""

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
