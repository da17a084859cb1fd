"""What it means for a tape's use what was found on it: blank tapes that are not are left alone. Any thread."""

from __future__ import annotations

from catalog.errors import NotFound
from catalog.ids import VolumeId
from catalog.ledger import Ledger
from catalog.records import IntentKind, Volume, VolumeState
from drivers.interface import DriveStatus
from tapefs.tape.doubts import remedy
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

    One that never was written to, was SUSPECT, and is blank, counts as blank again.
    """
    ledger.identify_volume(volume.volume_id, now_ns)
    capacity_bytes = status.capacity_bytes or volume.capacity_bytes
    generation = status.medium_generation or volume.generation
    if (capacity_bytes, generation) != (volume.capacity_bytes, volume.generation):
        ledger.size_volume(volume.volume_id, capacity_bytes, generation)
    if not is_expected(ledger, volume, found):
        ledger.mark_volume(volume.volume_id, VolumeState.SUSPECT, _reason(ledger, volume, found))
    elif volume.state is VolumeState.SUSPECT and not volume.end_block:
        ledger.mark_volume(volume.volume_id, VolumeState.BLANK)


def _reason(ledger: Ledger, volume: Volume, found: Identity) -> str:
    if found.owner is Owner.NOBODY:
        return "it is blank, but has been written to: is it the right tape?"
    if found.label is not None:
        try:
            other = ledger.volume(VolumeId(found.label.volume))
        except NotFound:
            pass
        else:
            if other.volume_id != volume.volume_id:
                return f"it is {other.label} by what is on it: check the barcodes"
        if found.owner is Owner.OURS:
            return f"it is {found.sentence}, which the catalog does not know: {remedy(volume)} takes it in"
    return f"it is {found.sentence}"


def _is_being_labelled(ledger: Ledger, volume: Volume) -> bool:
    return any(intent.kind is IntentKind.LABEL for intent in ledger.intents(volume.volume_id))
