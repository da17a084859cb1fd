"""Commands for media changers (SMC), as bytes. Pure; any thread."""

from __future__ import annotations

from enum import IntEnum

from drivers.scsi.cdb import Op, field


class ElementType(IntEnum):
    """What a place in a library is. ALL is left out: one type per request, some libraries answer nothing else well."""

    TRANSPORT = 1
    STORAGE = 2
    IMPORT_EXPORT = 3
    DATA_TRANSFER = 4


def read_element_status(
    kind: ElementType,
    allocation_bytes: int,
    *,
    first: int = 0,
    count: int = 0xFFFF,
    barcodes: bool = False,
    device_ids: bool = False,
) -> bytes:
    """READ ELEMENT STATUS of one type. Barcodes and drives' serials are asked apart: some libraries mix them up."""
    head = bytes([Op.READ_ELEMENT_STATUS, barcodes << 4 | kind])
    return head + field(first, 2) + field(count, 2) + bytes([device_ids]) + field(allocation_bytes, 3) + bytes(2)


def move_medium(source: int, target: int, *, robot: int = 0) -> bytes:
    """MOVE MEDIUM between element addresses; robot 0 is the library's choice."""
    return bytes([Op.MOVE_MEDIUM, 0]) + field(robot, 2) + field(source, 2) + field(target, 2) + bytes(4)
