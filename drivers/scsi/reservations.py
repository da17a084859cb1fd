"""Persistent reservations: who may use a device. CDBs, parameters, answers. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from drivers.scsi.cdb import Op, field
from drivers.scsi.fields import Fields


class ReserveIn(IntEnum):
    """Service actions of PERSISTENT RESERVE IN."""

    READ_KEYS = 0
    READ_RESERVATION = 1
    READ_FULL_STATUS = 3


class ReserveOut(IntEnum):
    """Service actions of PERSISTENT RESERVE OUT."""

    REGISTER = 0
    RESERVE = 1
    RELEASE = 2
    PREEMPT = 4
    REGISTER_AND_IGNORE = 6


#: Only the holder may use the device.
EXCLUSIVE_ACCESS = 3


@dataclass(frozen=True, slots=True)
class Reservation:
    """Who holds a device."""

    key: int
    #: EXCLUSIVE_ACCESS or another number of the standard.
    kind: int


def persistent_reserve_in(action: ReserveIn, allocation_bytes: int) -> bytes:
    """PERSISTENT RESERVE IN."""
    return bytes([Op.PERSISTENT_RESERVE_IN, action, 0, 0, 0, 0, 0]) + field(allocation_bytes, 2) + b"\0"


def persistent_reserve_out(action: ReserveOut, kind: int = 0) -> bytes:
    """PERSISTENT RESERVE OUT of the whole logical unit; its parameters are `reserve_parameters`."""
    return bytes([Op.PERSISTENT_RESERVE_OUT, action]) + field(kind, 1) + bytes(2) + field(24, 4) + b"\0"


def reserve_parameters(key: int = 0, action_key: int = 0) -> bytes:
    """Return the parameter list: the sender's key, and the one that the action is about."""
    return field(key, 8) + field(action_key, 8) + bytes(8)


def parse_keys(data: bytes) -> list[int]:
    """Decode READ KEYS: the keys of all that are registered. Raises BadAnswer."""
    fields = Fields(data, "the answer to READ KEYS")
    total = fields.upto(8 + fields.number(4, 4))
    return [each.number(0, 8) for each in total.records(8, 8)]


def parse_reservation(data: bytes) -> Reservation | None:
    """Decode READ RESERVATION; None when nobody holds the device. Raises BadAnswer."""
    fields = Fields(data, "the answer to READ RESERVATION")
    if fields.number(4, 4) < 16:
        return None
    return Reservation(fields.number(8, 8), fields.bits(21, 3, 0))


_FIBRE_CHANNEL, _ISCSI, _SAS = 0, 5, 6
#: Of a registration in READ FULL STATUS: what stands before the name of its port.
_REGISTRATION_BYTES = 24


def parse_holder_name(data: bytes) -> str:
    """Decode READ FULL STATUS: the port that holds the device, as its protocol names it; "" when that is not told.

    Raises BadAnswer.
    """
    fields = Fields(data, "the answer to READ FULL STATUS")
    total = fields.upto(8 + fields.number(4, 4))
    at = 8
    while at + _REGISTRATION_BYTES <= len(total):
        size = total.number(at + 20, 4)
        if total.bit(at + 12, 0):
            return _port_name(Fields(total.rest(at + _REGISTRATION_BYTES)[:size], fields.name))
        at += _REGISTRATION_BYTES + size
    return ""


def _port_name(port: Fields) -> str:
    """Return the name in a TransportID: an initiator's of iSCSI, else the number of its port."""
    if not len(port):
        return ""
    protocol = port.bits(0, 3, 0)
    if protocol == _ISCSI:
        # Behind a comma stands the number of its session.
        return port.text(4, min(port.number(2, 2), len(port) - 4)).partition(",")[0]
    if protocol == _FIBRE_CHANNEL:
        return f"the port {port.raw(8, 8).hex(':')}"
    return f"the port {port.raw(4, 8).hex(':')}" if protocol == _SAS else ""
