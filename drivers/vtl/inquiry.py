"""Who a device is: INQUIRY and its vital product data. Pure; any thread."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

TAPE = 0x01
CHANGER = 0x08
_SPC4 = 0x06
#: Version descriptors: SAM-4, SPC-4, iSCSI, then the device's own standard.
_VERSIONS = (0x0080, 0x0460, 0x0960)
_OWN_VERSION = {TAPE: 0x0400, CHANGER: 0x0480}


@dataclass(frozen=True, slots=True)
class Identity:
    """What a device says of itself; ASCII."""

    #: Peripheral device type.
    kind: int
    #: At most 8, 16 and 4 characters.
    vendor: str
    product: str
    revision: str
    serial: str

    def name(self) -> bytes:
        """Return vendor and product in their fixed lengths, and the serial number."""
        return _padded(self.vendor, 8) + _padded(self.product, 16) + self.serial.encode("ascii")


def _padded(text: str, length: int) -> bytes:
    return text.encode("ascii")[:length].ljust(length)


def standard_inquiry(identity: Identity) -> bytes:
    """Return the standard INQUIRY data."""
    data = bytearray(74)
    data[0], data[1], data[2] = identity.kind, 0x80, _SPC4
    # HISUP, and response data format 2.
    data[3], data[4] = 0x12, len(data) - 5
    # CMDQUE: commands are queued.
    data[7] = 0x02
    data[8:32] = _padded(identity.vendor, 8) + _padded(identity.product, 16)
    data[32:36] = _padded(identity.revision, 4)
    for number, version in enumerate((*_VERSIONS, _OWN_VERSION[identity.kind])):
        data[58 + 2 * number : 60 + 2 * number] = version.to_bytes(2, "big")
    return bytes(data)


def vital_page(identity: Identity, page: int) -> bytes | None:
    """Return a page of vital product data, None for one that the device does not have."""
    pages = {0x80: identity.serial.encode("ascii"), 0x83: _designators(identity)}
    if identity.kind == TAPE:
        # B0: WORM cartridges are supported. B1: serial number of the drive. B2: all TapeAlert flags may be raised.
        pages |= {0xB0: bytes([0x01, 0]), 0xB1: identity.serial.encode("ascii"), 0xB2: b"\xff" * 8}
    pages[0x00] = bytes(sorted([0x00, *pages]))
    if page not in pages:
        return None
    return bytes([identity.kind, page]) + len(pages[page]).to_bytes(2, "big") + pages[page]


def _designators(identity: Identity) -> bytes:
    """Return a name by vendor, and a number that is unique as far as a hash goes (NAA 3, locally assigned)."""
    name = identity.name()
    number = bytearray(hashlib.sha256(name).digest()[:8])
    number[0] = 0x30 | number[0] & 0x0F
    return bytes([0x02, 0x01, 0, len(name)]) + name + bytes([0x01, 0x03, 0, 8]) + bytes(number)
