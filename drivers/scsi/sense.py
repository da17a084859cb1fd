"""Sense data, both formats, into one record. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from drivers.errors import BadAnswer
from drivers.scsi.fields import Fields


class Key(IntEnum):
    """Sense keys."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    RESERVED = 0xC
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF


@dataclass(frozen=True, slots=True)
class Sense:
    """Why a command did not simply end well."""

    key: Key
    #: Additional sense code and its qualifier; both 0 when the device said nothing more.
    asc: int = 0
    ascq: int = 0
    #: The error is one of an earlier command, which was reported done already.
    deferred: bool = False
    #: A filemark was met.
    filemark: bool = False
    #: The head is in the early-warning zone or at an end of the tape.
    end_of_medium: bool = False
    #: The block has another length than was asked for.
    incorrect_length: bool = False
    #: What was asked minus what was done, in bytes, blocks or filemarks; None when the device did not say.
    information: int | None = None
    #: How far a long action is, 0 … 1; None when the device did not say.
    progress: float | None = None

    @property
    def codes(self) -> str:
        """Return key, code and qualifier as manuals print them: 03/11/00."""
        return f"{self.key:02X}/{self.asc:02X}/{self.ascq:02X}"


def parse_sense(data: bytes) -> Sense:
    """Decode sense data of either format. Raises BadAnswer."""
    fields = Fields(data, "the sense data")
    kind = fields.bits(0, 6, 0)
    if kind in (0x70, 0x71):
        return _parse_fixed(fields, deferred=kind == 0x71)
    if kind in (0x72, 0x73):
        return _parse_descriptors(fields, deferred=kind == 0x73)
    raise BadAnswer(f"the device sent sense data of the unknown kind {kind:02X}h")


def _parse_fixed(fields: Fields, *, deferred: bool) -> Sense:
    # Whatever the additional length says: a device may cut its sense data behind the byte 7, and often does at 18.
    fields.raw(0, 8)
    total = fields.upto(8 + fields.number(7))
    said = len(total)
    has_keyed = said >= 18 and total.bit(15, 7)
    key = Key(fields.bits(2, 3, 0))
    return Sense(
        key=key,
        asc=total.number(12) if said > 12 else 0,
        ascq=total.number(13) if said > 13 else 0,
        deferred=deferred,
        filemark=fields.bit(2, 7),
        end_of_medium=fields.bit(2, 6),
        incorrect_length=fields.bit(2, 5),
        information=_signed(fields.raw(3, 4)) if fields.bit(0, 7) else None,
        progress=_progress(key, total.number(16, 2)) if has_keyed else None,
    )


def _parse_descriptors(fields: Fields, *, deferred: bool) -> Sense:
    fields.raw(0, 8)
    total = fields.upto(8 + fields.number(7))
    key = Key(fields.bits(1, 3, 0))
    filemark = end_of_medium = incorrect_length = False
    information: int | None = None
    progress: float | None = None
    at = 8
    while at + 2 <= len(total):
        each = total.upto(at + 2 + total.number(at + 1))
        kind, size = each.number(at), len(each) - at
        if kind == 0x00 and size >= 12 and each.bit(at + 2, 7):
            information = _signed(each.raw(at + 4, 8))
        elif kind == 0x02 and size >= 7 and each.bit(at + 4, 7):
            progress = _progress(key, each.number(at + 5, 2))
        elif kind == 0x04 and size >= 4:
            filemark, end_of_medium, incorrect_length = each.bit(at + 3, 7), each.bit(at + 3, 6), each.bit(at + 3, 5)
        at += 2 + total.number(at + 1)
    return Sense(
        key=key,
        asc=fields.number(2),
        ascq=fields.number(3),
        deferred=deferred,
        filemark=filemark,
        end_of_medium=end_of_medium,
        incorrect_length=incorrect_length,
        information=information,
        progress=progress,
    )


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _progress(key: Key, value: int) -> float | None:
    """Read the sense-key specific bytes, which tell progress with these keys and other things with others."""
    return value / 65536 if key in (Key.NO_SENSE, Key.NOT_READY) else None
