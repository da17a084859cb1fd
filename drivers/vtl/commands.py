"""Commands, answers, and the table entries that name what a device server knows. Pure; any thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NewType

from drivers.scsi.transport import Status
from drivers.vtl.sense import INVALID_FIELD_IN_CDB, PARAMETER_LIST_LENGTH, Sense, refuse

#: Name of the initiator port that speaks, for iSCSI its name and session id.
Nexus = NewType("Nexus", str)

_EMPTY = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Command:
    """One command of one initiator."""

    nexus: Nexus
    cdb: bytes
    #: What was sent with it.
    data_out: memoryview = _EMPTY
    #: Room for what it gives; as long as the initiator expects.
    data_in: memoryview = _EMPTY

    def number(self, first: int, count: int) -> int:
        """Return `count` bytes of the CDB as a number."""
        return int.from_bytes(self.cdb[first : first + count], "big")

    def parameters(self, length: int) -> bytes:
        """Return the `length` bytes of parameters that were sent with it. Raises CheckCondition when some lack."""
        if length > len(self.data_out):
            raise refuse(PARAMETER_LIST_LENGTH)
        return bytes(self.data_out[:length])

    def give(self, data: bytes, allocated: int) -> Done:
        """Put `data` into the room, as far as it was `allocated`."""
        wanted = min(len(data), allocated)
        moved = min(wanted, len(self.data_in))
        self.data_in[:moved] = data[:moved]
        return Done(moved, wanted)


@dataclass(frozen=True, slots=True)
class Done:
    """How a command went that was not refused."""

    #: Bytes moved, and bytes that would have been if the initiator had expected enough.
    moved_bytes: int = 0
    wanted_bytes: int = 0
    #: A CHECK CONDITION nevertheless: filemarks, early warning, wrong lengths.
    sense: Sense | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the initiator."""

    status: Status
    sense: bytes = b""
    moved_bytes: int = 0
    wanted_bytes: int = 0


class Access(Enum):
    """Who may send a command while somebody else holds a reservation."""

    #: Everybody, always.
    ANYBODY = "anybody"
    #: Everybody but under RESERVE(6).
    ALWAYS = "always"
    #: As long as the reservation is for writing only.
    READER = "reader"
    #: The holder only; whoever moves the tape, reads or writes.
    HOLDER = "holder"


@dataclass(frozen=True, slots=True)
class Operation:
    """A command that a device server knows."""

    name: str
    #: Opcode (and service action), then per byte of the CDB the bits that are looked at.
    usage: bytes
    run: Callable[[Command], Done]
    access: Access = Access.HOLDER
    #: Seconds it may take.
    timeout_s: int = 60
    #: Has it a service action, in the low five bits of byte 1?
    has_action: bool = False

    @property
    def opcode(self) -> int:
        """Return the first byte of its CDBs."""
        return self.usage[0]

    @property
    def action(self) -> int | None:
        """Return the service action, None for a command without."""
        return self.usage[1] & 0x1F if self.has_action else None

    def check(self, cdb: bytes) -> None:
        """Refuse a CDB that is too short, or has bits where there is nothing to be said. Raises CheckCondition."""
        if len(cdb) < len(self.usage):
            raise refuse(INVALID_FIELD_IN_CDB, len(cdb))
        for byte in range(1, len(self.usage) - 1):
            known = self.usage[byte] | (0x1F if byte == 1 and self.has_action else 0)
            if cdb[byte] & ~known:
                raise refuse(INVALID_FIELD_IN_CDB, byte)


def operation(
    name: str,
    usage: str,
    run: Callable[[Command], Done],
    access: Access = Access.HOLDER,
    timeout_s: int = 60,
    *,
    action: bool = False,
) -> Operation:
    """Return a table entry; `usage` is hexadecimal, `..` a byte that is looked at with all its bits."""
    return Operation(name, bytes.fromhex(usage.replace("..", "ff")), run, access, timeout_s, action)
