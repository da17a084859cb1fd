"""Where a tape stands and what blocks it takes: READ POSITION (long form) and READ BLOCK LIMITS. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass

from drivers.scsi.fields import Fields


@dataclass(frozen=True, slots=True)
class LongPosition:
    """READ POSITION, long form."""

    #: The head is at the beginning of the partition.
    at_beginning: bool
    #: The head is between early warning and the end of the partition.
    behind_warning: bool
    partition: int
    #: Logical block that comes next, filemarks counted; None when the drive does not know.
    block: int | None
    #: Filemarks before it; None when the drive does not know.
    file: int | None


def parse_position_long(data: bytes) -> LongPosition:
    """Decode 32 bytes. Raises BadAnswer."""
    fields = Fields(data, "the answer to READ POSITION")
    fields.raw(0, 32)
    is_block_unknown, is_file_unknown = fields.bit(0, 2), fields.bit(0, 3)
    return LongPosition(
        at_beginning=fields.bit(0, 7),
        behind_warning=fields.bit(0, 6),
        partition=fields.number(4, 4),
        block=None if is_block_unknown else fields.number(8, 8),
        file=None if is_file_unknown else fields.number(16, 8),
    )


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """READ BLOCK LIMITS."""

    #: Lengths are multiples of this.
    granularity_bytes: int
    #: 0 when the drive names no limit.
    max_bytes: int
    min_bytes: int


def parse_block_limits(data: bytes) -> BlockLimits:
    """Decode 6 bytes. Raises BadAnswer."""
    fields = Fields(data, "the answer to READ BLOCK LIMITS")
    return BlockLimits(1 << fields.bits(0, 4, 0), fields.number(1, 3), fields.number(4, 2))
