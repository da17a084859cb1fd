"""Log pages: TapeAlert, capacities, and what drive and cartridge have counted. Pure; any thread.

Poll TapeAlert by the page 12h: reading 2Eh clears the flags for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass

from drivers.errors import BadAnswer
from drivers.health import ErrorCounts
from drivers.scsi.fields import Fields

WRITE_ERRORS = 0x02
READ_ERRORS = 0x03
SEQUENTIAL_ACCESS = 0x0C
TEMPERATURE = 0x0D
TAPE_ALERT_RESPONSE = 0x12
DEVICE_STATISTICS = 0x14
VOLUME_STATISTICS = 0x17
TAPE_ALERT = 0x2E
TAPE_CAPACITY = 0x31

MB = 1_000_000
MIB = 1024 * 1024
_FLAGS = 64


def parse_log_page(data: bytes, page: int) -> dict[int, bytes]:
    """Decode a log page into its parameters' values by number; one that was cut is left out. Raises BadAnswer."""
    fields = Fields(data, f"the log page {page:02X}h")
    if fields.bits(0, 5, 0) != page:
        raise BadAnswer(f"asked for the log page {page:02X}h, the device sent {fields.bits(0, 5, 0):02X}h")
    fields = fields.upto(4 + fields.number(2, 2))
    values = {}
    at = 4
    while at + 4 <= len(fields):
        size = fields.number(at + 3)
        if at + 4 + size > len(fields):
            break
        values[fields.number(at, 2)] = fields.raw(at + 4, size)
        at += 4 + size
    return values


def _number(values: dict[int, bytes], code: int) -> int | None:
    """Return a counter; None when the device has none, or says by all ones that it does not know."""
    value = values.get(code, b"")
    return None if not value.strip(b"\xff") else int.from_bytes(value, "big")


def parse_tape_alert_response(data: bytes) -> frozenset[int]:
    """Decode the page 12h: the numbers of the flags that are set, 1 … 64. Raises BadAnswer."""
    value = parse_log_page(data, TAPE_ALERT_RESPONSE).get(0, b"")
    if len(value) < _FLAGS // 8:
        raise BadAnswer(f"the log page 12h has {len(value)} bytes of flags instead of 8")
    return flags_of(value[: _FLAGS // 8])


def flags_of(value: bytes) -> frozenset[int]:
    """Return the numbers of the set TapeAlert flags; the first is the highest bit of the first byte."""
    bits = int.from_bytes(value, "big")
    return frozenset(number for number in range(1, _FLAGS + 1) if bits >> (_FLAGS - number) & 1)


def parse_tape_alert(data: bytes) -> frozenset[int]:
    """Decode the page 2Eh, which clears the flags: the numbers of those that were set. Raises BadAnswer."""
    values = parse_log_page(data, TAPE_ALERT)
    return frozenset(code for code, value in values.items() if 1 <= code <= _FLAGS and value[:1] and value[0] & 1)


def parse_error_counts(data: bytes, page: int) -> ErrorCounts:
    """Decode one of the pages 02h and 03h: the totals of what was corrected and what was not. Raises BadAnswer."""
    values = parse_log_page(data, page)
    return ErrorCounts(_number(values, 0x0003), _number(values, 0x0006))


def parse_temperature(data: bytes) -> int | None:
    """Decode the page 0Dh: degrees Celsius, None when the drive has no sensor. Raises BadAnswer."""
    value = parse_log_page(data, TEMPERATURE).get(0, b"")
    return None if len(value) < 2 or value[1] == 0xFF else value[1]


@dataclass(frozen=True, slots=True)
class SequentialAccess:
    """The page 0Ch; None where the drive does not say or does not know, for instance without a tape."""

    received_bytes: int | None
    written_bytes: int | None
    read_bytes: int | None
    sent_bytes: int | None
    #: From the beginning of the partition to the end of data, to early warning, and to the head.
    to_end_of_data_bytes: int | None
    to_early_warning_bytes: int | None
    to_head_bytes: int | None
    #: At least so much room is behind early warning.
    behind_warning_bytes: int | None
    #: The drive's buffer.
    buffer_bytes: int | None
    wants_cleaning: bool


def parse_sequential_access(data: bytes) -> SequentialAccess:
    """Decode the page 0Ch, whose capacities are in MB. Raises BadAnswer."""
    values = parse_log_page(data, SEQUENTIAL_ACCESS)

    def megabytes(code: int) -> int | None:
        number = _number(values, code)
        return None if number is None else number * MB

    return SequentialAccess(
        received_bytes=_number(values, 0x0000),
        written_bytes=_number(values, 0x0001),
        read_bytes=_number(values, 0x0002),
        sent_bytes=_number(values, 0x0003),
        to_end_of_data_bytes=_known(megabytes(0x0004)),
        to_early_warning_bytes=_known(megabytes(0x0005)),
        behind_warning_bytes=_known(megabytes(0x0006)),
        to_head_bytes=_known(megabytes(0x0007)),
        buffer_bytes=_known(megabytes(0x0008)),
        wants_cleaning=bool(_number(values, 0x0100)),
    )


def _known(value_bytes: int | None) -> int | None:
    """Drop a value that means "unknown": drives also send 32 bits of ones in eight bytes."""
    return None if value_bytes == 0xFFFFFFFF * MB else value_bytes


@dataclass(frozen=True, slots=True)
class TapeCapacity:
    """The page 31h, first partition; None where the drive does not say."""

    remaining_bytes: int | None
    maximum_bytes: int | None


def parse_tape_capacity(data: bytes) -> TapeCapacity:
    """Decode the page 31h, which counts in MiB. Raises BadAnswer."""
    values = parse_log_page(data, TAPE_CAPACITY)
    remaining, maximum = _number(values, 0x0001), _number(values, 0x0003)
    return TapeCapacity(
        None if remaining is None else remaining * MIB,
        None if maximum is None else maximum * MIB,
    )


@dataclass(frozen=True, slots=True)
class DeviceStatistics:
    """The page 14h: the life of a drive; None where it does not say."""

    loads: int | None
    cleanings: int | None
    power_on_hours: int | None
    motion_hours: int | None
    processed_m: int | None
    motion_hours_since_cleaning: int | None
    power_cycles: int | None
    hard_write_errors: int | None
    hard_read_errors: int | None


_DEVICE_STATISTICS = (0x0000, 0x0001, 0x0002, 0x0003, 0x0004, 0x0008, 0x000C, 0x000E, 0x000F)


def parse_device_statistics(data: bytes) -> DeviceStatistics:
    """Decode the page 14h. Raises BadAnswer."""
    values = parse_log_page(data, DEVICE_STATISTICS)
    return DeviceStatistics(*(_number(values, code) for code in _DEVICE_STATISTICS))


@dataclass(frozen=True, slots=True)
class VolumeStatistics:
    """The page 17h: the life of a cartridge; None or an empty text where the drive does not say."""

    serial: str
    barcode: str
    loads: int | None
    write_retries: int | None
    write_errors: int | None
    read_retries: int | None
    read_errors: int | None
    lifetime_written_mb: int | None
    lifetime_read_mb: int | None
    capacity_mb: int | None
    used_mb: int | None
    beginning_passes: int | None
    middle_passes: int | None
    write_protected: int | None
    worm: int | None


_VOLUME_STATISTICS = (
    *(0x0001, 0x0003, 0x0004, 0x0008, 0x0009, 0x0010, 0x0011, 0x0016, 0x0017, 0x0101, 0x0102),
    *(0x0080, 0x0081),
)


def parse_volume_statistics(data: bytes) -> VolumeStatistics:
    """Decode the page 17h. Raises BadAnswer."""
    values = parse_log_page(data, VOLUME_STATISTICS)

    def text(code: int) -> str:
        return values.get(code, b"").decode("ascii", "replace").strip(" \0")

    return VolumeStatistics(text(0x0040), text(0x0042), *(_number(values, code) for code in _VOLUME_STATISTICS))
