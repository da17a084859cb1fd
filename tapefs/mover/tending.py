"""Identifying, labelling, relabelling and erasing for the sidecar. Main thread of the mover."""

from __future__ import annotations

from catalog.ledger import Ledger
from drivers.interface import Drive, DriveStatus
from tapefs.errors import WrongTape
from tapefs.keys.policy import TapeKeys
from tapefs.mover.messages import Done, FoundTape, Identify, Tend
from tapefs.tape.identity import Identity, identify
from tapefs.tape.noting import is_expected, note_found
from tapefs.tape.tending import Order, Task, tend


def identify_tape(drive: Drive, ledger: Ledger, command: Identify, now_ns: int) -> Done:
    """Tell what is on the tape, and note what that means for its use. Raises WrongTape, drive and catalog errors."""
    volume = ledger.volume(command.volume_id)
    drive.load()
    status = drive.status()
    if status.barcode not in (None, volume.code):
        raise WrongTape(f"the tape in the drive has barcode {status.barcode}, not {volume.code}: check the library")
    found = identify(drive, ledger.installation().installation_id)
    expected = is_expected(ledger, volume, found)
    note_found(ledger, volume, status, found, now_ns)
    return Done(id=command.id, found=_told(found, status, expected), volume_id=volume.volume_id)


def tend_tape(drive: Drive, ledger: Ledger, command: Tend, now_ns: int, keys: TapeKeys) -> Done:
    """Do what is asked. Raises as `tapefs.tape.tending.tend`."""
    drive.load()
    tended = tend(drive, ledger, command.volume_id, _order(command), now_ns, keys)
    return Done(id=command.id, found=_told(tended.found, drive.status(), True), volume_id=tended.volume.volume_id)


def _order(command: Tend) -> Order:
    return Order(
        task=Task(command.task),
        identity=command.identity,
        is_forced=command.is_forced,
        name=command.name,
        is_counted=command.is_counted,
        pool=command.pool,
        is_long=command.is_long,
    )


def _told(found: Identity, status: DriveStatus, expected: bool) -> FoundTape:
    return FoundTape(
        owner=found.owner.value,
        format=found.format,
        names=found.names,
        sentence=found.sentence,
        is_expected=expected,
        generation=status.medium_generation,
        capacity_bytes=status.capacity_bytes,
        is_worm=status.worm,
        is_write_protected=status.write_protected,
        serial=status.medium_serial,
        loads=status.medium_loads,
    )
