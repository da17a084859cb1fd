"""Reading and setting mode pages of a device, by the ten-byte commands or, where it lacks them, the six-byte ones.

Blocking; one thread.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from drivers.errors import DeviceFailed, NotSupported
from drivers.scsi import cdb as commands
from drivers.scsi import modes
from drivers.scsi.device import Device
from drivers.scsi.modes import Compression, ModeData
from drivers.scsi.outcomes import Doing

_ROOM_10 = 512
_ROOM_6 = 252
_ALL_PAGES = 0x3F


class ModePages:
    """The mode pages of one device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._has_ten = True

    def read(self, page: int) -> ModeData:
        """Return header, block descriptor and one page. Raises NotSupported when there is no such page."""
        if self._has_ten:
            try:
                return modes.parse_mode_10(self._device.read(commands.mode_sense_10(page, _ROOM_10), _ROOM_10))
            except NotSupported:
                # Either the command or the page is unknown; the shorter command tells which.
                found = self._read_6(page)
                self._has_ten = False
                return found
        return self._read_6(page)

    def _read_6(self, page: int) -> ModeData:
        return modes.parse_mode_6(self._device.read(commands.mode_sense_6(page, _ROOM_6), _ROOM_6))

    def write(self, data: ModeData) -> None:
        """Set header, block descriptor, and the page if there is one. Raises NotSupported."""
        if self._has_ten:
            parameters = modes.mode_parameters_10(data)
            try:
                self._device.run(commands.mode_select_10(len(parameters)), Doing.LOAD, data_out=parameters)
                return
            except NotSupported:
                self._write_6(data)
                self._has_ten = False
                return
        self._write_6(data)

    def _write_6(self, data: ModeData) -> None:
        parameters = modes.mode_parameters_6(data)
        self._device.run(commands.mode_select_6(len(parameters)), Doing.LOAD, data_out=parameters)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a drive is set."""

    #: Of the cartridge; None when the drive does not say.
    density: int | None
    write_protected: bool
    #: 0 for blocks of any length.
    block_bytes: int
    buffered: bool
    #: None when the drive has no such page.
    compression: Compression | None

    @property
    def compresses(self) -> bool:
        """Tell whether the drive compresses what is written."""
        return self.compression is not None and self.compression.enabled


class DriveSettings:
    """The settings of a tape drive that matter here: blocks of any length, buffering, compression."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._pages = ModePages(device)

    def look(self) -> Settings:
        """Return how the drive is set. Raises DeviceFailed."""
        return _settings(self._read())

    def _read(self) -> ModeData:
        for page in (modes.DATA_COMPRESSION, modes.DEVICE_CONFIGURATION):
            try:
                return self._pages.read(page)
            except NotSupported:
                continue
        return self._pages.read(_ALL_PAGES)

    def make(self, compress: bool | None) -> Settings:
        """Set what is not set as it must be, and return what the drive made of it.

        A drive that cannot compress, or cannot be told not to, is left as it is. Raises DeviceFailed when it stays at
        blocks of a fixed length.
        """
        seen = self._read()
        wanted = replace(seen, block_bytes=modes.VARIABLE, buffered_mode=modes.BUFFERED, page=b"")
        found = _settings(seen)
        if compress is not None and found.compression and found.compression.capable and found.compresses != compress:
            wanted = replace(wanted, page=modes.with_compression(seen.page, compress))
        if wanted == replace(seen, page=b""):
            return found
        try:
            self._pages.write(wanted)
        except NotSupported:
            # What a drive may refuse to be told: its page, or how it buffers.
            if wanted.block_bytes != seen.block_bytes:
                self._pages.write(replace(seen, block_bytes=modes.VARIABLE, page=b""))
        made = self.look()
        if made.block_bytes != modes.VARIABLE:
            raise DeviceFailed(
                f"{self._device.name} stays at blocks of {made.block_bytes} bytes: set it to variable blocks"
            )
        return made


def _settings(data: ModeData) -> Settings:
    has_page = data.page[:1] and data.page[0] & 0x3F == modes.DATA_COMPRESSION
    return Settings(
        density=data.density,
        write_protected=data.write_protected,
        block_bytes=data.block_bytes,
        buffered=data.buffered_mode != 0,
        compression=modes.parse_compression(data.page) if has_page else None,
    )
