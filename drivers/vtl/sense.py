"""Sense data as a device gives them. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Key(IntEnum):
    """Sense keys, as SPC numbers them."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    ABORTED_COMMAND = 0xB
    VOLUME_OVERFLOW = 0xD


#: Additional sense code and its qualifier, as one number.
FILEMARK_DETECTED = 0x0001
END_OF_PARTITION = 0x0002
BEGINNING_OF_PARTITION = 0x0004
ERASE_IN_PROGRESS = 0x0018
END_OF_DATA = 0x0005
WRITE_FAULT = 0x0300
BECOMING_READY = 0x0401
LOAD_REQUIRED = 0x0402
OPERATION_IN_PROGRESS = 0x0407
WRITE_ERROR = 0x0C00
READ_ERROR = 0x1100
PARAMETER_LIST_LENGTH = 0x1A00
INVALID_OPCODE = 0x2000
INVALID_ELEMENT = 0x2101
INVALID_FIELD_IN_CDB = 0x2400
INVALID_LUN = 0x2500
INVALID_FIELD_IN_PARAMETERS = 0x2600
INVALID_RELEASE = 0x2604
WRITE_PROTECTED = 0x2700
MEDIUM_CHANGED = 0x2800
POWER_ON = 0x2900
LUN_RESET = 0x2903
NEXUS_LOST = 0x2907
MODE_CHANGED = 0x2A01
LOG_CHANGED = 0x2A02
RESERVATIONS_PREEMPTED = 0x2A03
RESERVATIONS_RELEASED = 0x2A04
REGISTRATIONS_PREEMPTED = 0x2A05
ENCRYPTION_CHANGED = 0x2A11
INCOMPATIBLE_MEDIUM = 0x3000
CLEANING_CARTRIDGE = 0x3003
CANNOT_WRITE_FORMAT = 0x3005
WORM_OVERWRITE = 0x300C
SAVING_NOT_SUPPORTED = 0x3900
NO_MEDIUM = 0x3A00
POSITIONING_ERROR = 0x3B00
PAST_BEGINNING = 0x3B0C
DESTINATION_FULL = 0x3B0D
SOURCE_EMPTY = 0x3B0E
INTERNAL_FAILURE = 0x4400
REMOVAL_PREVENTED = 0x5302
REMOVAL_PREVENTED_BY_DRIVE = 0x5303
INSUFFICIENT_REGISTRATION_RESOURCES = 0x5504
UNABLE_TO_DECRYPT = 0x7401
UNENCRYPTED_DATA = 0x7402
INCORRECT_KEY = 0x7403
CLEAN_NOW = 0x0017


@dataclass(frozen=True, slots=True)
class Sense:
    """What happened, as sense data tell it."""

    key: Key
    #: Additional sense code * 256 + qualifier.
    code: int = 0
    filemark: bool = False
    end_of_medium: bool = False
    wrong_length: bool = False
    #: The residual count; None: not valid.
    information: int | None = None
    #: Byte of the CDB, or of the parameters, that is refused.
    field: int | None = None
    in_cdb: bool = True
    #: How far something is that goes on, 0 … 1.
    progress: float | None = None

    def encode(self, *, descriptors: bool = False) -> bytes:
        """Return the bytes, in fixed or in descriptor format."""
        return self._descriptors() if descriptors else self._fixed()

    def _flags(self) -> int:
        return 0x80 * self.filemark | 0x40 * self.end_of_medium | 0x20 * self.wrong_length

    def _field_pointer(self) -> bytes:
        return bytes([0x80 | 0x40 * self.in_cdb]) + (self.field or 0).to_bytes(2, "big")

    def _key_specific(self) -> bytes | None:
        """Return the three bytes that mean a field with ILLEGAL REQUEST, and progress with NO SENSE and NOT READY."""
        if self.progress is not None:
            return b"\x80" + min(int(self.progress * 65536), 65535).to_bytes(2, "big")
        return self._field_pointer() if self.field is not None else None

    def _fixed(self) -> bytes:
        data = bytearray(18)
        data[0], data[2], data[7] = 0x70, self.key | self._flags(), 10
        # What does not fit is not valid: the field has 32 bits.
        if self.information is not None and -(2**31) <= self.information < 2**32:
            data[0] |= 0x80
            data[3:7] = (self.information % 2**32).to_bytes(4, "big")
        data[12:14] = self.code.to_bytes(2, "big")
        specific = self._key_specific()
        if specific is not None:
            data[15:18] = specific
        return bytes(data)

    def _descriptors(self) -> bytes:
        parts = b""
        if self.information is not None:
            parts += bytes([0x00, 0x0A, 0x80, 0]) + (self.information % 2**64).to_bytes(8, "big")
        specific = self._key_specific()
        if specific is not None:
            parts += bytes([0x02, 0x06, 0, 0]) + specific + b"\0"
        if self._flags():
            parts += bytes([0x04, 0x02, 0, self._flags()])
        return bytes([0x72, self.key]) + self.code.to_bytes(2, "big") + bytes([0, 0, 0, len(parts)]) + parts


class CheckCondition(Exception):
    """A command that ends with sense data and moves nothing. Never leaves the device server."""

    def __init__(self, sense: Sense) -> None:
        super().__init__(f"{sense.key.name} {sense.code:04x}")
        self.sense = sense


def refuse(code: int, field: int | None = None, *, in_cdb: bool = True) -> CheckCondition:
    """Return an ILLEGAL REQUEST; `field` is the byte that is wrong."""
    return CheckCondition(Sense(Key.ILLEGAL_REQUEST, code, field=field, in_cdb=in_cdb))


def refuse_parameter(field: int) -> CheckCondition:
    """Return an ILLEGAL REQUEST for a byte of the parameters that were sent."""
    return refuse(INVALID_FIELD_IN_PARAMETERS, field, in_cdb=False)


def not_ready(code: int) -> CheckCondition:
    """Return a NOT READY."""
    return CheckCondition(Sense(Key.NOT_READY, code))
