"""Which LTO drive reads and writes which cartridge. Pure; any thread.

A drive reads two generations back up to LTO-7 and one from LTO-8 on, and writes one back; LTO-10 uses its own only.
Type M cartridges (M8 at the end of the barcode) are of LTO-7, formatted for more by LTO-8: only LTO-8 uses those.
"""

from __future__ import annotations

from enum import Enum

#: Cartridges that a drive of the generation reads, and writes.
READS = {
    **{1: (1,), 2: (1, 2), 3: (1, 2, 3), 4: (2, 3, 4), 5: (3, 4, 5), 6: (4, 5, 6), 7: (5, 6, 7)},
    **{8: (7, 8), 9: (8, 9), 10: (10,)},
}
WRITES = {
    **{1: (1,), 2: (1, 2), 3: (2, 3), 4: (3, 4), 5: (4, 5), 6: (5, 6), 7: (6, 7)},
    **{8: (7, 8), 9: (8, 9), 10: (10,)},
}
#: The generation of drives that use cartridges of type M.
_TYPE_M = 8


class Use(Enum):
    """What a drive can do with a cartridge."""

    NOTHING = "nothing"
    READING = "reading"
    WRITING = "writing"


def use(drive: int, medium: int, *, is_type_m: bool = False) -> Use:
    """Return what a drive can do with a cartridge, by their generations.

    Of a generation that is not known here (0 among them) everything is expected: the drive itself will say.
    """
    if drive not in READS or medium not in READS:
        return Use.WRITING
    if is_type_m:
        return Use.WRITING if drive == _TYPE_M else Use.NOTHING
    if medium in WRITES[drive]:
        return Use.WRITING
    return Use.READING if medium in READS[drive] else Use.NOTHING


def can_read(drive: int, medium: int) -> bool:
    """Tell whether a drive reads a cartridge."""
    return use(drive, medium) is not Use.NOTHING


def can_write(drive: int, medium: int) -> bool:
    """Tell whether a drive writes a cartridge."""
    return use(drive, medium) is Use.WRITING
