"""LOG SENSE and LOG SELECT: pages of parameters. Pure; belongs to its server, under its lock."""

from __future__ import annotations

from collections.abc import Callable

from drivers.vtl.commands import Command, Done
from drivers.vtl.sense import INVALID_FIELD_IN_CDB, refuse, refuse_parameter

#: Control byte of a parameter: binary list, or ASCII list.
_BINARY, _ASCII = 0x03, 0x01
#: Of LOG SELECT: parameter code reset, and the page control that chooses default cumulative values.
_RESET, _DEFAULT_CUMULATIVE = 0x02, 3


def parameter(code: int, value: int, length: int) -> bytes:
    """Return a log parameter with a number of `length` bytes; larger ones saturate."""
    data = min(value, (1 << 8 * length) - 1).to_bytes(length, "big")
    return code.to_bytes(2, "big") + bytes([_BINARY, length]) + data


def text_parameter(code: int, text: str, length: int) -> bytes:
    """Return a log parameter with text, padded."""
    data = text.encode("ascii", "replace")[:length].ljust(length)
    return code.to_bytes(2, "big") + bytes([_ASCII, length]) + data


def flags_parameter(code: int, flags: bytes) -> bytes:
    """Return a log parameter with bits."""
    return code.to_bytes(2, "big") + bytes([_BINARY, len(flags)]) + flags


class Logs:
    """The log pages of a device."""

    def __init__(
        self, pages: dict[int, Callable[[], list[bytes]]], resets: dict[int, Callable[[], None]] | None = None
    ) -> None:
        """`pages`: what gives the parameters of each page, in order of their codes. `resets`: those that begin anew."""
        self._pages = pages
        self._resets = resets or {}

    def select(self, command: Command) -> Done:
        """LOG SELECT: have the counters of one page, or of all (page 0), begin anew. None can be set to a value."""
        if command.cdb[1] & 0x01:
            raise refuse(INVALID_FIELD_IN_CDB, 1)
        control, number, length = command.cdb[2] >> 6, command.cdb[2] & 0x3F, command.number(7, 2)
        if command.cdb[3] or (number and number not in self._pages):
            raise refuse(INVALID_FIELD_IN_CDB, 3 if command.cdb[3] else 2)
        if length:
            command.parameters(length)
            raise refuse(INVALID_FIELD_IN_CDB, 7) if command.cdb[1] & _RESET else refuse_parameter(0)
        # Cumulative values take their defaults with the bit for that, and when the defaults are chosen.
        if command.cdb[1] & _RESET or control == _DEFAULT_CUMULATIVE:
            for each, reset in self._resets.items():
                if number in (0, each):
                    reset()
        return Done()

    def sense(self, command: Command) -> Done:
        """LOG SENSE; parameters from the pointer on."""
        if command.cdb[1] & 0x01:
            raise refuse(INVALID_FIELD_IN_CDB, 1)
        if command.cdb[2] >> 6 not in (0, 1):
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        number, subpage, first = command.cdb[2] & 0x3F, command.cdb[3], command.number(5, 2)
        if subpage:
            raise refuse(INVALID_FIELD_IN_CDB, 3)
        if number == 0:
            body = bytes(sorted([0, *self._pages]))
        elif number in self._pages:
            parameters = self._pages[number]()
            if first > max(int.from_bytes(each[:2], "big") for each in parameters):
                raise refuse(INVALID_FIELD_IN_CDB, 5)
            body = b"".join(each for each in parameters if int.from_bytes(each[:2], "big") >= first)
        else:
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        return command.give(bytes([number, 0]) + len(body).to_bytes(2, "big") + body, command.number(7, 2))
