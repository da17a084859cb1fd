"""What distinguishes LTO generations for a driver: density codes, names of models, capacities. Pure; any thread."""

from __future__ import annotations

import re

TB = 10**12

#: Density code of a cartridge, as MODE SENSE tells it: generation. 5Dh is an LTO-7 cartridge formatted for LTO-8.
DENSITIES = {
    **{0x40: 1, 0x42: 2, 0x44: 3, 0x46: 4, 0x58: 5, 0x5A: 6, 0x5C: 7, 0x5D: 7, 0x5E: 8, 0x60: 9},
    **{0x62: 10, 0x63: 10},
}
_M8, _LTO10_PA = 0x5D, 0x63

#: Native capacity by generation, for drives that tell none.
_CAPACITIES = {
    **{1: TB // 10, 2: TB // 5, 3: 2 * TB // 5, 4: 4 * TB // 5, 5: 3 * TB // 2, 6: 5 * TB // 2},
    **{7: 6 * TB, 8: 12 * TB, 9: 18 * TB, 10: 30 * TB},
}

#: IBM ULT3580-TD9, ULTRIUM-HH9, HP and HPE Ultrium 9-SCSI, Quantum ULTRIUM 9, and names with a plain LTO-9.
_MODEL = re.compile(r"(?:ULT3580-TD|ULT3580-HH|ULTRIUM-TD|ULTRIUM-HH|ULTRIUM[ -]|LTO-?)(\d{1,2})", re.IGNORECASE)


def generation_of_model(product: str) -> int | None:
    """Return the generation that a drive's name tells; None when it tells none."""
    match = _MODEL.search(product)
    number = int(match.group(1)) if match else 0
    return number if number in _CAPACITIES else None


def generation_of_density(density: int | None) -> int | None:
    """Return the generation of a cartridge; None for a density that no LTO cartridge has, 0 among them."""
    return None if density is None else DENSITIES.get(density)


def native_bytes(density: int | None) -> int:
    """Return the native capacity of a cartridge by its density; 0 when it is unknown."""
    if density == _M8:
        return 9 * TB
    if density == _LTO10_PA:
        return 40 * TB
    return _CAPACITIES.get(generation_of_density(density) or 0, 0)
