"""What still lives on tapes, and which of them may be reclaimed. Blocking; reads the ledger, any thread."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from catalog.ids import VolumeId
from catalog.ledger import Ledger
from catalog.pool_records import Pool, RetentionKind
from catalog.records import BackupSet, SegmentCopy, SetState, Volume, VolumeState
from tapefs.errors import NotNow
from tapefs.retention.holds import begun_at_ns
from tapefs.retention.living import called
from tapefs.retention.reuse import is_worm_barcode


@dataclass(frozen=True, slots=True)
class Living:
    """What of a tape still lives."""

    volume: Volume
    #: Those that can be moved, by number, and those that cannot.
    sets: tuple[BackupSet, ...]
    staying: tuple[BackupSet, ...]
    #: Copies of their segments on the tape, and the bytes of their payloads.
    segments: int
    payload_bytes: int
    largest_bytes: int
    #: Why nothing is copied off it; empty: it may be reclaimed.
    obstacle: str

    @property
    def percent(self) -> float:
        """How much of what was written to it still lives."""
        return 100 * self.payload_bytes / self.volume.used_bytes if self.volume.used_bytes else 0.0


def living_on(ledger: Ledger, volume: Volume) -> Living:
    """Return what lives on a tape."""
    live = ledger.live_sets(volume.volume_id)
    ids = {each.set_id for each in live}
    segments = [ledger.segment(copy.segment_id) for copy in ledger.copies_on(volume.volume_id)]
    sizes = [segment.stored_bytes for segment in segments if segment.set_id in ids]
    movable = tuple(each for each in live if each.state is SetState.COMPLETE)
    staying = tuple(each for each in live if each.state is not SetState.COMPLETE)
    return Living(
        volume=volume,
        sets=movable,
        staying=staying,
        segments=len(sizes),
        payload_bytes=sum(sizes),
        largest_bytes=max(sizes, default=0),
        obstacle=_obstacle(volume, movable, staying),
    )


def require_movable(ledger: Ledger, volume: Volume) -> Living:
    """Return what lives on a tape. Raises NotNow when nothing can be copied off it."""
    living = living_on(ledger, volume)
    if living.obstacle:
        raise NotNow(f"tape {volume.label} is not reclaimed: {living.obstacle}")
    return living


def almost_empty(ledger: Ledger, volumes: Iterable[Volume], pool: str, below_percent: float) -> list[Living]:
    """Return the tapes of a pool of which something, but less than that much lives, the emptiest first."""
    found = [living_on(ledger, each) for each in volumes if each.pool == pool and each.state is not VolumeState.BLANK]
    worth = [each for each in found if not each.obstacle and each.percent < below_percent]
    return sorted(worth, key=lambda each: (each.percent, each.volume.label))


def places_of(ledger: Ledger, backup_set: BackupSet, volume_id: VolumeId) -> list[SegmentCopy]:
    """Return where the set's segments lie on the tape, in tape order."""
    copies = (copy for each in ledger.segments(backup_set.set_id) for copy in ledger.copies(each.segment_id))
    return sorted((copy for copy in copies if copy.volume_id == volume_id), key=lambda copy: copy.header_block)


def not_onto(ledger: Ledger, pool: Pool, volume: Volume) -> set[VolumeId]:
    """Return tapes on which sets of this one would not stay as long as their pool has promised.

    Where a set's end depends on when its tape was begun, it may only go to one that was begun later.
    """
    if pool.retention.kind is not RetentionKind.TAPE_MONTHS:
        return set()
    begun_ns = begun_at_ns(ledger, volume)
    begun = (each for each in ledger.volumes() if each.pool == pool.name and each.state is not VolumeState.BLANK)
    return {each.volume_id for each in begun if begun_at_ns(ledger, each) < begun_ns}


def _obstacle(volume: Volume, movable: Collection[BackupSet], staying: Collection[BackupSet]) -> str:
    if volume.foreign:
        return f"what lies on it are archives of {volume.foreign.upper()}: they stay where they are"
    if is_worm_barcode(volume.code):
        return "it is WORM: it could never be begun anew"
    if volume.location:
        return f"it lies in {volume.location}; say `tapefs tape move {volume.label} library` when it is back"
    if volume.state is VolumeState.BLANK:
        return "it is blank"
    if movable:
        return ""
    if staying:
        return f"only what is not complete lives on it: {named(staying)}"
    return "nothing lives on it any more: its pool begins it anew, or you relabel it"


def named(sets: Iterable[BackupSet]) -> str:
    """Name sets with their states."""
    return ", ".join(f"{called(each)} is {each.state.value}" for each in sets)
