"""A drive's Recommended Access Order: commands, lists of segments, and answers, as bytes. Pure; any thread.

GENERATE RAO takes segments of the tape and has the drive sort them; RECEIVE RAO returns them sorted, or tells how many
the drive takes. LTO-9 of full height and 3592 know both. Segments are sent without their geometry (type 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drivers.scsi.cdb import Op, field
from drivers.scsi.fields import Fields

#: GENERATE is MAINTENANCE OUT with this service action, RECEIVE is MAINTENANCE IN with the same.
RECOMMENDED_ACCESS_ORDER = 0x1D
#: What the drive does with the segments: sort them.
REORDER = 2
HEADER_BYTES = 8
#: A segment without geometry, with its length field.
SEGMENT_BYTES = 32
NAME_BYTES = 10
LIMITS_BYTES = 4
_UDS_LIMITS = 0x80
_LENGTH_BYTES = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """What a drive takes."""

    most_segments: int
    #: Length of one segment in the sorted list.
    segment_bytes: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the tape, both ends included."""

    #: Ten bytes of the sender's, which come back as they were.
    name: bytes
    first_block: int
    last_block: int
    partition: int = 0


def generate_rao(list_bytes: int) -> bytes:
    """GENERATE RECOMMENDED ACCESS ORDER; `list_bytes` is the length of what is sent with it."""
    head = bytes([Op.MAINTENANCE_OUT, RECOMMENDED_ACCESS_ORDER, REORDER, 0, 0, 0])
    return head + field(list_bytes, 4) + bytes(2)


def receive_rao(allocation_bytes: int, *, offset_bytes: int = 0, limits: bool = False) -> bytes:
    """RECEIVE RECOMMENDED ACCESS ORDER: the sorted list, or the drive's limits."""
    head = bytes([Op.MAINTENANCE_IN, _UDS_LIMITS * limits | RECOMMENDED_ACCESS_ORDER])
    return head + field(offset_bytes, 4) + field(allocation_bytes, 4) + bytes(2)


def rao_parameters(segments: Sequence[Segment]) -> bytes:
    """Return what goes with GENERATE RAO. Raises ValueError for numbers and names that do not fit."""
    body = b"".join(_encode(each) for each in segments)
    return bytes(4) + field(len(body), 4) + body


def _encode(segment: Segment) -> bytes:
    if len(segment.name) != NAME_BYTES:
        raise ValueError(f"the name of a segment has {NAME_BYTES} bytes, not {len(segment.name)}")
    head = field(SEGMENT_BYTES - _LENGTH_BYTES, 2) + bytes(3) + segment.name
    return head + field(segment.partition, 1) + field(segment.first_block, 8) + field(segment.last_block, 8)


def parse_rao_limits(data: bytes) -> Limits:
    """Decode the answer with the limits. Raises BadAnswer."""
    fields = Fields(data, "the limits of the recommended access order")
    return Limits(fields.number(0, 2), fields.number(2, 2))


def parse_rao_list(data: bytes) -> list[Segment]:
    """Decode the sorted list; each segment says how long it is. Raises BadAnswer, also for a list that was cut."""
    fields = Fields(data, "the recommended access order")
    body = fields.part(HEADER_BYTES, fields.number(4, 4))
    found = []
    at = 0
    while at < len(body):
        one = body.part(at, _LENGTH_BYTES + body.number(at, _LENGTH_BYTES))
        found.append(Segment(one.raw(5, NAME_BYTES), one.number(16, 8), one.number(24, 8), one.number(15)))
        at += len(one)
    return found
