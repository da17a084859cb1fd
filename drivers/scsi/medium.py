"""What is known of the cartridge in a drive: from its memory, the drive's log pages, and its density. Blocking."""

from __future__ import annotations

from dataclasses import dataclass

from drivers.errors import NotReady, NotSupported
from drivers.scsi import cdb as commands
from drivers.scsi import logs
from drivers.scsi.device import Device
from drivers.scsi.generations import generation_of_density, native_bytes
from drivers.scsi.mam import MIB, WORM, Attribute, AttributeId, parse_attributes

_ROOM_BYTES = 0x4000


@dataclass(frozen=True, slots=True)
class Medium:
    """A cartridge, as far as the drive tells."""

    barcode: str | None
    generation: int | None
    capacity_bytes: int
    is_worm: bool
    serial: str
    #: None: not told.
    loads: int | None


def read_attributes(device: Device) -> dict[int, Attribute]:
    """Return the cartridge's memory; nothing when there is no cartridge, or the drive cannot read such memories."""
    try:
        return parse_attributes(device.read(commands.read_attribute(_ROOM_BYTES), _ROOM_BYTES))
    except (NotSupported, NotReady):
        return {}


def read_log(device: Device, page: int) -> bytes | None:
    """Return a log page; None when the drive has no such page or cannot tell it now."""
    try:
        return device.read(commands.log_sense(page, _ROOM_BYTES), _ROOM_BYTES)
    except (NotSupported, NotReady):
        return None


def look_at_medium(device: Device, *, is_loaded: bool, density: int | None) -> Medium | None:
    """Describe the cartridge; None when there is none. `density` is what the mode data say of it."""
    attributes = read_attributes(device)
    if not is_loaded and not attributes:
        return None
    for id in (AttributeId.FORMATTED_DENSITY, AttributeId.MEDIUM_DENSITY):
        if generation_of_density(density) is None and id in attributes:
            density = attributes[id].number
    return Medium(
        barcode=_barcode(device, attributes),
        generation=generation_of_density(density),
        capacity_bytes=_capacity_bytes(device, attributes, density),
        is_worm=AttributeId.MEDIUM_TYPE in attributes and attributes[AttributeId.MEDIUM_TYPE].number == WORM,
        serial=attributes[AttributeId.SERIAL_NUMBER].text if AttributeId.SERIAL_NUMBER in attributes else "",
        loads=attributes[AttributeId.LOAD_COUNT].number if AttributeId.LOAD_COUNT in attributes else None,
    )


def _barcode(device: Device, attributes: dict[int, Attribute]) -> str | None:
    if AttributeId.BARCODE in attributes and attributes[AttributeId.BARCODE].text:
        return attributes[AttributeId.BARCODE].text
    page = read_log(device, logs.VOLUME_STATISTICS)
    return (logs.parse_volume_statistics(page).barcode if page else "") or None


def _capacity_bytes(device: Device, attributes: dict[int, Attribute], density: int | None) -> int:
    told = attributes.get(AttributeId.MAXIMUM_CAPACITY_MIB)
    if told is not None and told.number:
        return told.number * MIB
    page = read_log(device, logs.TAPE_CAPACITY)
    return (logs.parse_tape_capacity(page).maximum_bytes if page else None) or native_bytes(density)


def room_bytes(device: Device, *, used_bytes: int, capacity_bytes: int) -> int:
    """Return the bytes between the head, which is before early warning, and there: at least 1.

    `used_bytes` is how much is written before the head at most, for drives that tell nothing.
    """
    page = read_log(device, logs.SEQUENTIAL_ACCESS)
    told = logs.parse_sequential_access(page) if page else None
    if told and told.to_early_warning_bytes is not None and told.to_head_bytes is not None:
        return max(1, told.to_early_warning_bytes - told.to_head_bytes)
    page = read_log(device, logs.TAPE_CAPACITY)
    remaining = logs.parse_tape_capacity(page).remaining_bytes if page else None
    if remaining is not None:
        return max(1, remaining)
    # Nothing told: what is surely there, less the fiftieth that drives keep behind early warning at most.
    return max(1, capacity_bytes - capacity_bytes // 50 - used_bytes)
