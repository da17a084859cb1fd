"""Where copies of segments lie, for who wants to read them: which first, and what to tell people when none will do.

One trio run, that of the library; nothing is kept.
"""

from __future__ import annotations

from catalog.errors import NotFound
from catalog.ids import SegmentId, VolumeId
from catalog.ledger import Ledger
from catalog.records import CopyState, SegmentCopy, Volume, VolumeState
from drivers.interface import ElementKind
from sidecar.recalls.wanted import Place
from sidecar.tapes.library import Library
from tapefs.staging.worth import MOUNT_S, Tape


class Whereabouts:
    """Knows the ledger's copies and what the library holds."""

    def __init__(self, ledger: Ledger, library: Library) -> None:
        self._ledger = ledger
        self._library = library

    def places(self, segment_id: SegmentId) -> list[Place]:
        """Return the copies that are here, best first: in a drive, in a slot; damaged ones and those on doubtful tapes
        last. Raises NotFound for an unknown segment."""
        frames = self._ledger.segment(segment_id).frames
        places = [_place(copy, frames) for copy in sorted(self._ledger.copies(segment_id), key=self._rank)]
        return [place for place in places if self._library.is_here(place.volume_id)]

    def is_away(self, segment_id: SegmentId) -> bool:
        """Are there copies of the segment, but none of them here?"""
        copies = self._ledger.copies(segment_id)
        return bool(copies) and not any(self._library.is_here(copy.volume_id) for copy in copies)

    def is_whole_elsewhere(self, segment_id: SegmentId) -> bool:
        """Is a copy that is not known to be damaged on a tape that is not here?"""
        return any(
            copy.state is CopyState.GOOD and not self._library.is_here(copy.volume_id)
            for copy in self._ledger.copies(segment_id)
        )

    def why_nowhere(self, segment_id: SegmentId) -> tuple[str, str]:
        """Say why a segment has no places: a word for programs, a sentence for people."""
        volumes = sorted(
            (self._ledger.volume(copy.volume_id) for copy in self._ledger.copies(segment_id)),
            key=lambda volume: volume.label,
        )
        if not volumes:
            return "no_copy", f"segment {segment_id} is on no tape that the catalog knows"
        if len(volumes) == 1 and not volumes[0].location:
            return "offline", self._library.missing(volumes[0])
        return "offline", f"tape {' or '.join(map(_where, volumes))} is not in the library: put it in"

    def nearest(self, segment_id: SegmentId) -> Tape:
        """Return how far its nearest copy is from a drive."""
        places = [
            self._library.place_of(self._ledger.volume(c.volume_id).code) for c in self._ledger.copies(segment_id)
        ]
        kinds = {place.kind for place in places if place is not None}
        if not kinds:
            return Tape(None)
        return Tape(0.0 if ElementKind.DRIVE in kinds else MOUNT_S)

    def told_of_all(self, message: str, volume_id: VolumeId, segment_id: SegmentId) -> str:
        """Say of a tape what was wrong with it, when no other has helped; and which could, were they here."""
        told = f"tape {self._label(volume_id)}: {message}"
        others = [
            self._ledger.volume(copy.volume_id)
            for copy in self._ledger.copies(segment_id)
            if copy.volume_id != volume_id
        ]
        here = [volume.label for volume in others if self._library.is_here(volume.volume_id)]
        absent = [_where(volume) for volume in others if not self._library.is_here(volume.volume_id)]
        if here:
            told += f"; nor could it be had from {' and '.join(here)}"
        if absent:
            told += f"; another copy is on {' and '.join(absent)}: put it in"
        return told

    def _label(self, volume_id: VolumeId) -> str:
        try:
            return self._ledger.volume(volume_id).label
        except NotFound:
            return volume_id  # It was given up meanwhile.

    def _rank(self, copy: SegmentCopy) -> tuple[bool, bool]:
        volume = self._ledger.volume(copy.volume_id)
        place = self._library.place_of(volume.code)
        is_doubtful = volume.state is VolumeState.SUSPECT or copy.state is CopyState.DAMAGED
        return is_doubtful, place is None or place.kind is not ElementKind.DRIVE


def _where(volume: Volume) -> str:
    return f"{volume.label} (at {volume.location})" if volume.location else volume.label


def _place(copy: SegmentCopy, frames: int) -> Place:
    return Place(copy.volume_id, copy.payload_block, copy.trailer_block - copy.payload_block, max(frames, 1))
