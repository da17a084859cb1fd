"""The memory of a cartridge (MAM): READ ATTRIBUTE and WRITE ATTRIBUTE. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from drivers.scsi.fields import Fields

MIB = 1024 * 1024


class AttributeId(IntEnum):
    """Attributes by number. Below 0400h the drive keeps them, below 0800h the maker wrote them, the rest are ours."""

    REMAINING_CAPACITY_MIB = 0x0000
    MAXIMUM_CAPACITY_MIB = 0x0001
    TAPE_ALERT_FLAGS = 0x0002
    LOAD_COUNT = 0x0003
    MAM_SPACE_REMAINING = 0x0004
    FORMATTED_DENSITY = 0x0006
    INITIALIZATION_COUNT = 0x0007
    VOLUME_IDENTIFIER = 0x0008
    LAST_DRIVE = 0x020A
    LAST_DRIVE_BUT_ONE = 0x020B
    LIFETIME_WRITTEN_MIB = 0x0220
    LIFETIME_READ_MIB = 0x0221
    LAST_LOAD_WRITTEN_MIB = 0x0222
    LAST_LOAD_READ_MIB = 0x0223
    MANUFACTURER = 0x0400
    SERIAL_NUMBER = 0x0401
    LENGTH_M = 0x0402
    MEDIUM_DENSITY = 0x0405
    MANUFACTURE_DATE = 0x0406
    MEDIUM_TYPE = 0x0408
    APPLICATION_VENDOR = 0x0800
    APPLICATION_NAME = 0x0801
    APPLICATION_VERSION = 0x0802
    USER_LABEL = 0x0803
    LAST_WRITTEN = 0x0804
    BARCODE = 0x0806
    OWNING_HOST = 0x0807
    MEDIA_POOL = 0x0808
    FORMAT_VERSION = 0x080B


class Format(IntEnum):
    """How a value is written."""

    BINARY = 0
    ASCII = 1
    TEXT = 2


#: MEDIUM_TYPE: what a cartridge is for.
CLEANING = 0x01
WORM = 0x80


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a cartridge."""

    #: Usually one of `AttributeId`.
    id: int
    read_only: bool
    #: Usually one of `Format`.
    format: int
    value: bytes

    @property
    def number(self) -> int:
        """Return the value as an unsigned number."""
        return int.from_bytes(self.value, "big")

    @property
    def text(self) -> str:
        """Return the value as a text without the spaces and zeros around it."""
        return self.value.decode("utf-8", "replace").strip(" \0")


def parse_attributes(data: bytes) -> dict[int, Attribute]:
    """Decode the values of READ ATTRIBUTE, by number; one that was cut at the end is left out. Raises BadAnswer."""
    fields = Fields(data, "the cartridge's memory")
    fields = fields.upto(4 + fields.number(0, 4))
    found = {}
    at = 4
    while at + 5 <= len(fields):
        size = fields.number(at + 3, 2)
        if at + 5 + size > len(fields):
            break
        each = Attribute(
            fields.number(at, 2), fields.bit(at + 2, 7), fields.bits(at + 2, 1, 0), fields.raw(at + 5, size)
        )
        found[each.id] = each
        at += 5 + size
    return found
