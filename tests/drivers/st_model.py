"""The kernel's st driver as a model over a virtual drive: its error numbers, and what it does by itself.

As a `TapeNode`, so that what StDrive does about each can be tested in milliseconds, with faults that real drives have
once in a year. That the model is true is shown in User-Mode Linux, where the contract runs on the real st.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from drivers.errors import DriveError, EndOfData, EndOfMedium, NotReady, WriteProtected
from drivers.interface import BlockNo, Drive
from drivers.st.device import Flag, Op, State, TapeNode

#: What st notes of the end of files and tapes, in its order.
NONE, FILEMARK, WARNED, FAILED, END_1, END_2, END = range(7)


def failed(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@dataclass
class StModel(TapeNode):
    """An open node; `drive` is the device below it."""

    drive: Drive
    node: Path = Path("/dev/nst0")
    writing: bool = False
    note: int = NONE
    #: Set by a reset that the kernel made itself: only rewinding helps.
    position_unknown: bool = False
    is_open: bool = True
    #: Error numbers to raise for the next calls of an operation, oldest first.
    refuse: dict[str, list[int]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    block_size_bytes: int = 0
    #: Writes return before they are done, as for those who may not switch that off.
    writes_behind: bool = False
    pending: bytes | None = None

    def _called(self, name: str) -> None:
        if not self.is_open:
            raise failed(errno.EBADF)
        self.calls.append(name)
        if self.refuse.get(name):
            raise failed(self.refuse[name].pop(0))

    def _by_itself(self) -> None:
        """Write the filemark that nobody asked for."""
        if self.writing and not self.position_unknown:
            self.drive.write_filemarks(1, sync=False)
        self.writing = False

    def fileno(self) -> int:
        return 99

    def reopen(self) -> None:
        self._by_itself()
        self._called("reopen")

    def close(self) -> None:
        if self.is_open:
            self._by_itself()
        self.is_open = False

    def do(self, operation: int, count: int = 1) -> None:
        if operation == Op.SKIP_BLOCKS and not self.position_unknown:
            # It turns idle before it sends the command.
            self.writing = False
        self._called(Op(operation).name.lower())
        if operation == Op.SET_BLOCK_SIZE:
            self.block_size_bytes = count
        if operation in (Op.SET_BLOCK_SIZE, Op.OPTIONS, Op.COMPRESSION):
            return
        if self.position_unknown and operation != Op.REWIND:
            raise failed(errno.EIO)
        if operation == Op.REWIND:
            self._by_itself()
            self.position_unknown = False
        self.writing = False
        self.note = NONE
        try:
            if operation == Op.REWIND:
                self.drive.rewind()
            elif operation in (Op.WRITE_FILEMARKS, Op.WRITE_FILEMARKS_AT_ONCE):
                self.drive.write_filemarks(count, sync=operation == Op.WRITE_FILEMARKS)
            else:
                self.drive.position()
        except DriveError as error:
            raise failed(errno.EIO) from error

    def state(self) -> State:
        self._called("state")
        pending, self.pending = self.pending, None
        if pending is not None:
            self._write(pending)
            if self.note == WARNED:
                self.note = NONE
                raise failed(errno.ENOSPC)
        return State(Flag.END_OF_TAPE if self.note in (WARNED, FAILED) else Flag(0), self.block_size_bytes, 0x60)

    def write(self, block: bytes | memoryview) -> int:
        self._called("write")
        self._check()
        if self.note == WARNED:
            self.note = END_1
            raise failed(errno.ENOSPC)
        if self.note == FAILED:
            raise failed(errno.EIO)
        self.writing = True
        if self.writes_behind:
            self.pending = bytes(block)
        else:
            self._write(block)
        return len(block)

    def _write(self, block: bytes | memoryview) -> None:
        try:
            early = self.drive.write_block(block)
        except EndOfMedium as error:
            self.note = WARNED
            raise failed(errno.ENOSPC) from error
        except WriteProtected as error:
            raise failed(errno.EACCES) from error
        except DriveError as error:
            raise failed(errno.EIO) from error
        self.note = WARNED if early or self.note == END_1 else NONE

    def read_into(self, buffer: memoryview) -> int:
        self._called("read")
        self._check()
        self.writing = False
        if self.note >= END_1:
            if self.note < END:
                self.note += 1
                return 0
            raise failed(errno.EIO)
        try:
            size = self.drive.read_into(buffer)
        except EndOfData as error:
            if self.note != FILEMARK:
                raise failed(errno.EIO) from error
            self.note = END
            return 0
        except ValueError as error:
            self.drive.locate(BlockNo(self.drive.position().block + 1))
            raise failed(errno.ENOMEM) from error
        except DriveError as error:
            raise failed(errno.EIO) from error
        self.note = NONE if size else FILEMARK
        return size

    def _check(self) -> None:
        if self.position_unknown:
            raise failed(errno.EIO)
        try:
            self.drive.position()
        except NotReady as error:
            raise failed(errno.ENOMEDIUM) from error
        except DriveError:
            # The command itself will say so.
            pass
