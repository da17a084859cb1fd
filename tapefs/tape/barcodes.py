"""What a cartridge's barcode tells of it, by the rules of LTO. Pure; any thread.

Six characters of one's own, then two for the medium: L5 to L9 (LA would be LTO-10), M8 for an LTO-7 cartridge written
by LTO-8 drives, LT to LZ for WORM of LTO-3 to LTO-9. CLN at the beginning is a cleaning cartridge.
"""

from __future__ import annotations

import re

_DATA = re.compile(r".*[LM](\d)")
_WORM = re.compile(r".{6,}L([T-Z])")
#: What LT, the first letter of WORM, is the generation of.
_FIRST_WORM = 3


def generation_of(barcode: str) -> int | None:
    """Return the LTO generation; None when the barcode tells none."""
    if (data := _DATA.fullmatch(barcode)) is not None:
        return int(data[1])
    worm = _WORM.fullmatch(barcode)
    return None if worm is None else _FIRST_WORM + ord(worm[1]) - ord("T")


def is_worm(barcode: str) -> bool:
    """Does it say that the cartridge can be written only once?"""
    return _WORM.fullmatch(barcode) is not None


def is_cleaning(barcode: str) -> bool:
    """Does it say that this cartridge cleans the heads? Nothing can be written on it."""
    return barcode.startswith("CLN")
