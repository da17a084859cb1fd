"""Blocks, filemarks and positions: the commands of SSC that move the tape. Belongs to its server, under its lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from drivers.errors import DriveError, EndOfData, PositionLost, WriteFailed
from drivers.interface import BlockNo, Position
from drivers.virtual.drive import MAX_BLOCK_BYTES
from drivers.virtual.faults import BreakableDrive
from drivers.virtual.spacing import Stop
from drivers.vtl.commands import Command, Done
from drivers.vtl.failures import sense_of
from drivers.vtl.sense import (
    BEGINNING_OF_PARTITION,
    END_OF_DATA,
    END_OF_PARTITION,
    FILEMARK_DETECTED,
    INVALID_FIELD_IN_CDB,
    PAST_BEGINNING,
    POWER_ON,
    CheckCondition,
    Key,
    Sense,
    refuse,
)

#: The most that one command moves.
MAX_TRANSFER_BYTES = MAX_BLOCK_BYTES
#: Each filemark begins a file of the cartridge: whoever wants more asks again.
MAX_FILEMARKS = 1000

_FIXED, _SILI = 0x01, 0x02


class Blocks:
    """Runs commands against a drive that has a tape threaded."""

    def __init__(self, drive: BreakableDrive, block_bytes: Callable[[], int], on_reset: Callable[[], None]) -> None:
        """`block_bytes` tells the length of fixed blocks, 0: none is set. `on_reset`: the drive says it was reset."""
        self._drive = drive
        self._block_bytes = block_bytes
        self._on_reset = on_reset
        #: The drive has lost its position, and that has been told.
        self._is_lost = False

    def failure(self, error: DriveError, information: int | None = None) -> CheckCondition:
        """Return what to answer for a driver's error; the first sign of a reset is a unit attention, for all."""
        if isinstance(error, PositionLost) and not self._is_lost:
            self._is_lost = True
            self._on_reset()
            return CheckCondition(Sense(Key.UNIT_ATTENTION, POWER_ON))
        if isinstance(error, WriteFailed):
            self._is_lost = self._position_is_lost()
        return CheckCondition(replace(sense_of(error), information=information))

    def lost(self) -> None:
        """The drive was reset, and all have been told."""
        self._is_lost = True

    def found_again(self) -> None:
        """The tape was rewound, or another one is threaded."""
        self._is_lost = False

    def _position_is_lost(self) -> bool:
        try:
            self._drive.position()
        except PositionLost:
            return True
        except DriveError:
            return False
        return False

    # -- READ and WRITE ------------------------------------------------------------------------------------------

    def _count(self, command: Command) -> tuple[int, int]:
        """Return number and length of the blocks to transfer, 0 as the length for one variable block."""
        count = command.number(2, 3)
        if not command.cdb[1] & _FIXED:
            return count, 0
        size_bytes = self._block_bytes()
        if not size_bytes or command.cdb[1] & _SILI:
            raise refuse(INVALID_FIELD_IN_CDB, 1)
        if count * size_bytes > MAX_TRANSFER_BYTES:
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        return count, size_bytes

    def read(self, command: Command) -> Done:
        """READ(6)."""
        count, size_bytes = self._count(command)
        if not count:
            return Done()
        try:
            if size_bytes:
                return self._read_fixed(command, count, size_bytes)
            return self._read_variable(command, count)
        except DriveError as error:
            raise self.failure(error, count) from error

    def _read_variable(self, command: Command, asked: int) -> Done:
        drive = self._drive
        actual = drive.next_size()
        if actual is None:
            return Done(sense=Sense(Key.BLANK_CHECK, END_OF_DATA, information=asked))
        room = command.data_in[: min(asked, len(command.data_in))]
        if actual == 0:
            drive.read_into(room)
            return Done(sense=Sense(Key.NO_SENSE, FILEMARK_DETECTED, filemark=True, information=asked))
        moved = self._read_block(room, actual)
        wanted = min(actual, asked)
        if actual == asked or (command.cdb[1] & _SILI and (actual < asked or not self._block_bytes())):
            return Done(moved, wanted)
        return Done(moved, wanted, Sense(Key.NO_SENSE, wrong_length=True, information=asked - actual))

    def _read_block(self, room: memoryview, actual: int) -> int:
        """Read the next block of `actual` bytes, what fits of it; the head is behind it in any case."""
        if actual <= len(room):
            return self._drive.read_into(room)
        whole = memoryview(bytearray(actual))
        self._drive.read_into(whole)
        room[:] = whole[: len(room)]
        return len(room)

    def _read_fixed(self, command: Command, count: int, size_bytes: int) -> Done:
        room, moved = command.data_in, 0
        for left in range(count, 0, -1):
            actual = self._drive.next_size()
            if actual is None:
                return Done(moved, moved, Sense(Key.BLANK_CHECK, END_OF_DATA, information=left))
            if actual == 0:
                self._drive.read_into(room[:0])
                return Done(moved, moved, Sense(Key.NO_SENSE, FILEMARK_DETECTED, filemark=True, information=left))
            try:
                moved += self._read_block(room[moved : moved + size_bytes], actual)
            except DriveError as error:
                failure = self.failure(error, left)
                return Done(moved, moved, failure.sense)
            if actual != size_bytes:
                return Done(moved, moved, Sense(Key.NO_SENSE, wrong_length=True, information=left))
        return Done(moved, count * size_bytes)

    def verify(self, command: Command) -> Done:
        """VERIFY(6): read, and send nothing. What is to be compared with it nobody sends here."""
        reading = replace(command, cdb=bytes([command.cdb[0], command.cdb[1] & _FIXED]) + command.cdb[2:])
        count, size_bytes = self._count(reading)
        room = memoryview(bytearray(count * size_bytes if size_bytes else count))
        return Done(sense=self.read(replace(reading, data_in=room)).sense)

    def format(self, command: Command) -> Done:
        """FORMAT MEDIUM, into the one partition that there is: the tape is blank then."""
        if command.cdb[2] & 0x0F:
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        if command.number(3, 2):
            raise refuse(INVALID_FIELD_IN_CDB, 3)
        try:
            if self._drive.position().block:
                raise refuse(PAST_BEGINNING)
        except DriveError as error:
            raise self.failure(error) from error
        return self._erase(long=False)

    def write(self, command: Command) -> Done:
        """WRITE(6). What the initiator does not send whole is not written at all."""
        count, size_bytes = self._count(command)
        total = count * size_bytes if size_bytes else count
        if total > len(command.data_out):
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        if not total:
            return Done()
        step = size_bytes or total
        warned = False
        for start in range(0, total, step):
            left = (total - start) // size_bytes if size_bytes else total
            try:
                warned |= self._drive.write_block(command.data_out[start : start + step])
            except DriveError as error:
                return Done(start, start, self.failure(error, left).sense)
        return Done(total, total, self._early_warning() if warned else None)

    def _early_warning(self) -> Sense:
        return Sense(Key.NO_SENSE, END_OF_PARTITION, end_of_medium=True, information=0)

    def write_filemarks(self, command: Command) -> Done:
        """WRITE FILEMARKS(6)."""
        return self._write_filemarks(command.number(2, 3), immediate=bool(command.cdb[1] & 1))

    def write_filemarks_16(self, command: Command) -> Done:
        """WRITE FILEMARKS(16)."""
        self._check_partition(command.cdb[3], 3)
        return self._write_filemarks(command.number(12, 2), immediate=bool(command.cdb[1] & 1))

    def _write_filemarks(self, count: int, *, immediate: bool) -> Done:
        if count > MAX_FILEMARKS:
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        try:
            self._drive.write_filemarks(count, sync=not immediate)
            is_warned = count and not self._drive.status().remaining_bytes
        except DriveError as error:
            raise self.failure(error, count) from error
        return Done(sense=self._early_warning() if is_warned else None)

    def erase(self, command: Command, long: bool) -> Done:
        """ERASE(6): nothing is behind the head any more, and if it is long, that took its time."""
        return self._erase(long=long)

    def erase_16(self, command: Command, long: bool) -> Done:
        """ERASE(16), which says from where on."""
        self._check_partition(command.cdb[3], 3)
        block = command.number(4, 8)
        try:
            if self._drive.position().block != block:
                self._drive.locate(BlockNo(block))
        except DriveError as error:
            raise self.failure(error) from error
        return self._erase(long=long)

    def _erase(self, *, long: bool) -> Done:
        try:
            self._drive.erase(long=long)
        except DriveError as error:
            raise self.failure(error) from error
        return Done()

    # -- moving --------------------------------------------------------------------------------------------------

    def rewind(self, command: Command) -> Done:
        """REWIND."""
        try:
            self._drive.rewind()
        except DriveError as error:
            raise self.failure(error) from error
        self.found_again()
        return Done()

    def locate(self, command: Command) -> Done:
        """LOCATE(10): to a block."""
        if command.cdb[1] & 0x02:
            self._check_partition(command.cdb[8], 8)
        return self._locate_block(command.number(3, 4))

    def locate_16(self, command: Command) -> Done:
        """LOCATE(16): to a block, behind a filemark, or to the end of data."""
        if command.cdb[1] & 0x02:
            self._check_partition(command.cdb[3], 3)
        kind, number = command.cdb[1] >> 3 & 7, command.number(4, 8)
        if kind == 0:
            return self._locate_block(number)
        if kind == 1:
            return self._locate_file(number)
        if kind == 3:
            return self._seek_end()
        raise refuse(INVALID_FIELD_IN_CDB, 1)

    def _check_partition(self, partition: int, field: int) -> None:
        if partition:
            raise refuse(INVALID_FIELD_IN_CDB, field)

    def _locate_block(self, block: int) -> Done:
        try:
            self._drive.locate(BlockNo(block))
        except DriveError as error:
            raise self.failure(error) from error
        return Done()

    def _locate_file(self, number: int) -> Done:
        """Go behind that many filemarks from the start of the tape."""
        try:
            here = self._drive.position().file
            if number <= here:
                self._drive.rewind()
                here = self._drive.position().file
            self._drive.space_filemarks(number - here)
        except DriveError as error:
            raise self.failure(error) from error
        return Done()

    def _seek_end(self) -> Done:
        try:
            self._drive.seek_end()
        except DriveError as error:
            raise self.failure(error) from error
        return Done()

    def space(self, command: Command) -> Done:
        """SPACE(6)."""
        count = int.from_bytes(command.cdb[2:5], "big", signed=True)
        return self._space(command.cdb[1] & 7, count)

    def space_16(self, command: Command) -> Done:
        """SPACE(16)."""
        count = int.from_bytes(command.cdb[4:12], "big", signed=True)
        return self._space(command.cdb[1] & 0xF, count)

    def _space(self, kind: int, count: int) -> Done:
        try:
            if kind == 0:
                return self._space_blocks(count)
            if kind == 1:
                return self._space_filemarks(count) if count >= 0 else self._space_back(-count)
        except DriveError as error:
            raise self.failure(error, abs(count)) from error
        if kind == 3:
            return self._seek_end()
        raise refuse(INVALID_FIELD_IN_CDB, 1)

    def _space_blocks(self, count: int) -> Done:
        spaced = self._drive.space_blocks(count)
        left = abs(count) - spaced.passed
        if spaced.stop is Stop.FILEMARK:
            return Done(sense=Sense(Key.NO_SENSE, FILEMARK_DETECTED, filemark=True, information=left))
        if spaced.stop is Stop.END:
            return Done(sense=Sense(Key.BLANK_CHECK, END_OF_DATA, information=left))
        return Done(sense=_at_start(left) if spaced.stop is Stop.START else None)

    def _space_filemarks(self, count: int) -> Done:
        before = self._drive.position().file
        try:
            self._drive.space_filemarks(count)
        except EndOfData:
            left = count - (self._drive.position().file - before)
            return Done(sense=Sense(Key.BLANK_CHECK, END_OF_DATA, information=left))
        return Done()

    def _space_back(self, count: int) -> Done:
        passed = self._drive.space_back(count)
        return Done(sense=_at_start(count - passed) if passed < count else None)

    # -- READ POSITION -------------------------------------------------------------------------------------------

    def position_short(self, command: Command) -> Done:
        """READ POSITION, short form."""
        position, is_warned = self._position()
        data = bytearray(20)
        if position is None:
            data[0] = 0x04
        elif position.block >= 2**32:
            data[0] = 0x02
        else:
            data[0] = 0x80 * (position.block == 0) | 0x40 * is_warned
            data[4:8] = data[8:12] = position.block.to_bytes(4, "big")
        return command.give(bytes(data), len(data))

    def position_long(self, command: Command) -> Done:
        """READ POSITION, long form."""
        position, is_warned = self._position()
        data = bytearray(32)
        if position is None:
            data[0] = 0x0C
        else:
            data[0] = 0x80 * (position.block == 0) | 0x40 * is_warned
            data[8:16] = position.block.to_bytes(8, "big")
            data[16:24] = position.file.to_bytes(8, "big")
        return command.give(bytes(data), len(data))

    def position_extended(self, command: Command) -> Done:
        """READ POSITION, extended form."""
        position, is_warned = self._position()
        data = bytearray(32)
        data[3] = 0x1C
        if position is None:
            data[0] = 0x04
        else:
            data[0] = 0x80 * (position.block == 0) | 0x40 * is_warned
            data[8:16] = data[16:24] = position.block.to_bytes(8, "big")
        return command.give(bytes(data), command.number(7, 2))

    def _position(self) -> tuple[Position | None, bool]:
        """Return where the head stands, None when nobody knows, and whether it is behind the early warning."""
        try:
            position = self._drive.position()
            return position, not self._drive.status().remaining_bytes
        except PositionLost:
            return None, False
        except DriveError as error:
            raise self.failure(error) from error


def _at_start(left: int) -> Sense:
    return Sense(Key.NO_SENSE, BEGINNING_OF_PARTITION, end_of_medium=True, information=left)
