"""Element addresses, and READ ELEMENT STATUS as bytes. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from drivers.interface import Element, ElementKind
from drivers.virtual.changer import Place
from drivers.vtl.sense import INVALID_ELEMENT, refuse

#: Where each type begins, as in IBM's libraries.
PICKER, FIRST_DRIVE, FIRST_SLOT = 0x0001, 0x0100, 0x1000
MAX_DRIVES = FIRST_SLOT - FIRST_DRIVE
_VOLUME_TAG_BYTES = 36


class ElementType(IntEnum):
    """What a place is, as SMC numbers it."""

    ALL = 0
    TRANSPORT = 1
    STORAGE = 2
    IMPORT_EXPORT = 3
    DRIVE = 4


_TYPES = {
    ElementKind.DRIVE: ElementType.DRIVE,
    ElementKind.SLOT: ElementType.STORAGE,
    ElementKind.PORT: ElementType.IMPORT_EXPORT,
}


@dataclass(frozen=True, slots=True)
class ElementState:
    """One element, ready to be told."""

    type: ElementType
    address: int
    barcode: str | None = None
    #: Can the picker reach the cartridge?
    accessible: bool = True
    #: Where the cartridge came from.
    source: int | None = None
    #: Vendor, product and serial number of a drive.
    name: bytes = b""


def address_of(place: Place) -> int:
    """Return the element address of a drive, slot or port; ports come behind the last slot."""
    kind, number = place
    return number + (FIRST_DRIVE if kind is ElementKind.DRIVE else FIRST_SLOT)


def type_of(kind: ElementKind) -> ElementType:
    """Return the element type of a place."""
    return _TYPES[kind]


def place_of(address: int, elements: list[Element], field: int) -> Place:
    """Return which drive or slot has an address. Raises CheckCondition for any other; `field` names it in the CDB."""
    for each in elements:
        if address_of((each.kind, each.number)) == address:
            return each.kind, each.number
    raise refuse(INVALID_ELEMENT, field)


def element_status(elements: list[ElementState], *, tags: bool, names: bool) -> bytes:
    """Return the data of READ ELEMENT STATUS, a page for each type; `elements` are in order of address."""
    pages = []
    for kind in ElementType:
        chosen = [each for each in elements if each.type is kind]
        if chosen:
            pages.append(_page(kind, chosen, tags=tags, names=names))
    body = b"".join(pages)
    first = min((each.address for each in elements), default=0)
    head = first.to_bytes(2, "big") + len(elements).to_bytes(2, "big") + b"\0" + len(body).to_bytes(3, "big")
    return head + body


def _page(kind: ElementType, elements: list[ElementState], *, tags: bool, names: bool) -> bytes:
    # All descriptors of a page have one length.
    name_bytes = max(len(each.name) for each in elements) if names else 0
    descriptors = [_descriptor(each, tags=tags, name_bytes=name_bytes) for each in elements]
    body = b"".join(descriptors)
    head = bytes([kind, 0x80 * tags]) + len(descriptors[0]).to_bytes(2, "big") + b"\0" + len(body).to_bytes(3, "big")
    return head + body


def _descriptor(each: ElementState, *, tags: bool, name_bytes: int) -> bytes:
    full = each.barcode is not None
    # A transport element has no access bit.
    accessible = each.accessible and each.type is not ElementType.TRANSPORT
    # A port can be opened to put cartridges in and to take them out, and an operator's hand put in what is there.
    port = 0x30 | 0x02 * (full and each.source is None) if each.type is ElementType.IMPORT_EXPORT else 0
    head = each.address.to_bytes(2, "big") + bytes([full | 0x08 * accessible | port]) + bytes(6)
    if full and each.source is not None:
        head += b"\x81" + each.source.to_bytes(2, "big")
    else:
        head += bytes([0x01 * full, 0, 0])
    if tags:
        barcode = (each.barcode or "").encode("ascii", "replace")
        head += (barcode.ljust(_VOLUME_TAG_BYTES - 4) if full else bytes(_VOLUME_TAG_BYTES - 4)) + bytes(4)
    if not name_bytes:
        return head + bytes(4)
    return head + bytes([0x02, 0x01, 0, name_bytes]) + each.name.ljust(name_bytes)
