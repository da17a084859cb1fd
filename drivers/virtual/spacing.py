"""Spacing over blocks, as SCSI wants it: forwards or backwards, and not over a filemark. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from drivers.virtual.cartridge import Cartridge


class Stop(Enum):
    """Why spacing ended."""

    #: All was passed.
    DONE = "done"
    #: A filemark was met; the head stands on its far side.
    FILEMARK = "filemark"
    #: The end of data, or block 0.
    END = "end"
    START = "start"


@dataclass(frozen=True, slots=True)
class Spaced:
    """How far it went."""

    #: Blocks passed, without a filemark that stopped it.
    passed: int
    stop: Stop
    #: Logical block before which the head stands then.
    block: int


def plan_blocks(tape: Cartridge, count: int) -> Spaced:
    """Return where spacing over `count` blocks ends, backwards when it is negative."""
    head = tape.head_block
    first, behind = tape.bounds()
    if count >= 0:
        if head + count <= behind:
            return Spaced(count, Stop.DONE, head + count)
        if behind < tape.end_block:
            return Spaced(behind - head, Stop.FILEMARK, behind + 1)
        return Spaced(behind - head, Stop.END, behind)
    if head + count >= first:
        return Spaced(-count, Stop.DONE, head + count)
    if first > 0:
        return Spaced(head - first, Stop.FILEMARK, first - 1)
    return Spaced(head, Stop.START, 0)
