"""The kernel's tape driver `st` through its ioctls: what <linux/mtio.h> has, for nodes that do not rewind on close.

All calls block, a long motion for hours, in a kernel call that nothing interrupts. Errors are OSError: what they mean
on a tape is told in `drive.py`.

What `st` remembers on its own matters to whoever also sends SCSI commands past it:

* After a write it is "writing": on close, rewind, seek and the like it writes a filemark by itself, wherever the
  tape stands by then.
* After early warning, filemarks and the end of data it has a note, which spoils the next read or write if the tape was
  moved past it.
* File and block numbers are its own count. They are not used here.

`forget` ends the first two without moving the tape.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path

MTIOCTOP = 0x40086D01
MTIOCGET = 0x80306D02
MTIOCPOS = 0x80086D03
_TOP = struct.Struct("hxxi")
_GET = struct.Struct("lllllii")
_POS = struct.Struct("l")

#: The device driver's limit for one command, in bytes: SCSI gives a length 24 bits.
MAX_BLOCK_BYTES = 2**24 - 1


class Op(IntEnum):
    """Operations of MTIOCTOP that are used here."""

    REWIND = 6
    SKIP_BLOCKS = 3
    SET_BLOCK_SIZE = 20
    OPTIONS = 24
    WRITE_FILEMARKS = 5
    WRITE_FILEMARKS_AT_ONCE = 35
    COMPRESSION = 32


class Flag(IntFlag):
    """Bits of `mt_gstat` that are used here."""

    END_OF_FILE = 0x80000000
    START = 0x40000000
    #: Early warning or end of the tape, in the last write.
    END_OF_TAPE = 0x20000000
    END_OF_DATA = 0x08000000
    WRITE_PROTECTED = 0x04000000
    ONLINE = 0x01000000
    EMPTY = 0x00040000
    CLEANING = 0x00008000


class Option(IntFlag):
    """Switches of st that `Op.OPTIONS` sets and clears, see st(4)."""

    BUFFER_WRITES = 0x1
    ASYNC_WRITES = 0x2
    READ_AHEAD = 0x4
    TWO_FILEMARKS = 0x10
    FAST_END = 0x20
    LOCK_DOOR = 0x40
    PARTITIONS = 0x400
    SCSI2_LOGICAL = 0x800
    SYSV = 0x1000
    NO_WAIT = 0x2000
    FILEMARKS_AT_ONCE = 0x8000


_SET_OPTIONS = 0x30000000
_CLEAR_OPTIONS = 0x40000000
_TIMEOUT_S = 0x70000000


@dataclass(frozen=True, slots=True)
class State:
    """What MTIOCGET tells."""

    flags: Flag
    #: Size of all blocks, 0 in variable-block mode.
    block_size_bytes: int
    density: int


class TapeNode:
    """An open /dev/nstN. st gives it to one process at a time. One thread."""

    def __init__(
        self, node: Path, *, ioctl: Callable[[int, int, bytes | bytearray, bool], object] = fcntl.ioctl
    ) -> None:
        """Open the node, whether or not a tape is ready in it. Raises OSError; EBUSY: another process has it."""
        self.node = node
        self._ioctl = ioctl
        self._descriptor = self._open()

    def _open(self) -> int:
        # With O_NONBLOCK it opens without a tape too; without, it waits two minutes for one.
        return os.open(self.node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def reopen(self) -> None:
        """Have st look again what is in the drive: it does that only when it is opened. Raises as __init__."""
        self.close()
        self._descriptor = self._open()

    def fileno(self) -> int:
        """Return the descriptor. Raises OSError after close."""
        if self._descriptor < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._descriptor

    def do(self, operation: int, count: int = 1) -> None:
        """Do one operation of MTIOCTOP, see `Op`."""
        self._ioctl(self.fileno(), MTIOCTOP, _TOP.pack(operation, count), False)

    def state(self) -> State:
        """Return what st knows; an error of a write that was still under way is raised here."""
        answer = bytearray(_GET.size)
        self._ioctl(self.fileno(), MTIOCGET, answer, True)
        _, _, density_and_size, flags, *_ = _GET.unpack(answer)
        return State(Flag(flags & 0xFFFFFFFF), density_and_size & 0xFFFFFF, density_and_size >> 24 & 0xFF)

    def block_address(self) -> int:
        """Return where the tape stands, as st's MTTELL does; a witness, `drive.py` asks with READ POSITION."""
        answer = bytearray(_POS.size)
        self._ioctl(self.fileno(), MTIOCPOS, answer, True)
        return int(_POS.unpack(answer)[0])

    def set_options(self, *, on: Option | None = None, off: Option | None = None) -> None:
        """Switch some on, some off. Raises OSError; EPERM without CAP_SYS_ADMIN."""
        for code, options in ((_SET_OPTIONS, on), (_CLEAR_OPTIONS, off)):
            if options:
                self.do(Op.OPTIONS, code | options)

    def set_timeout(self, seconds: int) -> None:
        """Set how long a read or write may take. Raises as set_options."""
        self.do(Op.OPTIONS, _TIMEOUT_S | seconds)

    def forget(self) -> None:
        """Have st forget that it was writing, early warning, filemark and end of data: skip no blocks.

        st turns idle before it sends the command. Allowing removal would do that too, but the kernel throws a reset
        away that is told then; here it comes out as EIO.
        """
        self.do(Op.SKIP_BLOCKS, 0)

    def read_into(self, buffer: memoryview) -> int:
        """Read a block; 0 is a filemark, or the end of data. ENOMEM: it is larger, and was passed over."""
        return os.readv(self.fileno(), [buffer])

    def write(self, block: bytes | memoryview) -> int:
        """Write a block."""
        return os.write(self.fileno(), block)

    def close(self) -> None:
        """Close. st writes a filemark if it is still writing. Harmless twice.

        After a reset st answers EIO, because it could not write what it still had: nobody was promised that, and the
        descriptor is closed all the same. Raises OSError for anything else.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                os.close(descriptor)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
