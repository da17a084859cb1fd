"""The seam between SCSI and the ways to a device: SG_IO, libiscsi, or a device server in the same process.

All calls block. A transport is used by one thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class Status(IntEnum):
    """How a command ended, as SAM numbers it."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


@dataclass(frozen=True, slots=True)
class Reply:
    """What a device answered. Sense is no error here: whoever sent the command knows what it means for it."""

    status: Status
    #: Sense data as they came, of either format; empty unless the status is CHECK_CONDITION.
    sense: bytes = b""
    #: Bytes that the device moved: into the buffer that was given to it, or out of the one that was sent.
    moved_bytes: int = 0


class Transport(Protocol):
    """A way to one logical unit."""

    #: The largest transfer in one command.
    max_transfer_bytes: int

    def execute(
        self,
        cdb: bytes,
        *,
        data_in: memoryview | None = None,
        data_out: bytes | memoryview | None = None,
        timeout_s: float,
    ) -> Reply:
        """Send a command and wait for its end.

        At most one of `data_in` (writable, filled from its start) and `data_out` is given. Raises TransportFailed
        when nobody knows whether the command was done: the way is broken, or `timeout_s` is over. Raises DeviceGone
        when the device cannot be reached any more.
        """
        ...

    def close(self) -> None:
        """Let go of the device. Harmless twice."""
        ...
