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


def initialize_element_status() -> bytes:
    """INITIALIZE ELEMENT STATUS: look at every place; may take half an hour."""
    return bytes([Op.INITIALIZE_ELEMENT_STATUS, 0, 0, 0, 0, 0])


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


def exchange_medium(source: int, target: int, second_target: int, *, robot: int = 0) -> bytes:
    """EXCHANGE MEDIUM: what is in `source` goes to `target`, what was there to `second_target`."""
    head = bytes([Op.EXCHANGE_MEDIUM, 0]) + field(robot, 2)
    return head + field(source, 2) + field(target, 2) + field(second_target, 2) + bytes(2)


def position_to_element(target: int, *, robot: int = 0) -> bytes:
    """POSITION TO ELEMENT: go there and wait."""
    return bytes([Op.LOCATE_10, 0]) + field(robot, 2) + field(target, 2) + bytes(4)
