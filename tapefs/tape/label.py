"""Whose tape is in the drive: reading, checking and writing labels. Runs in the drive's thread."""

from __future__ import annotations

from catalog.crash import crash_point
from catalog.ids import BlockNo, FileNo, VolumeId
from catalog.ledger import Ledger
from catalog.records import Intent, IntentKind, Volume, VolumeEnd, VolumeState
from drivers.errors import EndOfData
from drivers.interface import Drive, HoldsFiles
from tapefs import __version__
from tapefs.errors import BadStructure, LedgerMismatch, NotBlank, WrongTape
from tapefs.format.records import DRIVE, DRIVE_ALGORITHM, Label, SetLabel
from tapefs.format.structures import label_block, read_label, set_label_block
from tapefs.keys.driving import take_key
from tapefs.taf.identity import volume_id_of
from tapefs.tape.blocks import BlockReader
from tapefs.tape.doubts import CHECK_BARCODES, remedy
from tapefs.tape.identity import UNREADABLE, first_mark

_before_label = crash_point("tape.label.before")
_after_label = crash_point("tape.label.after")
_after_label_sync = crash_point("tape.label.sync.after")


def check_label(drive: Drive, volume: Volume) -> None:
    """Rewind and make sure that the loaded tape is `volume`. Raises WrongTape, NotBlank, BadStructure, drive errors."""
    if volume.foreign:
        _check_foreign(drive, volume)
        return
    try:
        label = _label_or_none(drive, volume)
    except NotBlank as error:
        raise NotBlank(f"{error}; {CHECK_BARCODES}: this should be tape {volume.label}") from error
    if label is None:
        raise WrongTape(
            f"the tape in the drive is blank, but {volume.label} has been written to: put it in, or {CHECK_BARCODES}"
        )
    if label.volume != volume.volume_id:
        raise WrongTape(
            f"the tape in the drive says it is {label.label} ({label.volume}), not {volume.label} "
            f"({volume.volume_id}): {CHECK_BARCODES}; if it was begun anew and the catalog is an old copy, "
            f"{remedy(volume)} takes it in"
        )


def _check_foreign(drive: Drive, volume: Volume) -> None:
    """Make sure that the medium is the one on which another program has its files; nothing of ours is on it."""
    if not isinstance(drive, HoldsFiles):
        raise WrongTape(
            f"tape {volume.label} holds files of another program, which this drive cannot read: mount it, and see "
            "`tapefs taf --help`"
        )
    found = drive.medium_id()
    barcode = drive.status().barcode
    is_it = volume_id_of(found) == volume.volume_id if found else barcode == volume.code
    if not is_it:
        raise WrongTape(f"the volume in the drive is {barcode} ({found}), not {volume.label} ({volume.volume_id})")


def name_for_people(drive: Drive, ledger: Ledger, volume: Volume) -> str | None:
    """Return by what name people know the loaded tape: that of `volume` only if it is that one.

    That is its code. None is a blank tape that may be `volume`, because that has never been written to. Rewinds.
    Raises drive errors.
    """
    barcode = drive.status().barcode
    if volume.foreign:
        return _foreign_name(drive, volume)
    if volume.overwrites and is_given_up(volume, first_mark(drive)):
        return volume.code
    try:
        label = _label_or_none(drive, volume)
    except NotBlank:
        return "a tape that somebody else has written"
    except BadStructure:
        return None if _was_labelling(ledger, volume.volume_id) else "a tape that somebody else has written"
    if label is None:
        if barcode not in (None, volume.code):
            return barcode
        return None if volume.state is VolumeState.BLANK else "a blank tape"
    if label.volume == volume.volume_id:
        return volume.code
    return label.label if label.label != volume.label else f"another tape with the label {label.label}"


def _foreign_name(drive: Drive, volume: Volume) -> str:
    try:
        _check_foreign(drive, volume)
    except WrongTape:
        return drive.status().barcode or "another tape"
    return volume.code


def is_given_up(volume: Volume, mark: str) -> bool:
    """May what bears this mark be overwritten with the tape's label? Unreadable tapes are too much alike for that."""
    return bool(volume.overwrites) and volume.overwrites == mark != UNREADABLE


def write_label(
    drive: Drive, ledger: Ledger, volume: Volume, claim: int, now_ns: int, *, may_go: str = ""
) -> VolumeEnd:
    """Label a blank tape and read the label back. Raises NotBlank and writes nothing when there is something on it.

    A label of this very volume, left by a crash while labelling, is written once more; what was given up is written
    over, if it is just what `volume.overwrites` says; an unreadable tape only with `may_go`, the mark of what was
    looked at now. `volume.key_fingerprint` is that of the key it is to have.
    """
    label = Label(
        volume=volume.volume_id,
        installation=volume.installation_id,
        label=volume.label,
        pool=volume.pool,
        created_ns=now_ns,
        block_size=volume.block_size,
        software=f"tapefs {__version__}",
    )
    _require_blank(drive, ledger, volume, may_go)
    intent = Intent(
        structure_id=volume.volume_id,
        kind=IntentKind.LABEL,
        volume_id=volume.volume_id,
        block=BlockNo(0),
        set_id=None,
        opened_at_ns=now_ns,
    )
    ledger.open_intent(intent, claim)
    set_label = SetLabel(
        volume=volume.volume_id,
        volume_set=volume.volume_id,
        sequence=1,
        encryption=DRIVE if volume.by_drive else None,
        algorithm=DRIVE_ALGORITHM if volume.by_drive else None,
        key_fingerprint=volume.key_fingerprint or None,
    )
    blocks = [label_block(label), set_label_block(set_label)]
    take_key(drive)  # Labels are read without one.
    _before_label()
    drive.rewind()
    drive.write_block(blocks[0])
    drive.write_filemarks(1, sync=False)
    _after_label()
    drive.write_block(blocks[1])
    drive.write_filemarks(1, sync=True)
    _after_label_sync()
    position = drive.position()
    check_label(drive, volume)
    end = VolumeEnd(block=BlockNo(position.block), file=FileNo(position.file), used_bytes=sum(map(len, blocks)))
    ledger.label_volume(volume.volume_id, claim, end, now_ns, volume.key_fingerprint, by_drive=volume.by_drive)
    drive.locate(position.block)
    return end


def _require_blank(drive: Drive, ledger: Ledger, volume: Volume, may_go: str) -> None:
    if volume.overwrites and (is_given_up(volume, mark := first_mark(drive)) or mark == may_go):
        return
    try:
        label = _label_or_none(drive, volume)
    except BadStructure as error:
        # A label torn by a crash while it was written: the open intent says that it was us.
        if _was_labelling(ledger, volume.volume_id):
            return
        raise NotBlank(
            f"tape {volume.label} should be blank, but {error}: use another tape, or erase this one"
        ) from error
    if label is None:
        return
    if label.volume == volume.volume_id and _was_labelling(ledger, volume.volume_id):
        require_nothing_behind_labels(drive, volume)
        return
    raise NotBlank(
        f"tape {volume.label} should be blank, but is labelled {label.label} by installation {label.installation}: "
        f"`tapefs import {volume.code}` takes it into the catalog; else use another tape, or erase this one"
    )


def require_nothing_behind_labels(drive: Drive, volume: Volume) -> None:
    """Go to the end of a tape that the ledger knows to hold labels at most. Raises LedgerMismatch, drive errors."""
    drive.seek_end()
    if drive.position().file > 2:
        raise LedgerMismatch(
            f"tape {volume.label} holds data behind its label that the ledger does not know: "
            f"{remedy(volume)} takes in what is new; nothing is written to it meanwhile"
        )


def _was_labelling(ledger: Ledger, volume_id: VolumeId) -> bool:
    return any(intent.kind is IntentKind.LABEL for intent in ledger.intents(volume_id))


def _label_or_none(drive: Drive, volume: Volume) -> Label | None:
    drive.rewind()
    try:
        block = BlockReader(drive, volume.block_size).read()
    except EndOfData:
        return None
    return read_label(bytes(block))
