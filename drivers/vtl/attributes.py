"""READ ATTRIBUTE and WRITE ATTRIBUTE: the cartridge's memory. Belongs to its server, under its lock."""

from __future__ import annotations

from dataclasses import dataclass

from drivers.errors import DriveError
from drivers.interface import DriveStatus
from drivers.virtual.condition import CLEANINGS, is_cleaning
from drivers.virtual.faults import BreakableDrive
from drivers.virtual.memory import Attribute, MemoryRecord
from drivers.vtl.commands import Command, Done
from drivers.vtl.density import DENSITIES
from drivers.vtl.failures import sense_of
from drivers.vtl.sense import (
    INVALID_FIELD_IN_CDB,
    NO_MEDIUM,
    PARAMETER_LIST_LENGTH,
    CheckCondition,
    not_ready,
    refuse,
    refuse_parameter,
)

MIB = 2**20
_BINARY, _ASCII, _TEXT = 0, 1, 2
_READ_ONLY = 0x80
_HEADER_BYTES = 5
_BARCODE = 0x0806


@dataclass(frozen=True, slots=True)
class HostAttribute:
    """An attribute that hosts may write."""

    kind: int
    #: Length of its value; shorter ones are allowed when it is not `exact`.
    length: int
    exact: bool = True


#: SPC's host type attributes, as LTO drives have them.
HOST_ATTRIBUTES = {
    0x0800: HostAttribute(_ASCII, 8),
    0x0801: HostAttribute(_ASCII, 32),
    0x0802: HostAttribute(_ASCII, 8),
    0x0803: HostAttribute(_TEXT, 160, exact=False),
    0x0804: HostAttribute(_ASCII, 12),
    0x0805: HostAttribute(_BINARY, 1),
    _BARCODE: HostAttribute(_ASCII, 32, exact=False),
    0x0807: HostAttribute(_TEXT, 80, exact=False),
    0x0808: HostAttribute(_TEXT, 160, exact=False),
    0x0809: HostAttribute(_ASCII, 16),
    0x080A: HostAttribute(_ASCII, 32),
    0x080B: HostAttribute(_ASCII, 16),
    0x080C: HostAttribute(_BINARY, 1023, exact=False),
    0x0820: HostAttribute(_BINARY, 36, exact=False),
    0x0821: HostAttribute(_BINARY, 36, exact=False),
}


class Attributes:
    """The memory of the cartridge in a drive, threaded or not."""

    def __init__(self, drive: BreakableDrive) -> None:
        self._drive = drive

    # -- READ ATTRIBUTE ------------------------------------------------------------------------------------------

    def read(self, command: Command) -> Done:
        """READ ATTRIBUTE, the service actions for values, list, volumes, partitions and what is supported."""
        action, allocated = command.cdb[1] & 0x1F, command.number(10, 4)
        for field in (5, 7):
            if command.cdb[field]:
                raise refuse(INVALID_FIELD_IN_CDB, field)
        if action in (2, 3):
            # One logical volume, one partition.
            return command.give(bytes([0, 2, 0, 1]), allocated)
        known = self._all()
        first = command.number(8, 2)
        if action == 5:
            known |= {number: b"" for number in HOST_ATTRIBUTES}
        chosen = {number: data for number, data in sorted(known.items()) if number >= first or action != 0}
        if not chosen:
            raise refuse(INVALID_FIELD_IN_CDB, 8)
        body = b"".join(chosen.values()) if action == 0 else b"".join(n.to_bytes(2, "big") for n in chosen)
        return command.give(len(body).to_bytes(4, "big") + body, allocated)

    def _all(self) -> dict[int, bytes]:
        """Return all attributes that have a value, as they go over the wire."""
        try:
            status = self._drive.status()
            if status.barcode is None or status.medium_generation is None:
                raise not_ready(NO_MEDIUM)
            memory = self._drive.memory()
        except DriveError as error:
            raise CheckCondition(sense_of(error)) from error
        found = _device_attributes(status, memory) | _medium_attributes(status, status.medium_generation)
        found[0x0408] = _encode(0x0408, _BINARY, bytes([0x80 * self._drive.worm]), read_only=True)
        if is_cleaning(status.barcode):
            # Of such a cartridge the next attribute says how often it may clean.
            found[0x0408], found[0x0409] = _number(0x0408, 0x01, 1), _number(0x0409, CLEANINGS, 2)
        found[_BARCODE] = _encode(_BARCODE, _ASCII, status.barcode.encode("ascii", "replace").ljust(32))
        for key, each in memory.attributes.items():
            found[int(key, 16)] = _encode(int(key, 16), each.kind, each.value)
        return found

    # -- WRITE ATTRIBUTE -----------------------------------------------------------------------------------------

    def write(self, command: Command) -> Done:
        """WRITE ATTRIBUTE; all of them are checked before one is written."""
        length = command.number(10, 4)
        for field in (5, 7):
            if command.cdb[field]:
                raise refuse(INVALID_FIELD_IN_CDB, field)
        if not length:
            return Done()
        data = command.parameters(length)
        if length < 4 or int.from_bytes(data[:4], "big") != length - 4:
            raise refuse(PARAMETER_LIST_LENGTH)
        wanted = _parse(data)
        try:
            for number, attribute in wanted:
                self._drive.write_attribute(number, attribute)
        except DriveError as error:
            raise CheckCondition(sense_of(error)) from error
        return Done(length, length)


def _parse(data: bytes) -> list[tuple[int, Attribute | None]]:
    wanted: list[tuple[int, Attribute | None]] = []
    at = 4
    while at < len(data):
        if at + _HEADER_BYTES > len(data):
            raise refuse(PARAMETER_LIST_LENGTH)
        number, kind = int.from_bytes(data[at : at + 2], "big"), data[at + 2] & 3
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        known = HOST_ATTRIBUTES.get(number)
        if known is None:
            raise refuse_parameter(at)
        if length and kind != known.kind:
            raise refuse_parameter(at + 2)
        if length > known.length or (length and known.exact and length != known.length):
            raise refuse_parameter(at + 3)
        value = data[at + _HEADER_BYTES : at + _HEADER_BYTES + length]
        if len(value) < length:
            raise refuse(PARAMETER_LIST_LENGTH)
        wanted.append((number, Attribute(kind, value) if length else None))
        at += _HEADER_BYTES + length
    return wanted


def _encode(number: int, kind: int, value: bytes, *, read_only: bool = False) -> bytes:
    return number.to_bytes(2, "big") + bytes([kind | _READ_ONLY * read_only]) + len(value).to_bytes(2, "big") + value


def _number(number: int, value: int, length: int) -> bytes:
    return _encode(number, _BINARY, min(value, (1 << 8 * length) - 1).to_bytes(length, "big"), read_only=True)


def _text(number: int, text: str, length: int) -> bytes:
    return _encode(number, _ASCII, text.encode("ascii", "replace")[:length].ljust(length), read_only=True)


def _device_attributes(status: DriveStatus, memory: MemoryRecord) -> dict[int, bytes]:
    """Return what drives write: capacities in MiB, flags of TapeAlert, loads, the last drives, MiB moved."""
    found = {
        0x0000: _number(0x0000, -(-status.remaining_bytes // MIB), 8),
        0x0001: _number(0x0001, status.capacity_bytes // MIB, 8),
        0x0002: _number(0x0002, 0, 8),
        0x0003: _number(0x0003, memory.loads, 8),
        0x0004: _number(0x0004, 0, 8),
        0x0005: _text(0x0005, "LTO-CVE", 8),
        0x0006: _number(0x0006, DENSITIES[status.medium_generation or status.generation].code, 1),
        0x0220: _number(0x0220, memory.written_bytes // MIB, 8),
        0x0221: _number(0x0221, memory.read_bytes // MIB, 8),
        0x0222: _number(0x0222, memory.last_written_bytes // MIB, 8),
        0x0223: _number(0x0223, memory.last_read_bytes // MIB, 8),
    }
    for number, identity in enumerate(memory.drives, 0x020A):
        vendor, _, rest = identity.partition(" ")
        found[number] = _text(number, f"{vendor:8.8}{rest.rpartition(' ')[2]}", 40)
    return found


def _medium_attributes(status: DriveStatus, generation: int) -> dict[int, bytes]:
    """Return what the maker wrote: manufacturer, serial number, length, width, density, capacity of the chip."""
    return {
        0x0400: _text(0x0400, "TAPEFS", 8),
        0x0401: _text(0x0401, status.barcode or "", 32),
        0x0403: _number(0x0403, 127, 4),
        0x0404: _text(0x0404, "LTO-CVE", 8),
        0x0405: _number(0x0405, DENSITIES[generation].code, 1),
        0x0407: _number(0x0407, 16_384, 8),
        0x0409: _number(0x0409, 0, 2),
    }
