"""The log pages of a tape drive: counters, device status, TapeAlert, capacity. Belongs to its server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drivers.errors import DriveError
from drivers.health import CLEANING_FLAGS
from drivers.interface import DriveStatus
from drivers.virtual.drive import reserve_bytes
from drivers.virtual.faults import BreakableDrive
from drivers.virtual.memory import MemoryRecord
from drivers.vtl.inquiry import Identity
from drivers.vtl.logs import Logs, flags_parameter, parameter, text_parameter

MB = 10**6
MIB = 2**20
ALERTS = 64
#: TapeAlert flags by number.
READ_WARNING, WRITE_WARNING, HARD_ERROR, MEDIA_ALERT, READ_FAILURE, WRITE_FAILURE = 1, 2, 3, 4, 5, 6
WRITE_PROTECT = 9
CLEANING_USED_UP = 22


class Alerts:
    """The 64 flags of TapeAlert."""

    def __init__(self) -> None:
        self._raised: set[int] = set()

    def put_up(self, number: int) -> None:
        """Set a flag."""
        self._raised.add(number)

    def test(self, number: int) -> None:
        """Do as the test function of the mode page wants it: set a flag, clear it (negative), or set all (0)."""
        if 1 <= number <= ALERTS:
            self._raised.add(number)
        elif -ALERTS <= number <= -1:
            self._raised.discard(-number)
        elif number == 0:
            self._raised.update(range(1, ALERTS + 1))

    def clear(self) -> None:
        """Clear all."""
        self._raised.clear()

    def is_raised(self, number: int) -> bool:
        """Tell whether a flag is set."""
        return number in self._raised

    def bitmap(self) -> bytes:
        """Return the flags as bits, flag 1 first."""
        bits = sum(1 << (ALERTS - each) for each in self._raised)
        return bits.to_bytes(8, "big")


@dataclass(slots=True)
class Tally:
    """What the server itself counts, since it was started."""

    write_errors: int = 0
    read_errors: int = 0
    cleanings: int = 0


@dataclass(slots=True)
class Since:
    """What had been counted when the counters of a page began anew."""

    errors: int = 0
    processed_bytes: int = 0


class TapeLogs:
    """Reads drive and cartridge for LOG SENSE."""

    def __init__(
        self,
        drive: BreakableDrive,
        identity: Identity,
        *,
        activity: Callable[[], int],
        is_prevented: Callable[[], bool],
    ) -> None:
        """`activity` is the code of what the drive is doing, as ADC numbers it; 0: nothing."""
        self._drive = drive
        self._identity = identity
        self._activity = activity
        self._is_prevented = is_prevented
        self.alerts = Alerts()
        self.tally = Tally()
        self._written_since, self._read_since = Since(), Since()
        self.pages = Logs(
            {
                0x02: lambda: self._errors(self._written(), self._written_since),
                0x03: lambda: self._errors(self._read(), self._read_since),
                0x0C: self._sequential_access,
                0x11: self._device_status,
                0x12: lambda: [flags_parameter(0, self._bitmap())],
                0x14: self._device_statistics,
                0x17: self._volume_statistics,
                0x2E: self._tape_alert,
                0x31: self._capacity,
            },
            {0x02: self._reset_written, 0x03: self._reset_read, 0x2E: self.alerts.clear},
        )

    def _written(self) -> Since:
        return Since(self.tally.write_errors, self._drive.status().counters.bytes_written)

    def _read(self) -> Since:
        return Since(self.tally.read_errors, self._drive.status().counters.bytes_read)

    def _reset_written(self) -> None:
        self._written_since = self._written()

    def _reset_read(self) -> None:
        self._read_since = self._read()

    def _errors(self, now: Since, before: Since) -> list[bytes]:
        """Return the error counters: none corrected, bytes processed, none left uncorrected but the hard ones."""
        return [
            *(parameter(code, 0, 4) for code in range(5)),
            parameter(5, now.processed_bytes - before.processed_bytes, 8),
            parameter(6, now.errors - before.errors, 4),
        ]

    def asks_to_be_cleaned(self) -> bool:
        """Does the drive want it, by a flag that was raised here or set in it?"""
        return any(self.alerts.is_raised(each) or each in self._drive.health().alerts for each in CLEANING_FLAGS)

    def was_cleaned(self) -> None:
        """Count that, and take down what asked for it."""
        self.tally.cleanings += 1
        for each in (*CLEANING_FLAGS, CLEANING_USED_UP):
            self.alerts.test(-each)

    def _bitmap(self) -> bytes:
        """Return the flags that are raised here, and those that somebody has set in the drive."""
        bits = int.from_bytes(self.alerts.bitmap(), "big")
        for number in self._drive.health().alerts:
            bits |= 1 << (ALERTS - number)
        return bits.to_bytes(ALERTS // 8, "big")

    def _tape_alert(self) -> list[bytes]:
        set_by_hand = self._drive.health().alerts
        flags = [
            parameter(number, self.alerts.is_raised(number) or number in set_by_hand, 1)
            for number in range(1, ALERTS + 1)
        ]
        self.alerts.clear()
        return flags

    def _sequential_access(self) -> list[bytes]:
        status = self._drive.status()
        counters, used_bytes = status.counters, self._bytes_before_head(status)
        reserved = reserve_bytes(status.capacity_bytes) if status.loaded else 0
        return [
            *(parameter(code, counters.bytes_written, 8) for code in (0, 1)),
            *(parameter(code, counters.bytes_read, 8) for code in (2, 3)),
            parameter(5, max(0, status.capacity_bytes - reserved) // MB if status.loaded else 0, 4),
            parameter(6, reserved // MB, 4),
            parameter(7, used_bytes // MB, 4),
            parameter(0x100, self.asks_to_be_cleaned(), 4),
        ]

    def _bytes_before_head(self, status: DriveStatus) -> int:
        """Return about what lies before the head: exact up to the early warning."""
        if not status.loaded:
            return 0
        return max(0, status.capacity_bytes - reserve_bytes(status.capacity_bytes) - status.remaining_bytes)

    def _device_status(self) -> list[bytes]:
        status = self._drive.status()
        alerts = self._bitmap() != bytes(8)
        first = (
            0x80 * self._is_prevented()
            | 0x20 * (status.barcode is not None)
            | 0x10 * status.compresses
            | 0x08 * status.write_protected
            | 0x01
        )
        second = 0x10 * (status.barcode is not None) | 0x07 * status.loaded
        return [
            flags_parameter(0, bytes([first, second, self._activity(), 0x01 * alerts])),
            # Milliseconds after which it is worth asking again.
            parameter(1, 1000, 2),
        ]

    def _device_statistics(self) -> list[bytes]:
        status = self._drive.status()
        counters, seconds = status.counters, status.counters.seconds
        moving_s = seconds.locate + seconds.read + seconds.write + seconds.rewind + seconds.backhitch
        return [
            parameter(0x00, counters.loads, 4),
            parameter(0x01, self.tally.cleanings, 4),
            parameter(0x03, int(moving_s) // 3600, 4),
            parameter(0x06, self.tally.write_errors + self.tally.read_errors, 4),
            text_parameter(0x40, self._identity.serial, 16),
            text_parameter(0x41, self._identity.serial, 16),
            parameter(0x80, self._is_prevented(), 1),
        ]

    def _volume_statistics(self) -> list[bytes]:
        status = self._drive.status()
        memory = self._memory(status)
        barcode = status.barcode or ""
        return [
            parameter(0x00, status.loaded, 1),
            parameter(0x01, memory.loads, 4),
            parameter(0x04, self.tally.write_errors, 4),
            parameter(0x09, self.tally.read_errors, 4),
            parameter(0x0E, memory.last_written_bytes // MB, 4),
            parameter(0x0F, memory.last_read_bytes // MB, 4),
            parameter(0x10, memory.written_bytes // MB, 8),
            parameter(0x11, memory.read_bytes // MB, 8),
            parameter(0x16, status.capacity_bytes // MB, 4),
            parameter(0x17, self._bytes_before_head(status) // MB, 4),
            text_parameter(0x40, barcode, 32),
            text_parameter(0x42, barcode, 32),
            text_parameter(0x45, f"Ultrium-{status.medium_generation}" if status.medium_generation else "", 9),
            parameter(0x80, status.write_protected, 1),
            parameter(0x81, self._drive.worm, 1),
        ]

    def _memory(self, status: DriveStatus) -> MemoryRecord:
        if not status.loaded:
            return MemoryRecord()
        try:
            return self._drive.memory()
        except DriveError:
            return MemoryRecord()

    def _capacity(self) -> list[bytes]:
        status = self._drive.status()
        remaining = status.remaining_bytes if status.loaded else 0
        capacity = status.capacity_bytes if status.loaded else 0
        # Rounded up: 0 is told only behind the early warning.
        return [
            parameter(1, -(-remaining // MIB), 4),
            parameter(2, 0, 4),
            parameter(3, capacity // MIB, 4),
            parameter(4, 0, 4),
        ]
