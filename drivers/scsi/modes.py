"""Mode parameters: header, block descriptor, and the pages for compression, the drive's settings, and a library's map.

Pure; any thread. What is set is what was sensed with a few bits changed, so that bits unknown here stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from drivers.errors import BadAnswer
from drivers.scsi.fields import Fields

DATA_COMPRESSION = 0x0F
DEVICE_CONFIGURATION = 0x10
ELEMENT_ADDRESSES = 0x1D

#: Blocks of any length.
VARIABLE = 0
#: A write is done when the block is in the drive's buffer.
BUFFERED = 1


@dataclass(frozen=True, slots=True)
class ModeData:
    """A mode parameter list: header, the first block descriptor, and one page."""

    medium_type: int
    write_protected: bool
    #: 0: a write is done when it is on the medium; 1: when it is in the buffer.
    buffered_mode: int
    speed: int
    #: None when the device sent no block descriptor.
    density: int | None
    #: Bytes of a block, 0 for blocks of any length.
    block_bytes: int
    #: The page with its header, empty when there is none.
    page: bytes


def parse_mode_6(data: bytes) -> ModeData:
    """Decode what MODE SENSE(6) answered. Raises BadAnswer."""
    fields = Fields(data, "the mode data")
    total = fields.upto(1 + fields.number(0))
    return _parse(total, medium_type=1, header_bytes=4, descriptors_bytes=fields.number(3))


def parse_mode_10(data: bytes) -> ModeData:
    """Decode what MODE SENSE(10) answered. Raises BadAnswer."""
    fields = Fields(data, "the mode data")
    total = fields.upto(2 + fields.number(0, 2))
    return _parse(total, medium_type=2, header_bytes=8, descriptors_bytes=fields.number(6, 2))


def _parse(fields: Fields, *, medium_type: int, header_bytes: int, descriptors_bytes: int) -> ModeData:
    density, block_bytes = None, VARIABLE
    if descriptors_bytes >= 8:
        density = fields.number(header_bytes)
        block_bytes = fields.number(header_bytes + 5, 3)
    page = Fields(fields.rest(header_bytes + descriptors_bytes), "the mode page")
    if len(page):
        # A device may answer as many bytes as were asked for; what is behind the page's own length is none of it.
        page = page.upto(2 + page.number(1))
    return ModeData(
        medium_type=fields.number(medium_type),
        write_protected=fields.bit(medium_type + 1, 7),
        buffered_mode=fields.bits(medium_type + 1, 6, 4),
        speed=fields.bits(medium_type + 1, 3, 0),
        density=density,
        block_bytes=block_bytes,
        page=page.rest(0),
    )


def mode_parameters_6(data: ModeData) -> bytes:
    """Return the parameter list for MODE SELECT(6)."""
    descriptor = _descriptor(data)
    return bytes([0, 0, _device_specific(data), len(descriptor)]) + descriptor + _page_to_set(data)


def mode_parameters_10(data: ModeData) -> bytes:
    """Return the parameter list for MODE SELECT(10)."""
    descriptor = _descriptor(data)
    return bytes([0, 0, 0, _device_specific(data), 0, 0, 0, len(descriptor)]) + descriptor + _page_to_set(data)


def _device_specific(data: ModeData) -> int:
    return data.buffered_mode << 4 | data.speed


def _descriptor(data: ModeData) -> bytes:
    if data.density is None:
        return b""
    return bytes([data.density, 0, 0, 0, 0]) + data.block_bytes.to_bytes(3, "big")


def _page_to_set(data: ModeData) -> bytes:
    # The highest bit says that a page can be saved; in what is set it must be 0.
    return bytes([data.page[0] & 0x7F]) + data.page[1:] if data.page else b""


def _check(page: bytes, code: int, least_bytes: int) -> Fields:
    fields = Fields(page, f"the mode page {code:02X}h")
    if fields.bits(0, 5, 0) != code:
        raise BadAnswer(f"asked for the mode page {code:02X}h, the device sent {fields.bits(0, 5, 0):02X}h")
    fields.raw(0, least_bytes)
    return fields


@dataclass(frozen=True, slots=True)
class Compression:
    """The data compression page, 0Fh."""

    #: The drive can compress.
    capable: bool
    #: It compresses what is written.
    enabled: bool
    #: It decompresses what is read.
    decompresses: bool
    #: Algorithm that is used; 0 means none.
    algorithm: int


def parse_compression(page: bytes) -> Compression:
    """Decode the page 0Fh. Raises BadAnswer."""
    fields = _check(page, DATA_COMPRESSION, 12)
    return Compression(fields.bit(2, 6), fields.bit(2, 7), fields.bit(3, 7), fields.number(4, 4))


def with_compression(page: bytes, enabled: bool) -> bytes:
    """Return the page 0Fh with compression of what is written switched. Raises BadAnswer."""
    fields = _check(page, DATA_COMPRESSION, 12)
    switches = fields.number(2) & 0x7F | enabled << 7
    return fields.raw(0, 2) + bytes([switches]) + fields.rest(3)


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Addresses of one kind of elements."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class ElementAddresses:
    """The element address assignment page, 1Dh: how many places of each kind a library has."""

    robots: AddressRange
    slots: AddressRange
    import_export: AddressRange
    drives: AddressRange


def parse_element_addresses(page: bytes) -> ElementAddresses:
    """Decode the page 1Dh. Raises BadAnswer."""
    fields = _check(page, ELEMENT_ADDRESSES, 18)
    ranges = [AddressRange(fields.number(at, 2), fields.number(at + 2, 2)) for at in (2, 6, 10, 14)]
    return ElementAddresses(*ranges)
