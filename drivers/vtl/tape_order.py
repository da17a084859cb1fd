"""The recommended access order of a tape drive, as LTO-9 drives have it. Belongs to its server, under its lock."""

from __future__ import annotations

from drivers.errors import EndOfData
from drivers.virtual.faults import BreakableDrive
from drivers.vtl.commands import Command, Done
from drivers.vtl.sense import INVALID_FIELD_IN_CDB, PARAMETER_LIST_LENGTH, refuse, refuse_parameter

#: Segments in one list: sorting as many takes 0.35 s.
MOST_SEGMENTS = 1000
SEGMENT_BYTES = 32
_HEADER_BYTES = 8
_LIMITS = 0x80
_AS_THEY_ARE, _REORDER = 1, 2


class TapeOrder:
    """Sorts segments by the drive's model of its motions, always the nearest next, and keeps the list.

    Segments have no geometry (type 0). A segment of one block is one as any other, and binds nothing.
    """

    def __init__(self, drive: BreakableDrive) -> None:
        self._drive = drive
        self._process = 0
        self._sorted = b""

    def forget(self) -> None:
        """The list is of another tape, or from before a reset."""
        self._process, self._sorted = 0, b""

    def generate(self, command: Command) -> Done:
        """GENERATE RECOMMENDED ACCESS ORDER: nothing moves."""
        process, length = command.cdb[2], command.number(6, 4)
        if process not in (_AS_THEY_ARE, _REORDER):
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        if command.cdb[3]:
            raise refuse(INVALID_FIELD_IN_CDB, 3)
        if not length:
            return Done()
        segments = _split(command.parameters(length))
        order = self._order(segments) if process == _REORDER else range(len(segments))
        self._process, self._sorted = process, b"".join(segments[number] for number in order)
        return Done(length, length)

    def _order(self, segments: list[bytes]) -> list[int]:
        extents = [(int.from_bytes(each[16:24], "big"), int.from_bytes(each[24:], "big")) for each in segments]
        try:
            return self._drive.nearest_first(extents)
        except EndOfData as error:
            raise refuse_parameter(_HEADER_BYTES) from error

    def receive(self, command: Command) -> Done:
        """RECEIVE RECOMMENDED ACCESS ORDER: the list from an offset on, or how much fits into one."""
        offset, allocated = command.number(2, 4), command.number(6, 4)
        if command.cdb[10]:
            raise refuse(INVALID_FIELD_IN_CDB, 10)
        if command.cdb[1] & _LIMITS:
            return command.give(MOST_SEGMENTS.to_bytes(2, "big") + SEGMENT_BYTES.to_bytes(2, "big"), allocated)
        if offset % SEGMENT_BYTES or offset > len(self._sorted):
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        header = bytes([self._process, 0, 0, 0]) + len(self._sorted).to_bytes(4, "big")
        return command.give(header + self._sorted[offset:], allocated)


def _split(data: bytes) -> list[bytes]:
    """Return the segments of a parameter list. Raises CheckCondition when one makes no sense."""
    if len(data) < _HEADER_BYTES:
        raise refuse(PARAMETER_LIST_LENGTH)
    size = int.from_bytes(data[4:8], "big")
    if size != len(data) - _HEADER_BYTES or size % SEGMENT_BYTES or size > MOST_SEGMENTS * SEGMENT_BYTES:
        raise refuse_parameter(4)
    starts = range(_HEADER_BYTES, len(data), SEGMENT_BYTES)
    for at in starts:
        if int.from_bytes(data[at : at + 2], "big") != SEGMENT_BYTES - 2:
            raise refuse_parameter(at)
        if data[at + 15]:
            raise refuse_parameter(at + 15)
        if data[at + 16 : at + 24] > data[at + 24 : at + 32]:
            raise refuse_parameter(at + 24)
    return [data[at : at + SEGMENT_BYTES] for at in starts]
