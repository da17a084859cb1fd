"""Getting a tape ready to be appended to: label, claim, and proof that it ends where the ledger says.

At append, the end of data must be where the last committed structure ends. If one torn or uncommitted structure follows
and open intents announced it there, it is overwritten: nothing in it was ever reported done. Anything else stops with
LedgerMismatch, and the caller marks the tape SUSPECT: nothing is written to a tape that is not understood. Runs in the
drive's thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from catalog.crash import crash_point
from catalog.ids import VolumeId
from catalog.ledger import Ledger
from catalog.records import IntentKind, Volume, VolumeEnd, VolumeState
from drivers.errors import EndOfData, WriteProtected
from drivers.interface import BlockNo, Drive, DriveKey, DriveStatus
from tapefs.errors import BadStructure, LedgerMismatch, WrongTape
from tapefs.format.identify import is_ours
from tapefs.format.lines import read_lines
from tapefs.format.records import IndexHead, IndexLine
from tapefs.format.structures import read_header
from tapefs.keys.age import Header, is_age, parse
from tapefs.keys.driving import read_with, take_key
from tapefs.keys.identity import Recipient
from tapefs.keys.policy import TapeKeys
from tapefs.tape.blocks import BlockReader
from tapefs.tape.doubts import remedy, unknown_data
from tapefs.tape.label import check_label, write_label

#: Filemarks that a structure has at most.
_FILEMARKS = {IntentKind.LABEL: 2, IntentKind.SEGMENT: 3, IntentKind.INDEX: 1}

_before_overwrite = crash_point("tape.overwrite.before")


@dataclass(slots=True)
class OpenTape:
    """A tape in the drive that may be appended to; the head stands at `end`."""

    volume: Volume
    #: Fencing token of this writer.
    claim: int
    end: VolumeEnd
    #: What is written to it is encrypted for this one before it goes to the drive; None: it is not.
    recipient: Recipient | None = None
    #: The drive encrypts with it all but LABELs and HEADERs; None: it does not.
    drive_key: DriveKey | None = None

    @property
    def payload_key(self) -> str:
        """Fingerprint of the key that payloads are encrypted with as they come to the drive; empty: they are not."""
        return "" if self.volume.by_drive else self.volume.key_fingerprint


def open_for_append(drive: Drive, ledger: Ledger, volume_id: VolumeId, now_ns: int, keys: TapeKeys) -> OpenTape:
    """Take the threaded tape for writing and stand at its end. A blank one is labelled, with the key `keys` has for it.

    Raises WrongTape, NotBlank, LedgerMismatch, WriteProtected, KeyUnfit, and what drive and ledger raise.
    """
    volume = ledger.volume(volume_id)
    status = drive.status()
    if status.write_protected:
        raise WriteProtected(f"tape {volume.label} is write-protected: move its tab, or use another tape")
    if status.barcode not in (None, volume.code):
        raise WrongTape(f"the tape in the drive has barcode {status.barcode}, not {volume.code}: check the library")
    claim = ledger.claim_volume(volume_id)
    if volume.state is VolumeState.BLANK:
        volume = keys.given(_as_told(ledger, volume, status))
        recipient, drive_key = keys.recipient(volume), keys.drive_key(volume)
        if drive_key is not None:
            read_with(drive, drive_key, volume.label)  # Not every tape can be encrypted: before it has a label.
        return OpenTape(volume, claim, write_label(drive, ledger, volume, claim, now_ns), recipient, drive_key)
    recipient, drive_key = keys.recipient(volume), keys.drive_key(volume)
    check_label(drive, volume)
    if drive_key is None:
        take_key(drive)
    else:
        read_with(drive, drive_key, volume.label)
    volume = _as_told(ledger, volume, status)
    end = VolumeEnd(block=volume.end_block, file=volume.end_file, used_bytes=volume.used_bytes)
    found = require_announced(drive, ledger, volume)
    if found < volume.end_block:
        raise LedgerMismatch(
            f"tape {volume.label} ends at block {found}, but the ledger knows data up to block "
            f"{volume.end_block}: data is missing; do not use it, and verify its sets"
        )
    if found == volume.end_block:
        for intent in ledger.intents(volume_id):
            ledger.drop_intent(intent.structure_id, volume_id)
    # Else what they announced is on the tape until somebody overwrites it, and his commit closes them.
    return OpenTape(volume, claim, end, recipient, drive_key)


def require_announced(drive: Drive, ledger: Ledger, volume: Volume) -> int:
    """Return the block at which the tape ends. Behind what is committed there may only be what open intents announced.

    In that case the head stands where it begins. Raises LedgerMismatch, drive errors.
    """
    drive.seek_end()
    found = drive.position().block
    if found > volume.end_block:
        _give_up_uncommitted(drive, ledger, volume)
    return found


def _as_told(ledger: Ledger, volume: Volume, status: DriveStatus) -> Volume:
    """Record what the drive tells of the cartridge, where it tells anything; a barcode only let us guess."""
    capacity_bytes = status.capacity_bytes or volume.capacity_bytes
    generation = status.medium_generation or volume.generation
    if (capacity_bytes, generation) == (volume.capacity_bytes, volume.generation):
        return volume
    ledger.size_volume(volume.volume_id, capacity_bytes, generation)
    return ledger.volume(volume.volume_id)


def _give_up_uncommitted(drive: Drive, ledger: Ledger, volume: Volume) -> None:
    """Stand where the one announced structure begins, to overwrite it; LedgerMismatch when it is anything else."""
    filemarks = drive.position().file - volume.end_file
    # Two where a segment was given up at the end of the tape and the SET INDEX was to take its place.
    announced = {i.structure_id: i.kind for i in ledger.intents(volume.volume_id) if i.block == volume.end_block}
    if not announced or filemarks > max(_FILEMARKS[kind] for kind in announced.values()):
        raise LedgerMismatch(unknown_data(volume))
    drive.locate(BlockNo(volume.end_block))
    if _identity(drive, volume) not in (None, *announced):
        raise LedgerMismatch(
            f"tape {volume.label} has another structure at block {volume.end_block} than the one begun there: "
            f"{remedy(volume)} takes it in if it is whole; nothing is written to it meanwhile"
        )
    _before_overwrite()
    drive.locate(BlockNo(volume.end_block))


def _identity(drive: Drive, volume: Volume) -> str | None:
    """Return the uuid of the structure that begins here; None when not even its first block is whole."""
    try:
        block = bytes(BlockReader(drive, volume.block_size).read())
        if is_age(block):
            return _uuid_of(parse(block))
        return read_header(block).segment if is_ours(block) else _index_of(block)
    except EndOfData:
        return None
    except BadStructure as error:
        raise LedgerMismatch(
            f"tape {volume.label} has something at block {volume.end_block} that is not ours ({error}): "
            "use another tape"
        ) from error


def _uuid_of(header: Header) -> str:
    """Return the uuid of an encrypted SET INDEX: that is told without the key. Raises BadStructure."""
    if header.clear is None or header.clear.what != "index":
        raise BadStructure("something encrypted that is no SET INDEX")
    return header.clear.uuid


def _index_of(first_block: bytes) -> str:
    """Return the uuid of the SET INDEX that begins with this block. Raises BadStructure."""
    head = next(read_lines([first_block], IndexLine), None)
    if not isinstance(head, IndexHead):
        raise BadStructure("a SET INDEX without its first line")
    return head.index
