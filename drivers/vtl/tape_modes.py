"""The mode pages of a tape drive. Belongs to its server, under its lock."""

from __future__ import annotations

from collections.abc import Callable

from drivers.virtual.drive import MAX_BLOCK_BYTES
from drivers.virtual.faults import BreakableDrive
from drivers.vtl.density import DENSITIES, medium_type
from drivers.vtl.modes import ModeHeader, ModePage, Modes, fixed_page
from drivers.vtl.sense import refuse_parameter

_COMPRESSION_BYTES, _CONFIGURATION_BYTES, _EXCEPTIONS_BYTES = 14, 14, 10
_DCE, _DCC, _DDE = 0x80, 0x40, 0x80
_TEST = 0x04
_NO_CHANGE = 0x7F


class TapeModes:
    """What a tape drive lets initiators set: block length, buffering, compression, tests of TapeAlert."""

    def __init__(
        self, drive: BreakableDrive, set_descriptor_sense: Callable[[bool], None], raise_alert: Callable[[int], None]
    ) -> None:
        """`raise_alert` is called with the flag of TapeAlert that an initiator wants to see for a test."""
        self._drive = drive
        self._set_descriptor_sense = set_descriptor_sense
        self._raise_alert = raise_alert
        #: Length of fixed blocks; 0: blocks are variable.
        self.block_bytes = 0
        self._buffered = True
        self._descriptor_sense = False
        self._exceptions = bytes([0x08, 0x03]) + bytes(8)
        self.pages = Modes(self._table(), self._header, self._select_header)

    def _table(self) -> list[ModePage]:
        return [
            fixed_page(0x01, "00 08 00 00 00 00 08 00 00 00"),
            fixed_page(0x02, "00" * 14),
            ModePage(0x0A, self._control, bytes(10), b"\x04" + bytes(9), self._set_control),
            ModePage(
                0x0F, self._compression, _compression_page(True), bytes([_DCE]) + bytes(13), self._set_compression
            ),
            ModePage(
                0x10,
                self._configuration,
                _configuration_page(True),
                bytes(12) + b"\xff" + b"\0",
                self._set_configuration,
            ),
            # One partition; the drive recognises format and partitions by itself; sizes in MB.
            fixed_page(0x11, "00 00 10 03 00 00"),
            ModePage(
                0x1C,
                lambda: self._exceptions,
                bytes([0x08, 0x03]) + bytes(8),
                bytes([_TEST, 0]) + bytes(4) + b"\xff" * 4,
                self._set_exceptions,
            ),
        ]

    # -- header and block descriptor -----------------------------------------------------------------------------

    def _header(self) -> ModeHeader:
        status = self._drive.status()
        loaded = status.loaded and status.medium_generation is not None
        generation = status.medium_generation if loaded and status.medium_generation else status.generation
        descriptor = bytes([DENSITIES[generation].code, 0, 0, 0, 0]) + self.block_bytes.to_bytes(3, "big")
        return ModeHeader(
            medium_type(generation, worm=self._drive.worm) if loaded else 0,
            0x80 * (loaded and status.write_protected) | 0x10 * self._buffered,
            descriptor,
        )

    def _select_header(self, specific: int, descriptor: bytes) -> bool:
        if specific >> 4 & 7 > 1 or specific & 0x0F:
            raise refuse_parameter(2)
        block_bytes = self.block_bytes
        if descriptor:
            current = self._header().block_descriptor[0]
            if descriptor[0] not in (0, _NO_CHANGE, current):
                raise refuse_parameter(4)
            block_bytes = int.from_bytes(descriptor[5:8], "big")
            if block_bytes > MAX_BLOCK_BYTES:
                raise refuse_parameter(9)
        buffered = bool(specific & 0x10)
        changed = (block_bytes, buffered) != (self.block_bytes, self._buffered)
        self.block_bytes, self._buffered = block_bytes, buffered
        return changed

    # -- pages ---------------------------------------------------------------------------------------------------

    def _control(self) -> bytes:
        return bytes([0x04 * self._descriptor_sense]) + bytes(9)

    def _set_control(self, page: bytes) -> None:
        self._descriptor_sense = bool(page[0] & 0x04)
        self._set_descriptor_sense(self._descriptor_sense)

    def _compression(self) -> bytes:
        return _compression_page(self._drive.status().compresses)

    def _set_compression(self, page: bytes) -> None:
        self._drive.set_compression(bool(page[0] & _DCE))

    def _configuration(self) -> bytes:
        return _configuration_page(self._drive.status().compresses)

    def _set_configuration(self, page: bytes) -> None:
        self._drive.set_compression(page[12] != 0)

    def _set_exceptions(self, page: bytes) -> None:
        number = int.from_bytes(page[6:10], "big", signed=True)
        if page[0] & _TEST:
            self._raise_alert(number)
        # A test happens once; its bit does not stay.
        self._exceptions = bytes([page[0] & ~_TEST, page[1]]) + page[2:]


def _compression_page(compresses: bool) -> bytes:
    """Return page 0Fh: capable of compression, algorithm 1 (SLDC) both ways."""
    algorithm = (1).to_bytes(4, "big")
    return bytes([_DCC | _DCE * compresses, _DDE]) + algorithm + algorithm + bytes(4)


def _configuration_page(compresses: bool) -> bytes:
    """Return page 10h: block identifiers are supported; at early warning the buffer is written out and EOD made."""
    return bytes([0, 0, 0, 0, 0, 0, 0x40, 0, 0x18, 0, 0, 0, int(compresses), 0])
