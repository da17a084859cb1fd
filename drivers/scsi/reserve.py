"""Holding a device for this installation by a persistent reservation, where the device has such. Blocking; one thread.

A reservation outlives a process that dies. Its key is the same at the next start, which therefore takes it over;
another installation's is left alone.
"""

from __future__ import annotations

from drivers.errors import BadAnswer, DriveInUse, NotSupported
from drivers.scsi.device import Device
from drivers.scsi.outcomes import Doing
from drivers.scsi.reservations import (
    EXCLUSIVE_ACCESS,
    ReserveIn,
    ReserveOut,
    parse_holder_name,
    parse_reservation,
    persistent_reserve_in,
    persistent_reserve_out,
    reserve_parameters,
)

#: Room for the registrations of many hosts.
_STATUS_BYTES = 0x2000


def take_reservation(device: Device, key: int) -> bool:
    """Reserve the device; False when it knows no reservations. Raises DriveInUse when another host holds it."""
    try:
        _send(device, ReserveOut.REGISTER_AND_IGNORE, 0, key)
    except NotSupported:
        return False
    try:
        _send(device, ReserveOut.RESERVE, key, 0)
    except DriveInUse:
        holder = _holder(device)
        if holder != key:
            name = _holder_name(device)
            _send(device, ReserveOut.REGISTER, key, 0)
            raise DriveInUse(
                f"{device.name} is reserved by another host{f', {name}' if name else ''}, whose key is {holder:#x}: it "
                "can be used when that lets go of it; if that host is gone for good, clear the reservation with "
                "sg_persist --out --clear"
            ) from None
        # An earlier process of ours died with it.
        _send(device, ReserveOut.PREEMPT, key, key)
    return True


def release_reservation(device: Device, key: int) -> None:
    """Give up the reservation and the right to it."""
    _send(device, ReserveOut.RELEASE, key, 0)
    _send(device, ReserveOut.REGISTER, key, 0)


def _send(device: Device, action: ReserveOut, key: int, action_key: int) -> None:
    is_about_type = action in (ReserveOut.RESERVE, ReserveOut.RELEASE, ReserveOut.PREEMPT)
    cdb = persistent_reserve_out(action, EXCLUSIVE_ACCESS if is_about_type else 0)
    device.run(cdb, Doing.ASK, data_out=reserve_parameters(key, action_key))


def _holder(device: Device) -> int:
    reservation = parse_reservation(device.read(persistent_reserve_in(ReserveIn.READ_RESERVATION, 24), 24))
    return reservation.key if reservation else 0


def _holder_name(device: Device) -> str:
    """Return who holds the device, "" when it does not tell."""
    cdb = persistent_reserve_in(ReserveIn.READ_FULL_STATUS, _STATUS_BYTES)
    try:
        return parse_holder_name(device.read(cdb, _STATUS_BYTES))
    except (NotSupported, BadAnswer):
        return ""
