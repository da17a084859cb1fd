"""The operations on segments: intents, commits, copies; and what was found on tapes.

See `catalog.lmdb_ledger` for threads and durability.
"""

from __future__ import annotations

from catalog.ids import InstallationId, SegmentId, SetId, VolumeId
from catalog.ledger_store import adopting, appending, damaged_segments, segments, sets
from catalog.ledger_store.environment import operation
from catalog.lmdb_ledger.base import LmdbBase
from catalog.records import Adoption, CopyState, IndexCopy, Intent, Segment, SegmentCopy, VolumeEnd

_OPEN_INTENT = operation("open_intent")
_DROP_INTENT = operation("drop_intent")
_COMMIT_SEGMENT = operation("commit_segment")
_MARK_COPY = operation("mark_copy")
_TAKE_IDENTITY = operation("take_identity")
_ADOPT = operation("adopt")


class SegmentOperations(LmdbBase):
    """See `catalog.ledger.Ledger` for what they do and raise."""

    def open_intent(self, intent: Intent, claim: int) -> None:
        """Record what is about to be written. Idempotent by structure and tape.

        Raises NotFound, StaleClaim; Conflict when the tape's state forbids it, or committed data would be overwritten.
        """
        self._write(_OPEN_INTENT, appending.open_intent, intent, claim)

    def intents(self, volume_id: VolumeId) -> list[Intent]:
        """Return the open intents on a tape, oldest first."""
        return self._read(appending.intents_on, volume_id)

    def drop_intent(self, structure_id: str, volume_id: VolumeId) -> None:
        """Forget the structure's open intent on a tape. Idempotent."""
        self._write(_DROP_INTENT, appending.drop_intent, structure_id, volume_id)

    def commit_segment(self, segment: Segment, copy: SegmentCopy, claim: int, end: VolumeEnd, label: str) -> None:
        """Record a segment that is on tape and synced. Idempotent by segment and tape.

        A segment of a FAILED set is accepted (an adopted one); the set stays FAILED.
        Raises NotFound, StaleClaim, Conflict, ValueError.
        """
        self._write(_COMMIT_SEGMENT, segments.commit, segment, copy, claim, end, label)

    def segments(self, set_id: SetId) -> list[Segment]:
        """Return the set's committed segments, by number."""
        return self._read(segments.of_set, set_id)

    def segment(self, segment_id: SegmentId) -> Segment:
        """Return one segment. Raises NotFound."""
        return self._read(segments.get, segment_id)

    def copies(self, segment_id: SegmentId) -> list[SegmentCopy]:
        """Return where the segment lies; empty when nowhere."""
        return self._read(segments.copies, segment_id)

    def copies_on(self, volume_id: VolumeId) -> list[SegmentCopy]:
        """Return what lies on a tape, in tape order."""
        return self._read(segments.copies_on, volume_id)

    def mark_copy(
        self, segment_id: SegmentId, volume_id: VolumeId, state: CopyState, now_ns: int, *, wholly: bool = True
    ) -> None:
        """Record what reading a copy has found. Idempotent. Raises NotFound."""
        self._write(_MARK_COPY, segments.mark_copy, segment_id, volume_id, state, now_ns, wholly=wholly)

    def damaged_sets(self, *, by_copies: bool = False) -> frozenset[SetId]:
        """Return the sets of which some segment has no good copy; with `by_copies` all copies are read for that."""
        return self._read(damaged_segments.their_sets, by_copies=by_copies)

    def index_copies(self, set_id: SetId) -> list[IndexCopy]:
        """Return where the set's SET INDEX structures lie, by tape and block."""
        return self._read(sets.index_copies, set_id)

    def take_identity(self, installation_id: InstallationId) -> None:
        """Be that installation's. Raises Conflict when there are sets."""
        self._write(_TAKE_IDENTITY, adopting.take_identity, installation_id)

    def adopt(self, found: Adoption, now_ns: int) -> None:
        """Take in what was found on tapes. Idempotent. Raises Conflict."""
        self._write(_ADOPT, adopting.adopt, found, now_ns)
