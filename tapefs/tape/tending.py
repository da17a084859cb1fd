"""Labelling, relabelling and erasing the loaded tape, after a look at what is on it. Runs in the drive's thread.

Whatever is on a tape is given up in this order: it is read and compared with what the operator says it is; the ledger
is asked for live sets; the tape is claimed, so that nobody else can commit to it; the ledger puts a BLANK record in
its place, in a transaction that looks for live sets once more, and notes what may be overwritten; the tape is written
over or erased. A crash behind the transaction leaves a blank tape that the next use labels, over just that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

import structlog

from catalog.crash import crash_point
from catalog.errors import Conflict, NotFound
from catalog.ids import VolumeId, new_uuid
from catalog.ledger import Ledger
from catalog.records import IntentKind, Volume, VolumeState
from drivers.errors import NotSupported, WriteProtected
from drivers.interface import Drive, DriveStatus
from tapefs.errors import LedgerMismatch, NotBlank, NotNow, UsageError, WrongTape
from tapefs.keys.policy import TapeKeys
from tapefs.retention.living import require_nothing_live
from tapefs.tape.append import require_announced
from tapefs.tape.barcodes import is_worm
from tapefs.tape.identity import Identity, Owner, identify
from tapefs.tape.label import is_given_up, require_nothing_behind_labels, write_label
from tapefs.tape.names import check_name, next_name

log = structlog.get_logger(__name__)

_after_claim = crash_point("tape.give_up.claimed")
_after_ledger = crash_point("tape.give_up.after")
_before_erase = crash_point("tape.erase.before")
_after_erase = crash_point("tape.erase.after")


class Task(Enum):
    """What is done with a tape."""

    LABEL = "label"
    RELABEL = "relabel"
    ERASE = "erase"


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator wants."""

    task: Task
    #: What he says that the tape is: one of its names. Means nothing for LABEL.
    identity: str = ""
    #: He knows that this installation knows nothing of what is on it.
    is_forced: bool = False
    #: Its name from now on; empty: as it was. With `is_counted` the next counted one instead.
    name: str = ""
    is_counted: bool = False
    #: Empty: as it was.
    pool: str = ""
    #: Write over every metre; of ERASE.
    is_long: bool = False


@dataclass(frozen=True, slots=True)
class Tended:
    """What was done."""

    #: The tape's record now.
    volume: Volume
    #: What was on it before.
    found: Identity


def tend(drive: Drive, ledger: Ledger, volume_id: VolumeId, order: Order, now_ns: int, keys: TapeKeys) -> Tended:
    """Do that with the threaded tape, which should be `volume_id`; `keys` has the key of one that is labelled.

    Raises, before anything is changed: WriteProtected, WrongTape, NotBlank, NotNow when live sets lie on it or force is
    needed, LedgerMismatch when more is on it than the ledger knows, UsageError when it is called otherwise, its new
    name is none or its key is not here, Conflict when another tape has that name; and drive errors, at any time.
    """
    if order.task is Task.LABEL:
        return _label(drive, ledger, volume_id, order, now_ns, keys)
    new, found = give_up(drive, ledger, volume_id, order, now_ns, keys)
    claim = ledger.claim_volume(new.volume_id)
    if order.task is Task.ERASE:
        _erase(drive, ledger, new, claim, now_ns, is_long=order.is_long)
    else:
        write_label(drive, ledger, keys.given(new), claim, now_ns, may_go=found.mark)
    return Tended(ledger.volume(new.volume_id), found)


def give_up(
    drive: Drive, ledger: Ledger, volume_id: VolumeId, order: Order, now_ns: int, keys: TapeKeys
) -> tuple[Volume, Identity]:
    """Have the ledger give up what is on the threaded tape, of which nothing is written over yet.

    Returns its new record, which is BLANK, and what is there. Raises as `tend`.
    """
    volume = ledger.volume(volume_id)
    status = drive.status()
    _require_right_cartridge(status, volume)
    if order.task is not Task.ERASE:
        keys.of_new_tape(order.pool or volume.pool)  # Raises now rather than when the old data is given up.
    found = identify(drive, ledger.installation().installation_id)
    _require_may_go(ledger, volume, found, order)
    require_nothing_live(ledger, volume_id, volume.label, now_ns)
    if found.label is not None and found.label.volume == volume_id and not order.is_forced:
        _require_known_end(drive, ledger, volume)
    return _begin_anew(ledger, volume, status, found, order, now_ns), found


def _label(drive: Drive, ledger: Ledger, volume_id: VolumeId, order: Order, now_ns: int, keys: TapeKeys) -> Tended:
    volume = ledger.volume(volume_id)
    status = drive.status()
    _require_right_cartridge(status, volume)
    keys.of_new_tape(order.pool or volume.pool)
    found = identify(drive, ledger.installation().installation_id)
    _require_blank(ledger, volume, found, order)
    require_nothing_live(ledger, volume_id, volume.label, now_ns)
    new = volume if not _changes(volume, order) else _begin_anew(ledger, volume, status, found, order, now_ns)
    claim = ledger.claim_volume(new.volume_id)
    write_label(drive, ledger, keys.given(new), claim, now_ns, may_go="" if new is volume else found.mark)
    return Tended(ledger.volume(new.volume_id), found)


def _require_known_end(drive: Drive, ledger: Ledger, volume: Volume) -> None:
    """What the catalog does not know of a tape may be all that there is of a set: a catalog may be an old copy."""
    try:
        if volume.end_block:
            require_announced(drive, ledger, volume)
        else:
            require_nothing_behind_labels(drive, volume)
    except LedgerMismatch as error:
        raise LedgerMismatch(f"{error}; `--force` overwrites it") from error


def _require_right_cartridge(status: DriveStatus, volume: Volume) -> None:
    if volume.foreign:
        raise NotNow(
            f"tape {volume.label} is {volume.foreign.upper()}'s: it is only read. `tapefs tape forget` has the catalog "
            "know nothing of it; what lies on it is then for other programs to remove"
        )
    if status.barcode not in (None, volume.code):
        raise WrongTape(f"the tape in the drive has barcode {status.barcode}, not {volume.code}: check the library")
    if status.write_protected:
        raise WriteProtected(f"tape {volume.label} is write-protected: move its tab")


def _require_blank(ledger: Ledger, volume: Volume, found: Identity, order: Order) -> None:
    """Only a tape on which nothing is, or nothing that counts, gets a label without more ado."""
    if volume.end_block or volume.state not in (VolumeState.BLANK, VolumeState.SUSPECT):
        raise NotNow(f"tape {volume.label} has a label already: `tapefs tape relabel` gives it another")
    if found.owner is Owner.NOBODY or _was_given_up(volume, found):
        return
    if _is_half_labelled(ledger, volume, found):
        if _changes(volume, order):
            raise NotNow(f"a crash has left tape {volume.label} half labelled: label it as it is first")
        return  # Writing the label makes sure that nothing is behind it.
    raise NotBlank(
        f"tape {volume.label} is not blank: it is {found.sentence}; if that may go, `tapefs tape relabel` overwrites it"
    )


def _require_may_go(ledger: Ledger, volume: Volume, found: Identity, order: Order) -> None:
    """What is on the tape may be overwritten as far as the operator is concerned."""
    is_this = found.label is not None and found.label.volume == volume.volume_id
    if found.label is not None and not is_this:
        _require_unknown(ledger, VolumeId(found.label.volume), volume)
    names = (volume.label, volume.volume_id) if found.owner is Owner.NOBODY else found.names
    if order.identity not in names:
        raise UsageError(
            f"tape {volume.label} is {found.sentence}: if that may go, say so with `--yes-it-is {_quoted(names[0])}`"
        )
    is_known = is_this or found.owner is Owner.NOBODY or _was_given_up(volume, found)
    if not is_known and not order.is_forced:
        raise NotNow(
            f"tape {volume.label} is {found.sentence}, and this installation knows nothing of what is on it: "
            f"`--force` overwrites it all the same"
        )
    if found.owner is not Owner.NOBODY and is_worm(volume.code):
        raise WriteProtected(f"tape {volume.label} can be written only once: what is on it stays")


def _require_unknown(ledger: Ledger, found: VolumeId, volume: Volume) -> None:
    try:
        other = ledger.volume(found)
    except NotFound:
        return
    raise WrongTape(
        f"the tape in the drive is {other.label}, not {volume.label}: check the barcodes, or tend it as {other.label}"
    )


def _was_given_up(volume: Volume, found: Identity) -> bool:
    return is_given_up(volume, found.mark)


def _is_half_labelled(ledger: Ledger, volume: Volume, found: Identity) -> bool:
    """Has a crash left this very tape's label, whole or torn?"""
    intents = ledger.intents(volume.volume_id)
    is_this = found.label is None or found.label.volume == volume.volume_id
    return found.format == "tapefs" and is_this and any(intent.kind is IntentKind.LABEL for intent in intents)


def _changes(volume: Volume, order: Order) -> bool:
    """Is a new record needed?"""
    name = order.name or volume.label
    pool = order.pool or volume.pool
    return order.is_counted or (name, pool, VolumeState.BLANK) != (volume.label, volume.pool, volume.state)


def _begin_anew(
    ledger: Ledger, volume: Volume, status: DriveStatus, found: Identity, order: Order, now_ns: int
) -> Volume:
    """Have the ledger give up what is on the tape; return its new record."""
    if status.worm and found.owner is not Owner.NOBODY:
        raise WriteProtected(f"tape {volume.label} can be written only once: what is on it stays")
    label = check_name(order.name) if order.name and order.name != volume.label else volume.label
    claim = ledger.claim_volume(volume.volume_id)
    _after_claim()
    if order.is_counted:
        record = partial(_record, ledger, volume, status, found, order, now_ns)
        new = _renew_counted(ledger, volume, claim, record, now_ns)
    else:
        new = _record(ledger, volume, status, found, order, now_ns, label)
        ledger.renew_volume(volume.volume_id, claim, new, now_ns)
    _after_ledger()
    log.info(
        "what was on a tape is given up", tape=new.label, was=volume.volume_id, now=new.volume_id, held=found.sentence
    )
    return new


def _renew_counted(ledger: Ledger, volume: Volume, claim: int, record: Callable[[str], Volume], now_ns: int) -> Volume:
    """Renew the tape under the next counted name, which another drive's mover may take at the same time."""
    while True:
        new = record(next_name(ledger, now_ns))
        try:
            ledger.renew_volume(volume.volume_id, claim, new, now_ns)
        except Conflict:
            if next_name(ledger, now_ns) == new.label:
                raise  # The name is still free: something else is in the way.
            continue
        return new


def _record(
    ledger: Ledger, volume: Volume, status: DriveStatus, found: Identity, order: Order, now_ns: int, label: str
) -> Volume:
    return Volume(
        volume_id=VolumeId(new_uuid()),
        label=label,
        barcode="" if label == volume.code else volume.code,
        pool=order.pool or volume.pool,
        installation_id=ledger.installation().installation_id,
        generation=status.medium_generation or volume.generation,
        capacity_bytes=status.capacity_bytes or volume.capacity_bytes,
        block_size=volume.block_size,
        state=VolumeState.BLANK,
        overwrites=found.mark,
        identified_at_ns=now_ns,
        created_at_ns=now_ns,
    )


def _erase(drive: Drive, ledger: Ledger, volume: Volume, claim: int, now_ns: int, *, is_long: bool) -> None:
    _before_erase()
    drive.rewind()
    try:
        drive.erase(long=is_long)
    except NotSupported as error:
        raise NotNow(
            f"the drive cannot erase tape {volume.label} ({error}): its next label is written over what is there"
        ) from error
    _after_erase()
    left = identify(drive, volume.installation_id)
    if left.owner is not Owner.NOBODY:
        raise LedgerMismatch(f"tape {volume.label} was erased, yet is {left.sentence}: the drive did not erase it")
    ledger.settle_volume(volume.volume_id, claim)
    ledger.note_erased(volume.code, now_ns)
    drive.rewind()


def _quoted(name: str) -> str:
    return name if name.isascii() and name.replace("-", "").isalnum() else f"'{name}'"
