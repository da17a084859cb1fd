"""How a SCSI tape drive is, and what it and the cartridge's memory have counted. Blocking; one thread.

A page that a drive lacks is left out; one that makes no sense is told to the operator, and left out as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from drivers.errors import BadAnswer
from drivers.health import CLEANING_FLAGS, DriveHealth, ErrorCounts, MediumHealth
from drivers.scsi import logs
from drivers.scsi.device import Device
from drivers.scsi.generations import generation_of_density
from drivers.scsi.mam import MIB, WORM, Attribute, AttributeId
from drivers.scsi.medium import read_attributes, read_log

T = TypeVar("T")


def look_at_health(device: Device, report: Callable[[str], None]) -> DriveHealth:
    """Ask for all of it; `report` hears what makes no sense. Raises DeviceFailed."""
    look = _Look(device, report)
    alerts = look.alerts()
    sequential = look.page(logs.SEQUENTIAL_ACCESS, logs.parse_sequential_access)
    statistics = look.page(logs.DEVICE_STATISTICS, logs.parse_device_statistics)
    return DriveHealth(
        alerts=alerts,
        wants_cleaning=bool(alerts & CLEANING_FLAGS or (sequential and sequential.wants_cleaning)),
        temperature_c=look.page(logs.TEMPERATURE, logs.parse_temperature),
        writing=look.errors(logs.WRITE_ERRORS),
        reading=look.errors(logs.READ_ERRORS),
        cleanings=statistics.cleanings if statistics else None,
        medium=look.medium(),
    )


class _Look:
    def __init__(self, device: Device, report: Callable[[str], None]) -> None:
        self._device = device
        self._report = report

    def page(self, page: int, parse: Callable[[bytes], T]) -> T | None:
        data = read_log(self._device, page)
        if not data:
            return None
        try:
            return parse(data)
        except BadAnswer as error:
            self._report(f"{self._device.name}: its log page {page:02X}h cannot be read: {error}")
            return None

    def alerts(self) -> frozenset[int]:
        """Return the flags that are set; from the page that clears them only where there is no other."""
        found = self.page(logs.TAPE_ALERT_RESPONSE, logs.parse_tape_alert_response)
        if found is None:
            found = self.page(logs.TAPE_ALERT, logs.parse_tape_alert)
        return found or frozenset()

    def errors(self, page: int) -> ErrorCounts:
        return self.page(page, lambda data: logs.parse_error_counts(data, page)) or ErrorCounts()

    def medium(self) -> MediumHealth | None:
        attributes = read_attributes(self._device)
        statistics = self.page(logs.VOLUME_STATISTICS, logs.parse_volume_statistics)
        if not attributes:
            return None
        memory = _Memory(attributes)
        capacity = self.page(logs.TAPE_CAPACITY, logs.parse_tape_capacity)
        remaining = memory.mebibytes(AttributeId.REMAINING_CAPACITY_MIB)
        return MediumHealth(
            loads=memory.number(AttributeId.LOAD_COUNT),
            written_bytes=memory.mebibytes(AttributeId.LIFETIME_WRITTEN_MIB),
            read_bytes=memory.mebibytes(AttributeId.LIFETIME_READ_MIB),
            capacity_bytes=memory.mebibytes(AttributeId.MAXIMUM_CAPACITY_MIB)
            or (capacity.maximum_bytes if capacity else None),
            remaining_bytes=capacity.remaining_bytes if remaining is None and capacity else remaining,
            length_m=memory.number(AttributeId.LENGTH_M),
            generation=generation_of_density(
                memory.number(AttributeId.FORMATTED_DENSITY) or memory.number(AttributeId.MEDIUM_DENSITY)
            ),
            is_worm=memory.number(AttributeId.MEDIUM_TYPE) == WORM,
            is_write_protected=bool(statistics and statistics.write_protected),
            manufacturer=memory.text(AttributeId.MANUFACTURER),
            serial=memory.text(AttributeId.SERIAL_NUMBER),
            manufactured=memory.text(AttributeId.MANUFACTURE_DATE),
            last_drive=memory.text(AttributeId.LAST_DRIVE_BUT_ONE),
            write_errors=statistics.write_errors if statistics else None,
            read_errors=statistics.read_errors if statistics else None,
        )


class _Memory:
    """Values of a cartridge's memory; what is not there, or all ones, is not known."""

    def __init__(self, attributes: dict[int, Attribute]) -> None:
        self._attributes = attributes

    def number(self, id: AttributeId) -> int | None:
        found = self._attributes.get(id)
        return None if found is None or not found.value.strip(b"\xff") else found.number

    def mebibytes(self, id: AttributeId) -> int | None:
        number = self.number(id)
        return None if number is None else number * MIB

    def text(self, id: AttributeId) -> str:
        found = self._attributes.get(id)
        return "" if found is None else found.text
