"""The part of the ledger's seam that is about sets and where they lie; what `catalog.ledger` says holds here, too."""

from __future__ import annotations

from typing import Protocol

from catalog.ids import InstallationId, JobId, SegmentId, SetId, VolumeId
from catalog.records import (
    Adoption,
    BackupSet,
    CopyState,
    IndexCopy,
    Intent,
    Segment,
    SegmentCopy,
    SetTotals,
    VolumeEnd,
)


class SetLedger(Protocol):
    """Sets, segments, copies, intents, and what was found on tapes."""

    # -- sets --------------------------------------------------------------------------------------------------------

    def begin_set(self, backup_set: BackupSet) -> BackupSet:
        """Record a RUNNING set; its `number` is replaced by the next one, and its job becomes RUNNING with this set.

        Idempotent by `set_id`. Raises Conflict when the job is not QUEUED, or 2**24 sets were made.
        """
        ...

    def backup_set(self, set_id: SetId) -> BackupSet:
        """Return one set. Raises NotFound."""
        ...

    def backup_sets(self) -> list[BackupSet]:
        """Return all sets in whatever state, oldest first."""
        ...

    def readable_sets(self) -> list[BackupSet]:
        """Return the sets that can be read, oldest first: for who only shows them, or brings them to an end."""
        ...

    def sets_of(self, job_id: JobId) -> list[BackupSet]:
        """Return the sets of a job, which may be deleted by now, in whatever state; oldest first."""
        ...

    def seal_set(
        self, set_id: SetId, totals: SetTotals, index: IndexCopy, claim: int, end: VolumeEnd, now_ns: int
    ) -> None:
        """RUNNING becomes SEALED, its SET INDEX being on tape; closes the index's intent and moves the tape's end.

        Idempotent by `index.index_id`. Raises StaleClaim, Conflict.
        """
        ...

    def commit_index(self, index: IndexCopy, claim: int, end: VolumeEnd, now_ns: int) -> None:
        """A SET INDEX is on tape that does not seal its set: record it, close its intent, move the tape's end.

        The set is RUNNING, FAILED, or COMPLETE when it is an index of a further copy.
        Idempotent by `index.index_id`. Raises StaleClaim, Conflict.
        """
        ...

    def complete_set(self, set_id: SetId, now_ns: int) -> None:
        """SEALED becomes COMPLETE, its namespace index being in place, and its job COMPLETED. Idempotent.

        A job that is to be verified is left to `finish_job`: it is not done before its set was read back.
        """
        ...

    def resume_set(self, set_id: SetId, now_ns: int) -> BackupSet:
        """FAILED becomes RUNNING again, and its job, which is QUEUED to resume it, too; its segments stay. Idempotent.

        A set that is SEALED or COMPLETE stays as it is: only its job runs. Raises Conflict.
        """
        ...

    def fail_set(self, set_id: SetId, error: str, now_ns: int) -> None:
        """RUNNING becomes FAILED; the job is left to `finish_job`. Idempotent. Raises Conflict in later states."""
        ...

    def expire_set(self, set_id: SetId, now_ns: int) -> None:
        """COMPLETE or FAILED becomes EXPIRED: nobody shows it or builds on it any more. Idempotent.

        Its segments and their copies stay recorded. Raises Conflict in other states, while a set that has not expired
        has it as `parent_id`, and while its job is queued or runs with it.
        """
        ...

    # -- segments ----------------------------------------------------------------------------------------------------

    def open_intent(self, intent: Intent, claim: int) -> None:
        """Record what is about to be written. Idempotent by `structure_id`. Raises StaleClaim."""
        ...

    def intents(self, volume_id: VolumeId) -> list[Intent]:
        """Return the open intents on a tape, oldest first."""
        ...

    def drop_intent(self, structure_id: str, volume_id: VolumeId) -> None:
        """Forget an intent whose structure is not on that tape, or is torn there. Idempotent.

        What is to be written to other tapes at the same time stays announced there.
        """
        ...

    def commit_segment(self, segment: Segment, copy: SegmentCopy, claim: int, end: VolumeEnd, label: str) -> None:
        """The segment is on tape and synced: record it, close its intent, move the tape's end, name it in the set.

        Idempotent by segment and volume. Raises StaleClaim, Conflict.
        """
        ...

    def segments(self, set_id: SetId) -> list[Segment]:
        """Return the set's committed segments, by number."""
        ...

    def segment(self, segment_id: SegmentId) -> Segment:
        """Return one segment. Raises NotFound."""
        ...

    def copies(self, segment_id: SegmentId) -> list[SegmentCopy]:
        """Return where the segment lies; empty when nowhere."""
        ...

    def copies_on(self, volume_id: VolumeId) -> list[SegmentCopy]:
        """Return what lies on a tape, in tape order."""
        ...

    def mark_copy(
        self, segment_id: SegmentId, volume_id: VolumeId, state: CopyState, now_ns: int, *, wholly: bool = True
    ) -> None:
        """The copy was read back at `now_ns`, and this is what was found. Idempotent. Raises NotFound.

        Not `wholly`: a part of it was read, so it does not count as read back.
        """
        ...

    def damaged_sets(self, *, by_copies: bool = False) -> frozenset[SetId]:
        """Return the sets of which some segment has no good copy, from an index.

        With `by_copies` all copies are read for that: whoever lets something go trusts no index.
        """
        ...

    def index_copies(self, set_id: SetId) -> list[IndexCopy]:
        """Return where the set's SET INDEX structures lie."""
        ...

    # -- what was found on tapes -------------------------------------------------------------------------------------

    def take_identity(self, installation_id: InstallationId) -> None:
        """Have the ledger be that of an installation whose tapes were found. Raises Conflict when it has sets."""
        ...

    def adopt(self, found: Adoption, now_ns: int) -> None:
        """Take in what was found on tapes, all in one transaction; the same again, or more of it, is harmless.

        Jobs and sets keep their numbers where these are free. A record that is there stays, but for these: a set that
        is FAILED and was adopted, or is SEALED now; a tape whose data ends no earlier than it did: its end and state
        are as was found; a BLANK tape of a label that was found; how the runs of a job of ours went on; and tapes that
        were `begun_anew`, which are forgotten as by `forget_volume`. Raises Conflict.
        """
        ...
