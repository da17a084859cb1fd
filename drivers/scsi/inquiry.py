"""Who a device is: INQUIRY and its pages of vital product data. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass

from drivers.errors import BadAnswer
from drivers.scsi.fields import Fields

#: What a device is, as INQUIRY numbers it.
TAPE = 0x01
CHANGER = 0x08

SERIAL_NUMBER = 0x80
DEVICE_IDENTIFICATION = 0x83
#: Association of a designator that names the logical unit, and not a port or the whole device.
OF_THE_UNIT = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Standard INQUIRY data."""

    #: TAPE, CHANGER or another number of the standard.
    device_type: int
    #: The device is there; False when this logical unit number has none behind it.
    connected: bool
    vendor: str
    product: str
    #: Firmware level.
    revision: str


class IdKind:
    """Kinds of designators that are of use here."""

    VENDOR_SPECIFIC = 0
    T10 = 1
    NAA = 3


@dataclass(frozen=True, slots=True)
class Designator:
    """One name of a device, from the page 83h or from READ ELEMENT STATUS."""

    #: See `IdKind`.
    kind: int
    #: 0 the logical unit, 1 the port, 2 the whole device.
    association: int
    #: As text, or as hex digits when it is binary.
    text: str


def parse_inquiry(data: bytes) -> Identity:
    """Decode standard INQUIRY data. Raises BadAnswer."""
    fields = Fields(data, "the INQUIRY data")
    return Identity(
        device_type=fields.bits(0, 4, 0),
        connected=fields.bits(0, 7, 5) == 0,
        vendor=fields.text(8, 8),
        product=fields.text(16, 16),
        revision=fields.text(32, 4),
    )


def _page(data: bytes, code: int) -> Fields:
    fields = Fields(data, f"the INQUIRY page {code:02X}h")
    if fields.number(1) != code:
        raise BadAnswer(f"asked for the INQUIRY page {code:02X}h, the device sent {fields.number(1):02X}h")
    return Fields(fields.upto(4 + fields.number(2, 2)).rest(4), fields.name)


def parse_serial(data: bytes) -> str:
    """Decode the page 80h: the serial number, without spaces around it. Raises BadAnswer."""
    page = _page(data, SERIAL_NUMBER)
    return page.text(0, len(page))


def parse_designators(data: bytes) -> list[Designator]:
    """Decode the page 83h. Raises BadAnswer."""
    page = _page(data, DEVICE_IDENTIFICATION)
    found = []
    at = 0
    while at + 4 <= len(page):
        size = page.number(at + 3)
        found.append(parse_designator(page.part(at, 4 + size)))
        at += 4 + size
    return found


def parse_designator(fields: Fields) -> Designator:
    """Decode one designator with its header of four bytes. Raises BadAnswer."""
    size = fields.number(3)
    is_binary = fields.bits(0, 3, 0) == 1
    return Designator(
        kind=fields.bits(1, 3, 0),
        association=fields.bits(1, 5, 4),
        text=fields.raw(4, size).hex() if is_binary else fields.text(4, size),
    )
