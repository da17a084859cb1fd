"""What it means for a tape's use what was found on it: blank tapes that are not are left alone. Any thread."""

from __future__ import annotations

from catalog.errors import NotFound
from catalog.ids import VolumeId
from catalog.ledger import Ledger
from catalog.records import IntentKind, Volume, VolumeState
from drivers.interface import DriveStatus
from tapefs.tape.doubts import CHECK_BARCODES, is_of_ledger, is_of_place, remedy
from tapefs.tape.identity import Identity, Owner
from tapefs.tape.label import is_given_up


def is_expected(ledger: Ledger, volume: Volume, found: Identity) -> bool:
    """Is on the tape what the ledger says?"""
    if found.label is not None and found.label.volume == volume.volume_id:
        return bool(volume.end_block) or _is_being_labelled(ledger, volume)
    if found.owner is Owner.NOBODY:
        return not volume.end_block
    if is_given_up(volume, found.mark):
        return True
    return found.format == "tapefs" and found.label is None and _is_being_labelled(ledger, volume)


def note_found(ledger: Ledger, volume: Volume, status: DriveStatus, found: Identity, now_ns: int) -> None:
    """Record what the drive tells of the cartridge; a tape that is not what it should be becomes SUSPECT.

    One that never was written to, was SUSPECT, and is blank, counts as blank again; one that was SUSPECT because
    another was found in its place, and is there now, may be written to again: that makes sure of its end.
    """
    ledger.identify_volume(volume.volume_id, now_ns)
    capacity_bytes = status.capacity_bytes or volume.capacity_bytes
    generation = status.medium_generation or volume.generation
    if (capacity_bytes, generation) != (volume.capacity_bytes, volume.generation):
        ledger.size_volume(volume.volume_id, capacity_bytes, generation)
    if not is_expected(ledger, volume, found):
        if not _is_bad(volume):
            ledger.mark_volume(volume.volume_id, VolumeState.SUSPECT, _reason(ledger, volume, found))
    elif volume.state is VolumeState.SUSPECT and not volume.end_block:
        ledger.mark_volume(volume.volume_id, VolumeState.BLANK)
    elif volume.state is VolumeState.SUSPECT and is_of_place(volume.reason):
        ledger.mark_volume(volume.volume_id, VolumeState.APPENDABLE)


def _is_bad(volume: Volume) -> bool:
    """Is the tape SUSPECT for a reason that does not end when the right one is found in its place?"""
    reason = volume.reason
    is_suspect = volume.state is VolumeState.SUSPECT and bool(volume.end_block)
    return is_suspect and not is_of_place(reason) and not is_of_ledger(reason)


def _reason(ledger: Ledger, volume: Volume, found: Identity) -> str:
    if found.owner is Owner.NOBODY:
        return f"it is blank, but has been written to: {CHECK_BARCODES}"
    if found.label is not None:
        try:
            other = ledger.volume(VolumeId(found.label.volume))
        except NotFound:
            pass
        else:
            if other.volume_id != volume.volume_id:
                return f"it is {other.label} by what is on it: {CHECK_BARCODES}"
        if found.owner is Owner.OURS:
            return f"it is {found.sentence}, which the catalog does not know: {remedy(volume)} takes it in"
    return f"it is {found.sentence}{f': {CHECK_BARCODES}' if volume.end_block else ''}"


def _is_being_labelled(ledger: Ledger, volume: Volume) -> bool:
    return any(intent.kind is IntentKind.LABEL for intent in ledger.intents(volume.volume_id))
