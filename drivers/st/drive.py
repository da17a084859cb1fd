"""A tape drive through the Linux `st` driver, with SCSI commands beside it. Blocking; one thread.

Blocks go through st: read() and write(). What st has no word for, or no good one, goes by SG_IO through a second
`Drive`, which is a `ScsiDrive` on the same device: loading, motions, positions, filemarks that must be on the medium,
and sense.

Two that drive one tape must not surprise each other:

* st never writes a filemark by itself. It would, wherever the tape stands by then, on close or before a motion, when
  its last doing was a write. So it is made to forget that before the other one does anything (`_quiet`).
* st never goes by what it remembers of another place: it forgets that too before the next block (`_settle`).
* Its file and block numbers are not asked for. READ POSITION tells where the tape stands; in between, blocks are
  counted.
* st gives one error number for many errors, and the sense is gone. So where it says EIO or the like, the position is
  compared with the count; if nothing has moved, the same is done once more by SG_IO, whose sense says what is the
  matter. If it has moved, the drive was reset, or another one used it: PositionLost.
* The first block after a motion is written by SG_IO: a tape that cannot be written says so there, exactly.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from drivers.errors import (
    DeviceFailed,
    DeviceGone,
    DriveError,
    DriveInUse,
    EndOfData,
    NotReady,
    PositionLost,
    WriteProtected,
)
from drivers.health import DriveHealth
from drivers.interface import (
    BlockNo,
    CanBeCleaned,
    Drive,
    DriveKey,
    DriveStatus,
    Encryption,
    Encrypts,
    Listener,
    NextBlock,
    Position,
    RecommendsOrder,
    TellsHealth,
    TellsProgress,
)
from drivers.st.device import MAX_BLOCK_BYTES, Flag, Op, Option, TapeNode

#: st's errors behind which the drive's sense has to be found: what is wrong is not told by the number.
_UNCLEAR = (errno.EIO, errno.ENOSPC, errno.ENOMEM, errno.EINVAL, errno.EBUSY, errno.EOVERFLOW)
#: Somebody's `mt status` is done by then.
_REOPEN_S = 2.0
#: For reading and writing, as vendors recommend for LTO-9; st's own is 900 s.
_TIMEOUT_S = 2400
_OFF = (
    Option.BUFFER_WRITES
    | Option.ASYNC_WRITES
    | Option.READ_AHEAD
    | Option.TWO_FILEMARKS
    | Option.FAST_END
    | Option.LOCK_DOOR
    | Option.SYSV
    | Option.NO_WAIT
    | Option.FILEMARKS_AT_ONCE
)


T = TypeVar("T")


class Beside(Drive, RecommendsOrder, TellsProgress, Encrypts, TellsHealth, CanBeCleaned, Protocol):
    """The drive that takes SCSI commands to the same device, and hears what went past it."""

    def passed_by(self, *, read: tuple[int, int], written: tuple[int, int], is_warned: bool) -> None:
        """Hear of blocks and bytes that were read and written another way since it was last asked for anything.

        The head stands behind them. `is_warned`: early warning came with the last.
        """
        ...


@dataclass(slots=True)
class _Passing:
    """What went through st since the other drive was last asked for something."""

    blocks_read: int = 0
    blocks_written: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    is_warned: bool = False


class StDrive:
    """A drive at /dev/nstN; implements `drivers.interface.Drive`, `RecommendsOrder`, `TellsProgress`, `Encrypts`."""

    def __init__(
        self,
        node: TapeNode,
        scsi: Beside,
        *,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Drive what both lead to; both are closed by `close`."""
        self._node = node
        self._scsi = scsi
        self._sleep = sleep
        self._now = now
        #: Where the tape stands; None when it has to be asked for.
        self._block: int | None = None
        #: The last doing of st was a write.
        self._writing = False
        #: Blocks are being written from here on: the first one went well.
        self._begun = False
        #: st has to forget what it remembers before it gets the next block.
        self._unsettled = True
        #: Why the position is lost, "" while it is not.
        self._lost = ""
        self._passing: _Passing | None = None

    def watch(self, listener: Listener) -> None:
        """Tell how far a first load or a long erase is; see `TellsProgress.watch`."""
        self._scsi.watch(listener)

    # -- loading -------------------------------------------------------------------------------------------------

    def load(self, *, compress: bool | None = None) -> None:
        """Thread the cartridge, or rewind it; see `Drive.load`."""
        self._quiet()
        self._forget_place()
        self._scsi.load(compress=compress)
        self._lost = ""
        self._reopen()
        self._rewind_st()
        self._set_up(compress)

    def _reopen(self) -> None:
        """Have st look what is in the drive. It opens to one at a time, and somebody may be asking for its status."""
        deadline = self._now() + _REOPEN_S
        while True:
            try:
                return self._node.reopen()
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise self._meaning(error) from error
                if self._now() >= deadline:
                    raise DriveInUse(f"{self._node.node} is in use by another process") from None
            self._sleep(0.05)

    def _set_up(self, compress: bool | None) -> None:
        """Set st's switches. Only root may; they matter where somebody changed them (stinit, mt stsetoptions)."""
        try:
            self._node.set_options(off=_OFF)
            self._node.set_timeout(_TIMEOUT_S)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES):
                raise self._meaning(error) from error
        if compress is not None:
            # Else st could set a default of its own with the first block. A drive that cannot compress refuses.
            with contextlib.suppress(OSError):
                self._node.do(Op.COMPRESSION, int(compress))

    def unload(self) -> None:
        """Sync, rewind, unthread and eject; see `Drive.unload`."""
        self._quiet()
        self._forget_place()
        self._scsi.unload()
        self._lost = ""

    def status(self) -> DriveStatus:
        """Return a snapshot; see `Drive.status`."""
        self._quiet()
        return self._scsi.status()

    def health(self) -> DriveHealth:
        """Ask drive and cartridge how they are; see `TellsHealth.health`."""
        self._quiet()
        return self._scsi.health()

    def clean(self) -> None:
        """Have it clean itself; see `CanBeCleaned.clean`."""
        self._quiet()
        self._forget_place()
        self._scsi.clean()

    def recommended_order(self, extents: Sequence[tuple[int, int]]) -> list[int] | None:
        """Return the order in which the drive would read extents; see `RecommendsOrder.recommended_order`."""
        self._turn_to_scsi()
        return self._by_scsi(lambda: self._scsi.recommended_order(extents))

    # -- encryption ----------------------------------------------------------------------------------------------

    def set_key(self, key: DriveKey | None, *, writes: bool = True) -> None:
        """Give the drive a key, or take it away; see `Encrypts.set_key`. st knows nothing of it."""
        self._turn_to_scsi()
        self._by_scsi(lambda: self._scsi.set_key(key, writes=writes))

    def encryption(self) -> Encryption | None:
        """Ask the drive what it does with blocks; see `Encrypts.encryption`."""
        self._quiet()
        return self._scsi.encryption()

    def next_block(self) -> NextBlock:
        """Ask what lies before the head; see `Encrypts.next_block`."""
        self._turn_to_scsi()
        return self._by_scsi(self._scsi.next_block)

    def _by_scsi(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except DriveError:
            self._forget_place()
            raise

    # -- moving --------------------------------------------------------------------------------------------------

    def position(self) -> Position:
        """Return where the head stands; see `Drive.position`."""
        place = self._ask()
        self._block = place.block
        return place

    def rewind(self) -> None:
        """Go to block 0; see `Drive.rewind`."""
        self._quiet()
        self._forget_place()
        self._scsi.rewind()
        self._rewind_st()
        self._lost = ""

    def _rewind_st(self) -> None:
        """Have st know that the tape is at its start. Nothing moves; after a bus reset it takes no other operation."""
        try:
            self._node.do(Op.REWIND)
        except OSError as error:
            raise self._explained(error) from error

    def locate(self, block: BlockNo) -> None:
        """Go to a logical block; see `Drive.locate`."""
        self._move(lambda: self._scsi.locate(block))

    def space_filemarks(self, count: int) -> None:
        """Go forwards over filemarks; see `Drive.space_filemarks`."""
        self._move(lambda: self._scsi.space_filemarks(count))

    def seek_end(self) -> None:
        """Go to the end of data; see `Drive.seek_end`."""
        self._move(self._scsi.seek_end)

    def _move(self, motion: Callable[[], None]) -> None:
        self._turn_to_scsi()
        self._forget_place()
        motion()

    # -- reading -------------------------------------------------------------------------------------------------

    def read_into(self, buffer: memoryview) -> int:
        """Read the next block or pass a filemark; see `Drive.read_into`."""
        view = _octets(buffer)[:MAX_BLOCK_BYTES]
        if not view.nbytes:
            raise ValueError("a buffer of 0 bytes can take no block")
        block = self._settle()
        self._begun = False
        try:
            size_bytes = self._node.read_into(view)
        except OSError as error:
            return self._read_by_scsi(error, view, block)
        finally:
            # Reading has st write out and turn: it has nothing to end any more.
            self._writing = False
        passing = self._passes()
        if size_bytes:
            self._block = block + 1
            passing.blocks_read += 1
            passing.bytes_read += size_bytes
            return size_bytes
        return self._read_nothing(block)

    def _read_nothing(self, block: int) -> int:
        """Tell a filemark from the end of data: st says 0 for both."""
        place = self._ask().block
        if place == block + 1:
            self._block = place
            return 0
        self._forget_place()
        if place == block:
            raise EndOfData(f"there is nothing behind block {block}")
        raise self._lose(f"the drive stands at block {place}, not at {block}")

    def _read_by_scsi(self, error: OSError, view: memoryview, block: int) -> int:
        """Read the block that st could not."""
        if error.errno not in _UNCLEAR:
            raise self._meaning(error) from error
        self._passes()
        self._forget_place()
        place = self._ask().block
        if place == block + 1:
            # A block that is larger than the buffer was passed over, and some drives pass over a bad one.
            self._scsi.locate(BlockNo(block))
        elif place != block:
            raise self._lose(f"the drive stands at block {place}, not at {block}") from error
        size_bytes = self._scsi.read_into(view)
        self._block = block + 1
        return size_bytes

    # -- writing -------------------------------------------------------------------------------------------------

    def write_block(self, block: bytes | memoryview) -> bool:
        """Write one block at the head; see `Drive.write_block`."""
        data = _octets(block) if isinstance(block, memoryview) else block
        size_bytes = len(data)
        if not 0 < size_bytes <= MAX_BLOCK_BYTES:
            raise ValueError(f"a block has 1 to {MAX_BLOCK_BYTES} bytes, not {size_bytes}")
        at = self._settle()
        if not self._begun:
            return self._write_by_scsi(data, at)
        try:
            early = self._send(data)
        except OSError as error:
            return self._write_again(error, data, at)
        return self._written(at, size_bytes, early)

    def _written(self, at: int, size_bytes: int, early: bool) -> bool:
        self._block = at + 1
        passing = self._passes()
        passing.blocks_written += 1
        passing.bytes_written += size_bytes
        passing.is_warned = early
        return early

    def _send(self, data: bytes | memoryview) -> bool:
        """Write through st; return whether the end is near."""
        self._writing = True
        if self._node.write(data) != len(data):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        try:
            return bool(self._node.state().flags & Flag.END_OF_TAPE)
        except OSError as error:
            # From a write behind, which only those get who may not switch it off: it is written, the end is near.
            if error.errno == errno.ENOSPC:
                return True
            raise

    def _write_again(self, error: OSError, data: bytes | memoryview, at: int) -> bool:
        if error.errno == errno.ENOSPC:
            # Behind early warning st refuses every second block without a word to the drive.
            try:
                self._send(data)
            except OSError as second:
                error = second
            else:
                return self._written(at, len(data), True)
        if error.errno not in _UNCLEAR:
            raise self._meaning(error) from error
        self._stay_at(at, error)
        return self._write_by_scsi(data, at)

    def _stay_at(self, at: int, error: OSError) -> None:
        """Raise PositionLost if the drive is not where it was before st failed."""
        self._passes()
        self._forget_place()
        place = self._ask().block
        if place != at:
            raise self._lose(f"the drive stands at block {place}, not at {at}") from error

    def _write_by_scsi(self, data: bytes | memoryview, at: int) -> bool:
        self._turn_to_scsi()
        self._begun = False
        self._block = None
        early = self._scsi.write_block(data)
        self._begun = True
        self._block = at + 1
        return early

    def write_filemarks(self, count: int, *, sync: bool) -> None:
        """Write filemarks, or only flush; see `Drive.write_filemarks`."""
        self._check_position()
        if self._writing and count > 0 and not sync:
            return self._write_filemarks_at_once(count)
        self._turn_to_scsi()
        at, self._block = self._block, None
        self._scsi.write_filemarks(count, sync=sync)
        self._block = None if at is None else at + count
        return None

    def _write_filemarks_at_once(self, count: int) -> None:
        """Write behind blocks, into the drive's buffer: to have st forget that it was writing first could empty it."""
        at = self._settle()
        try:
            self._node.do(Op.WRITE_FILEMARKS_AT_ONCE, count)
        except OSError as error:
            if error.errno not in _UNCLEAR:
                raise self._meaning(error) from error
            self._stay_at(at, error)
            self._scsi.write_filemarks(count, sync=False)
        self._passes()
        self._writing = False
        self._block = at + count

    def erase(self, *, long: bool) -> None:
        """Erase from the head on; see `Drive.erase`."""
        self._turn_to_scsi()
        self._forget_place()
        self._scsi.erase(long=long)

    # -- keeping both in step ------------------------------------------------------------------------------------

    def _forget_place(self) -> None:
        self._block = None
        self._begun = False
        self._unsettled = True

    def _settle(self) -> int:
        """Have st ready for a block at the head, and return where that is."""
        self._check_position()
        if self._block is None:
            self._block = self._ask().block
        if self._unsettled:
            try:
                self._node.forget()
                if self._node.state().block_size_bytes:
                    self._node.do(Op.SET_BLOCK_SIZE, 0)
            except OSError as error:
                raise self._explained(error) from error
            self._unsettled = False
        return self._block

    def _quiet(self) -> None:
        """Hand over to the other drive. st ends its writing without a filemark; if that fails, the place is lost."""
        if self._writing:
            self._writing = False
            try:
                self._node.forget()
            except OSError as error:
                self._lost = f"the drive was reset while it was written ({error.strerror})"
        passing, self._passing = self._passing, None
        if passing is not None:
            self._scsi.passed_by(
                read=(passing.blocks_read, passing.bytes_read),
                written=(passing.blocks_written, passing.bytes_written),
                is_warned=passing.is_warned,
            )

    def _passes(self) -> _Passing:
        if self._passing is None:
            self._passing = _Passing()
        return self._passing

    def _turn_to_scsi(self) -> None:
        """Have the other drive take over where st stopped. Raises PositionLost."""
        self._quiet()
        self._check_position()

    def _ask(self) -> Position:
        self._turn_to_scsi()
        return self._by_scsi(self._scsi.position)

    def _check_position(self) -> None:
        if self._lost:
            raise PositionLost(f"{self._node.node}: {self._lost}: rewind, then check label and position")

    def _lose(self, why: str) -> PositionLost:
        self._forget_place()
        self._lost = why
        return PositionLost(f"{self._node.node}: {why}: it was reset, or somebody else used it; rewind, then verify")

    def _explained(self, error: OSError) -> DriveError:
        """Return what is the matter when st refuses what the drive has no reason to refuse."""
        if error.errno in _UNCLEAR:
            self._ask()
            return self._lose("the kernel's tape driver takes no commands since a reset")
        return self._meaning(error)

    def _meaning(self, error: OSError) -> DriveError:
        """Return what a number of st's means that is clear by itself."""
        node = self._node.node
        if error.errno in (errno.EACCES, errno.EROFS):
            return WriteProtected(f"the tape in {node} is write-protected")
        if error.errno == errno.ENOMEDIUM:
            return NotReady(f"{node} has no tape threaded: load one")
        if error.errno in (errno.ENXIO, errno.ENODEV, errno.ENOENT):
            return DeviceGone(f"{node}: the drive is not connected any more")
        if error.errno == errno.EBADF:
            return DeviceFailed(f"{node} is closed")
        return DeviceFailed(f"{node}: {error.strerror}")

    def close(self) -> None:
        """Let go without moving the tape; see `Drive.close`."""
        try:
            self._quiet()
        finally:
            self._node.close()
            self._scsi.close()


def _octets(view: memoryview) -> memoryview:
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")
