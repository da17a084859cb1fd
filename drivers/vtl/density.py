"""LTO generations as SCSI names them: density codes, medium types, and REPORT DENSITY SUPPORT. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass

from drivers.lto import can_read, can_write
from drivers.virtual.generations import lto

MB = 10**6


@dataclass(frozen=True, slots=True)
class Density:
    """How one generation is recorded."""

    code: int
    bits_per_mm: int
    tracks: int
    name: str
    description: str


DENSITIES = {
    5: Density(0x58, 15142, 1280, "U-516", "Ultrium 5/16T"),
    6: Density(0x5A, 15143, 2176, "U-616", "Ultrium 6/16T"),
    7: Density(0x5C, 19107, 3584, "U-732", "Ultrium 7/32T"),
    8: Density(0x5E, 20668, 6656, "U-832", "Ultrium 8/32T"),
    9: Density(0x60, 21457, 8960, "U-932", "Ultrium 9/32T"),
}


def medium_type(generation: int, *, worm: bool) -> int:
    """Return the medium type byte of mode data: 98h is LTO-9, 9Ch its WORM."""
    return generation << 4 | (0x0C if worm else 0x08)


def density_report(drive: int, medium: int | None) -> bytes:
    """Return the report for a drive's generation; for what `medium` can be written or read with when that is given."""
    supported = [each for each in sorted(DENSITIES) if can_read(drive, each)] if medium is None else [medium]
    entries = b"".join(_descriptor(each, drive, is_default=each == (medium or drive)) for each in supported)
    return (len(entries) + 2).to_bytes(2, "big") + bytes(2) + entries


def _descriptor(generation: int, drive: int, *, is_default: bool) -> bytes:
    density = DENSITIES[generation]
    flags = 0x80 * can_write(drive, generation) | 0x20 * is_default
    return b"".join(
        (
            bytes([density.code, density.code, flags, 0, 0]),
            density.bits_per_mm.to_bytes(3, "big"),
            (127).to_bytes(2, "big"),
            density.tracks.to_bytes(2, "big"),
            (lto(generation).capacity_bytes // MB).to_bytes(4, "big"),
            b"LTO-CVE ",
            density.name.encode().ljust(8),
            density.description.encode().ljust(20),
        )
    )
