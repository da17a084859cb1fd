"""PDUs of iSCSI: numbers, and headers as bytes. Pure; any thread."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

HEADER_BYTES = 48
#: A tag that names nothing.
NO_TAG = 0xFFFFFFFF
FINAL = 0x80


class Opcode(IntEnum):
    """Kinds of PDUs; without the bit for immediate delivery."""

    NOP_OUT = 0x00
    COMMAND = 0x01
    TASK_MANAGEMENT = 0x02
    LOGIN = 0x03
    TEXT = 0x04
    DATA_OUT = 0x05
    LOGOUT = 0x06
    SNACK = 0x10
    NOP_IN = 0x20
    RESPONSE = 0x21
    TASK_MANAGEMENT_RESPONSE = 0x22
    LOGIN_RESPONSE = 0x23
    TEXT_RESPONSE = 0x24
    DATA_IN = 0x25
    LOGOUT_RESPONSE = 0x26
    READY_TO_TRANSFER = 0x31
    ASYNC = 0x32
    REJECT = 0x3F


class ProtocolError(Exception):
    """The peer does what RFC 7143 forbids, or more than it was promised: the session ends. Never leaves the portal."""


@dataclass(frozen=True, slots=True)
class Header:
    """The basic header segment that came from an initiator."""

    raw: bytes
    opcode: int
    is_immediate: bool
    flags: int
    #: Bytes of data that follow, without padding.
    data_bytes: int
    lun: bytes
    #: Initiator task tag.
    tag: int
    #: Bytes 20 to 47 as numbers of 32 bits: target transfer tag or expected length, CmdSN, ExpStatSN, and so on.
    words: tuple[int, ...]

    @property
    def command_number(self) -> int:
        """Return CmdSN."""
        return self.words[1]


_FIRST = struct.Struct(">BBHI8sI7I")


def parse_header(raw: bytes) -> Header:
    """Take a header apart; additional headers are told by its byte 4."""
    first, flags, _, lengths, lun, tag, *words = _FIRST.unpack(raw)
    return Header(raw, first & 0x3F, bool(first & 0x40), flags, lengths & 0xFFFFFF, lun, tag, tuple(words))


_RESPONSE = struct.Struct(">BBBB I 8s I I III III")


def header(
    opcode: Opcode,
    *,
    flags: int = FINAL,
    bytes_2_3: tuple[int, int] = (0, 0),
    data_bytes: int = 0,
    lun: bytes = bytes(8),
    tag: int = NO_TAG,
    word: int = 0,
    numbers: tuple[int, int, int] = (0, 0, 0),
    last: tuple[int, int, int] = (0, 0, 0),
) -> bytes:
    """Return a header of the target: `numbers` are StatSN, ExpCmdSN, MaxCmdSN, `last` the words behind them."""
    return _RESPONSE.pack(opcode, flags, *bytes_2_3, data_bytes, lun, tag, word, *numbers, *last)


def decode_lun(raw: bytes) -> int | None:
    """Return the number of a single-level LUN, None for one that is none."""
    method = raw[0] >> 6
    if any(raw[2:]) or method not in (0, 1) or (method == 0 and raw[0]):
        return None
    return int.from_bytes(raw[:2], "big") & 0x3FFF


def is_after(first: int, second: int) -> bool:
    """Tell whether a serial number comes after another one; they wrap around at 32 bits."""
    return 0 < (first - second) % 2**32 < 2**31
