"""READ ELEMENT STATUS: the places of a library and what is in them. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass

from drivers.errors import BadAnswer
from drivers.scsi.fields import Fields
from drivers.scsi.inquiry import Designator, parse_designator
from drivers.scsi.robot_cdb import ElementType

#: What every element tells, and a volume tag, whose first bytes are the barcode.
_HEAD_BYTES = 12
_TAG_BYTES = 36
_BARCODE_BYTES = 32


@dataclass(frozen=True, slots=True)
class ElementStatus:
    """One place of a library."""

    kind: ElementType
    address: int
    full: bool
    #: The robot can take what is here; of a drive: the cartridge is ejected.
    accessible: bool
    #: Something is wrong with this place; `asc` and `ascq` say what, for instance 83/00 for an unread barcode.
    excepted: bool
    asc: int
    ascq: int
    #: Where the cartridge came from; None when the library does not know.
    source: int | None
    barcode: str | None
    #: The drive that is here, when that was asked for.
    device: Designator | None
    #: Import/export elements only: a human put the cartridge there, not the robot.
    by_hand: bool = False


def parse_element_status(data: bytes) -> list[ElementStatus]:
    """Decode the answer, in the order of the addresses. Raises BadAnswer.

    An element that was cut at the end is left out, unless all that matters of it is there: some libraries count their
    last one a few bytes short.
    """
    fields = Fields(data, "the element status")
    fields.raw(0, 8)
    fields = fields.upto(8 + fields.number(5, 3))
    found: list[ElementStatus] = []
    at = 8
    while at + 8 <= len(fields):
        size = fields.number(at + 5, 3)
        page = fields.upto(at + 8 + size)
        found += _parse_page(Fields(page.rest(at), fields.name))
        at += 8 + size
    return sorted(found, key=lambda each: each.address)


def _parse_page(page: Fields) -> list[ElementStatus]:
    try:
        kind = ElementType(page.number(0))
    except ValueError:
        raise BadAnswer(f"the library has elements of the unknown type {page.number(0)}") from None
    has_tag, has_alternate = page.bit(1, 7), page.bit(1, 6)
    size = page.number(2, 2)
    if size < _HEAD_BYTES + _TAG_BYTES * (has_tag + has_alternate):
        raise BadAnswer(f"the library describes an element with {size} bytes, too few")
    least = _HEAD_BYTES + _BARCODE_BYTES * has_tag
    records = [page.rest(at)[:size] for at in range(8, len(page), size)]
    whole = [Fields(each.ljust(size, b"\0"), page.name) for each in records if len(each) >= least]
    return [_parse_element(each, kind, has_tag, has_alternate) for each in whole]


def _parse_element(fields: Fields, kind: ElementType, has_tag: bool, has_alternate: bool) -> ElementStatus:
    full = fields.bit(2, 0)
    barcode = fields.text(_HEAD_BYTES, _BARCODE_BYTES) if has_tag and full else ""
    is_port = kind is ElementType.IMPORT_EXPORT
    return ElementStatus(
        kind=kind,
        address=fields.number(0, 2),
        full=full,
        # A robot's own hand has no such bit.
        accessible=kind is ElementType.TRANSPORT or fields.bit(2, 3),
        excepted=fields.bit(2, 2),
        asc=fields.number(4),
        ascq=fields.number(5),
        source=fields.number(10, 2) if fields.bit(9, 7) else None,
        barcode=barcode or None,
        device=_parse_device(fields, _HEAD_BYTES + _TAG_BYTES * (has_tag + has_alternate)),
        by_hand=is_port and full and fields.bit(2, 1),
    )


def _parse_device(fields: Fields, at: int) -> Designator | None:
    """Decode the name of the drive, which has the same form as in the INQUIRY page 83h."""
    if at + 4 > len(fields) or fields.number(at + 3) == 0 or at + 4 + fields.number(at + 3) > len(fields):
        return None
    return parse_designator(fields.part(at, 4 + fields.number(at + 3)))
