"""The part of the ledger's seam that is about tapes; what `catalog.ledger` says holds here, too."""

from __future__ import annotations

from collections.abc import Set
from typing import Protocol

from catalog.ids import SetId, VolumeId
from catalog.life_records import CartridgeLife, MediumFacts, Mounting
from catalog.pool_records import Pool
from catalog.records import (
    BackupSet,
    Volume,
    VolumeEnd,
    VolumeState,
)


class TapeLedger(Protocol):
    """Volumes, pools, the life of cartridges."""

    # -- volumes -----------------------------------------------------------------------------------------------------

    def add_volume(self, volume: Volume) -> None:
        """Record a tape. The same record again is harmless; another one with that label or id raises Conflict."""
        ...

    def volume(self, volume_id: VolumeId) -> Volume:
        """Return one tape. Raises NotFound."""
        ...

    def volume_by_label(self, label: str) -> Volume:
        """Return one tape. Raises NotFound."""
        ...

    def volume_by_code(self, code: str) -> Volume:
        """Return the tape with this barcode, or with this label and no other barcode. Raises NotFound."""
        ...

    def volumes(self) -> list[Volume]:
        """Return all tapes, by label."""
        ...

    def claim_volume(self, volume_id: VolumeId) -> int:
        """Take the tape for writing: count its fencing token up and return it. Older holders then fail to commit."""
        ...

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
        """BLANK becomes APPENDABLE, its label having been written and read back; closes the label's intent.

        `key_fingerprint`: of the key that all its data is encrypted with from now on: `by_drive`, or before it gets
        there.

        Raises StaleClaim, Conflict.
        """
        ...

    def mark_volume(self, volume_id: VolumeId, state: VolumeState, reason: str = "") -> None:
        """Set the state, with the reason for an operator."""
        ...

    def size_volume(self, volume_id: VolumeId, capacity_bytes: int, generation: int) -> None:
        """Record what a drive has told of the cartridge; until then its barcode let us guess."""
        ...

    # -- pools -------------------------------------------------------------------------------------------------------

    def pools(self) -> list[Pool]:
        """Return the pools that were recorded, by name; the one of the settings need not be among them."""
        ...

    def put_pool(self, known: Pool | None, wanted: Pool, now_ns: int) -> Pool:
        """Record a pool, or change one; return it. The same again is harmless.

        `known` is the pool as the caller saw it, None when there was none: Conflict when it is another by now.
        """
        ...

    def delete_pool(self, name: str, now_ns: int) -> None:
        """Forget a pool. Idempotent. Raises Conflict while a tape, a job or another pool names it."""
        ...

    def assign_volume(self, volume_id: VolumeId, pool: str, now_ns: int) -> None:
        """Put a BLANK tape into a pool. Idempotent. Raises NotFound, and Conflict once a label is written to it."""
        ...

    def move_volume(self, volume_id: VolumeId, location: str, now_ns: int) -> None:
        """Note where a tape lies; empty means the library. Idempotent. Raises NotFound."""
        ...

    # -- the life of cartridges --------------------------------------------------------------------------------------

    def note_mounting(self, mounting: Mounting, medium: MediumFacts | None = None) -> None:
        """Record one time that a cartridge was in a drive, as it is by now, and add what is new to its life.

        Idempotent by `mounting_id`: to be called when a tape is threaded, when something fails, and when it leaves.
        `medium` is what its memory says now.
        """
        ...

    def mountings(self, code: str) -> list[Mounting]:
        """Return the mountings of a cartridge that are kept, the newest first."""
        ...

    def mountings_since(self, since_ns: int) -> list[Mounting]:
        """Return what is kept of all mountings that began at that time or later, oldest first."""
        ...

    def life(self, code: str) -> CartridgeLife:
        """Return the life of a cartridge; an empty one when nothing is known of it."""
        ...

    def lives(self) -> list[CartridgeLife]:
        """Return all lives that are known, by code."""
        ...

    def note_erased(self, code: str, now_ns: int) -> None:
        """A cartridge was erased. Idempotent."""
        ...

    def note_used_up(self, code: str, now_ns: int) -> None:
        """A cleaning cartridge does not clean any more. Idempotent."""
        ...

    # -- giving tapes up ---------------------------------------------------------------------------------------------

    def live_sets(self, volume_id: VolumeId) -> list[BackupSet]:
        """Return the sets that have not expired and have anything on the tape, or are about to; by number."""
        ...

    def lost_sets(self, volume_id: VolumeId) -> list[BackupSet]:
        """Return those of them of which no other tape has a whole copy of some segment; by number."""
        ...

    def renew_volume(self, volume_id: VolumeId, claim: int, new: Volume, now_ns: int) -> None:
        """Put the BLANK record `new`, which has an id of its own, in place of a tape's; nothing else changes its id.

        Copies of expired sets on it are forgotten, its intents too. Idempotent. Raises NotFound, StaleClaim; Conflict
        when a live set has anything on it, or when another tape has that label or barcode; ValueError.
        """
        ...

    def identify_volume(self, volume_id: VolumeId, now_ns: int) -> None:
        """Note that somebody has looked what is on it. Idempotent. Raises NotFound."""
        ...

    def settle_volume(self, volume_id: VolumeId, claim: int) -> None:
        """Note that a BLANK tape is blank: its label is to be written over nothing. Idempotent. Raises StaleClaim."""
        ...

    def forget_volume(self, volume_id: VolumeId, claim: int, losing: Set[SetId], now_ns: int) -> None:
        """Forget a tape and all that lies on it; only sets of `losing` may lose their only copy of something.

        Of those COMPLETE ones stay, with what is left of them, and FAILED ones expire. Idempotent. Raises StaleClaim;
        Conflict when another set would lose something, or while one is written to it.
        """
        ...

    def leave_volume(self, set_id: SetId, volume_id: VolumeId, now_ns: int) -> None:
        """A COMPLETE set leaves a tape: its copies and indexes there are forgotten. Idempotent.

        Raises NotFound; Conflict unless each of its segments there has a GOOD copy that was made to replace it and was
        read back, and its indexes there one that replaces them, on tapes that are not SUSPECT.
        """
        ...

    def newest_number(self, stem: str) -> int:
        """Return the highest number behind `stem` that a tape has, or was given by `renew_volume`; 0: none."""
        ...
