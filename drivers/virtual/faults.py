"""Faults on request: a wrapper around a drive that fails as the operator or a test says. Blocking; its drive's thread.

The environment variable TAPEFS_FAULTS switches faults on for a process: a JSON list of objects with a `kind`, such as

    [{"kind": "write_error", "block": 100}, {"kind": "power_cut", "block": 200, "kill": true, "barcode": "TP0001L9"}]

Blocks are logical blocks of the tape; a filemark is one. `drive` and `barcode` narrow a fault down to one drive or
tape. `times` says how often it strikes, 0 means always.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, Protocol

import msgspec

from drivers.errors import DeviceFailed, EndOfMedium, PositionLost, ReadFailed, WriteFailed
from drivers.health import DriveHealth
from drivers.interface import BlockNo, Drive, DriveKey, DriveStatus, Encryption, Listener, NextBlock, Position
from drivers.virtual.memory import Attribute, MemoryRecord
from drivers.virtual.sealing import Cipher
from drivers.virtual.spacing import Spaced

VARIABLE = "TAPEFS_FAULTS"


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """Where a fault applies."""

    #: Only this drive, or only this tape.
    drive: int | None = None
    barcode: str | None = None
    #: How often it strikes; 0: always.
    times: int = 1


class WriteError(Fault, frozen=True, kw_only=True, tag="write_error"):
    """Writing `block` fails with WriteFailed; it is not written."""

    block: int


class ReadError(Fault, frozen=True, kw_only=True, tag="read_error"):
    """Reading `block` fails with ReadFailed; the head stays."""

    block: int


class EarlyEnd(Fault, frozen=True, kw_only=True, tag="early_end"):
    """The tape ends before `block`; early warning comes `warning_blocks` before. Filemarks can still be written."""

    block: int
    warning_blocks: int = 32
    times: int = 0


class Reset(Fault, frozen=True, kw_only=True, tag="reset"):
    """The drive is reset when it reads or writes `block`: buffer and position are lost."""

    block: int


class PowerCut(Fault, frozen=True, kw_only=True, tag="power_cut"):
    """The host's power fails when `block` is read or written: blocks not synced are gone.

    With `kill` the process dies by SIGKILL, otherwise the drive raises DeviceFailed from then on.
    """

    block: int
    kill: bool = False


class Delay(Fault, frozen=True, kw_only=True, tag="delay"):
    """A method of the drive takes `seconds` longer; with `from_block` only when the head is there or behind it."""

    operation: Literal[
        "load",
        "unload",
        "rewind",
        "locate",
        "space_filemarks",
        "seek_end",
        "read_into",
        "write_block",
        "write_filemarks",
        "erase",
    ]
    seconds: float
    from_block: int = 0
    times: int = 0


AnyFault = WriteError | ReadError | EarlyEnd | Reset | PowerCut | Delay


class BreakableDrive(Drive, Protocol):
    """A drive that can be made to lose what real ones lose, and knows what `drivers.vtl` has SCSI commands for."""

    @property
    def worm(self) -> bool:
        """Is a cartridge threaded that can be written only once?"""
        ...

    def next_size(self) -> int | None:
        """Return the size of the next block, 0 for a filemark, None at the end of data."""
        ...

    def space_blocks(self, count: int) -> Spaced:
        """Go over blocks, backwards when `count` is negative."""
        ...

    def space_back(self, count: int) -> int:
        """Go back over filemarks; return how many were passed."""
        ...

    def watch(self, listener: Listener) -> None:
        """Have `listener` told how far a first load is."""
        ...

    def first_load_s(self) -> float:
        """Return the seconds by the clock that measuring the cartridge in the drive will take."""
        ...

    def long_erase_s(self) -> float:
        """Return the seconds by the clock that a long erase from the head takes."""
        ...

    def skip_measuring(self) -> None:
        """The cartridge in the drive is measured: somebody has waited for that."""
        ...

    def nearest_first(self, extents: Sequence[tuple[int, int]]) -> list[int]:
        """Return the order in which extents of blocks are read when the nearest is always next. Raises EndOfData."""
        ...

    def set_compression(self, compress: bool) -> None:
        """Turn the switch of compression."""
        ...

    def set_key(self, key: DriveKey | None, *, writes: bool = True) -> None:
        """Give the drive a key as its driver does."""
        ...

    def encryption(self) -> Encryption | None:
        """Return what becomes of blocks; None when the drive cannot encrypt."""
        ...

    def next_block(self) -> NextBlock:
        """Return what lies before the head."""
        ...

    def set_cipher(self, cipher: Cipher | None) -> None:
        """Put a key into the drive itself."""
        ...

    def health(self) -> DriveHealth:
        """Tell how it is."""
        ...

    def clean(self, *, is_waited_for: bool = False) -> None:
        """Clean itself with the cartridge in it."""
        ...

    def cleaning_s(self) -> float:
        """Return the seconds by the clock that a cleaning takes."""
        ...

    def memory(self) -> MemoryRecord:
        """Return the chip of the cartridge in the drive, threaded or not."""
        ...

    def write_attribute(self, number: int, attribute: Attribute | None) -> None:
        """Write an attribute into the chip, or remove it."""
        ...

    def reset(self) -> None:
        """Lose buffer and position."""
        ...

    def cut_power(self) -> None:
        """Lose the buffer and fail from now on."""
        ...


def parse_faults(text: str) -> list[AnyFault]:
    """Read the value of TAPEFS_FAULTS. Raises ValueError with a sentence for the operator."""
    try:
        return msgspec.json.decode(text, type=list[AnyFault])
    except msgspec.DecodeError as error:
        raise ValueError(f"{VARIABLE} is no list of faults: {error}") from error


class FaultyDrive:
    """A drive with faults; without any it behaves as the drive inside."""

    def __init__(
        self,
        drive: BreakableDrive,
        faults: list[AnyFault],
        *,
        number: int = 0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._drive = drive
        self._sleep = sleep
        self._faults = [each for each in faults if each.drive in (None, number)]
        #: Strikes left per fault; a negative number never ends.
        self._left = [each.times or -1 for each in self._faults]
        self._barcode = drive.status().barcode
        #: Errors by their kind since a tape was loaded last.
        self._failed: Counter[type[AnyFault]] = Counter()

    def load(self, *, compress: bool | None = None) -> None:
        """See `Drive.load`."""
        self._delay("load")
        was_loaded = self._drive.status().loaded
        self._drive.load(compress=compress)
        self._barcode = self._drive.status().barcode
        if not was_loaded:
            self._failed.clear()

    def unload(self) -> None:
        """See `Drive.unload`."""
        self._delay("unload")
        self._drive.unload()

    def status(self) -> DriveStatus:
        """See `Drive.status`; nothing remains behind an early warning that a fault gives."""
        status = self._drive.status()
        if not status.loaded or not any(isinstance(each, EarlyEnd) for each in self._faults):
            return status
        try:
            block = self._drive.position().block
        except PositionLost:
            return status
        return replace(status, remaining_bytes=0) if self._is_warned(block) else status

    def position(self) -> Position:
        """See `Drive.position`."""
        return self._drive.position()

    def rewind(self) -> None:
        """See `Drive.rewind`."""
        self._delay("rewind")
        self._drive.rewind()

    def locate(self, block: BlockNo) -> None:
        """See `Drive.locate`."""
        self._delay("locate")
        self._drive.locate(block)

    def space_filemarks(self, count: int) -> None:
        """See `Drive.space_filemarks`."""
        self._delay("space_filemarks")
        self._drive.space_filemarks(count)

    def seek_end(self) -> None:
        """See `Drive.seek_end`."""
        self._delay("seek_end")
        self._drive.seek_end()

    def read_into(self, buffer: memoryview) -> int:
        """See `Drive.read_into`."""
        self._delay("read_into")
        block = self._drive.position().block
        self._break(block, 1)
        if self._strikes(ReadError, block, 1):
            raise ReadFailed(f"block {block} is unreadable (fault on request)", block)
        return self._drive.read_into(buffer)

    def write_block(self, block: bytes | memoryview) -> bool:
        """See `Drive.write_block`."""
        self._delay("write_block")
        number = self._drive.position().block
        self._break(number, 1)
        self._refuse(number, 1)
        if any(isinstance(each, EarlyEnd) and number >= each.block for each in self._active()):
            raise EndOfMedium(f"the tape ends at block {number} (fault on request)")
        return self._drive.write_block(block) or self._is_warned(number + 1)

    def write_filemarks(self, count: int, *, sync: bool) -> None:
        """See `Drive.write_filemarks`."""
        self._delay("write_filemarks")
        number = self._drive.position().block
        self._break(number, count)
        self._refuse(number, count)
        self._drive.write_filemarks(count, sync=sync)

    def erase(self, *, long: bool) -> None:
        """See `Drive.erase`."""
        self._delay("erase")
        number = self._drive.position().block
        self._break(number, 1)
        self._refuse(number, 1)
        self._drive.erase(long=long)

    @property
    def worm(self) -> bool:
        """See `BreakableDrive.worm`."""
        return self._drive.worm

    def next_size(self) -> int | None:
        """See `BreakableDrive.next_size`."""
        return self._drive.next_size()

    def space_blocks(self, count: int) -> Spaced:
        """See `BreakableDrive.space_blocks`."""
        return self._drive.space_blocks(count)

    def space_back(self, count: int) -> int:
        """See `BreakableDrive.space_back`."""
        return self._drive.space_back(count)

    def watch(self, listener: Listener) -> None:
        """See `BreakableDrive.watch`."""
        self._drive.watch(listener)

    def first_load_s(self) -> float:
        """See `BreakableDrive.first_load_s`."""
        return self._drive.first_load_s()

    def long_erase_s(self) -> float:
        """See `BreakableDrive.long_erase_s`."""
        return self._drive.long_erase_s()

    def skip_measuring(self) -> None:
        """See `BreakableDrive.skip_measuring`."""
        self._drive.skip_measuring()

    def nearest_first(self, extents: Sequence[tuple[int, int]]) -> list[int]:
        """See `BreakableDrive.nearest_first`."""
        return self._drive.nearest_first(extents)

    def set_compression(self, compress: bool) -> None:
        """See `BreakableDrive.set_compression`."""
        self._drive.set_compression(compress)

    def set_key(self, key: DriveKey | None, *, writes: bool = True) -> None:
        """See `Encrypts.set_key`."""
        self._drive.set_key(key, writes=writes)

    def encryption(self) -> Encryption | None:
        """See `Encrypts.encryption`."""
        return self._drive.encryption()

    def next_block(self) -> NextBlock:
        """See `Encrypts.next_block`."""
        return self._drive.next_block()

    def set_cipher(self, cipher: Cipher | None) -> None:
        """See `BreakableDrive.set_cipher`."""
        self._drive.set_cipher(cipher)

    def health(self) -> DriveHealth:
        """See `TellsHealth.health`; errors that faults have made count as ones that could not be corrected."""
        found = self._drive.health()
        written = replace(found.writing, uncorrected=(found.writing.uncorrected or 0) + self._failed[WriteError])
        read = replace(found.reading, uncorrected=(found.reading.uncorrected or 0) + self._failed[ReadError])
        return replace(found, writing=written, reading=read)

    def clean(self, *, is_waited_for: bool = False) -> None:
        """See `CanBeCleaned.clean`."""
        self._drive.clean(is_waited_for=is_waited_for)

    def cleaning_s(self) -> float:
        """See `BreakableDrive.cleaning_s`."""
        return self._drive.cleaning_s()

    def memory(self) -> MemoryRecord:
        """See `BreakableDrive.memory`."""
        return self._drive.memory()

    def write_attribute(self, number: int, attribute: Attribute | None) -> None:
        """See `BreakableDrive.write_attribute`."""
        self._drive.write_attribute(number, attribute)

    def reset(self) -> None:
        """See `BreakableDrive.reset`."""
        self._drive.reset()

    def cut_power(self) -> None:
        """See `BreakableDrive.cut_power`."""
        self._drive.cut_power()

    def close(self) -> None:
        """See `Drive.close`."""
        self._drive.close()

    # -- faults --------------------------------------------------------------------------------------------------

    def _active(self) -> list[AnyFault]:
        pairs = zip(self._faults, self._left, strict=True)
        return [each for each, left in pairs if left and each.barcode in (None, self._barcode)]

    def _strikes(self, kind: type[WriteError | ReadError | Reset], first: int, count: int) -> bool:
        """Tell whether such a fault lies on one of `count` blocks, and count its strike."""
        for each in self._active():
            if isinstance(each, kind) and first <= each.block < first + count:
                self._spend(each)
                self._failed[kind] += 1
                return True
        return False

    def _spend(self, fault: AnyFault) -> None:
        self._left[self._faults.index(fault)] -= 1

    def _delay(self, operation: str) -> None:
        for each in self._active():
            if not isinstance(each, Delay) or each.operation != operation:
                continue
            if not each.from_block or self._drive.position().block >= each.from_block:
                self._spend(each)
                self._sleep(each.seconds)

    def _break(self, first: int, count: int) -> None:
        """Reset the drive or cut the power if that is due."""
        if self._strikes(Reset, first, count):
            self._drive.reset()
            raise PositionLost(f"the drive was reset at block {first} (fault on request): rewind and verify")
        cut = [each for each in self._active() if isinstance(each, PowerCut) and first <= each.block < first + count]
        if not cut:
            return
        self._spend(cut[0])
        self._drive.cut_power()
        if cut[0].kill:
            os.kill(os.getpid(), signal.SIGKILL)
        raise DeviceFailed(f"the power failed at block {first} (fault on request)")

    def _refuse(self, first: int, count: int) -> None:
        if self._strikes(WriteError, first, count):
            raise WriteFailed(f"block {first} was not written (fault on request)", first)

    def _is_warned(self, block: int) -> bool:
        ends = (each for each in self._active() if isinstance(each, EarlyEnd))
        return any(block >= each.block - each.warning_blocks for each in ends)
