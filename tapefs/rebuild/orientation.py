"""What a block begins, and where a tape file does. Blocking; the drive's thread."""

from __future__ import annotations

import zstandard

from drivers.interface import BlockNo, Drive, FileNo, Position
from tapefs.errors import BadStructure
from tapefs.format.structures import read_header
from tapefs.keys.age import is_age, parse

#: So far back is looked first, in blocks, then four times as far, and so on.
_FIRST_STEP = 1


def last_file_before(drive: Drive, end: int, begin: Position) -> Position | None:
    """Return where the tape file begins that a filemark ends directly before block `end`; None if none does.

    `begin` is where tape files are looked for. The drive tells the number of the tape file at every block that is
    located, so a search by halves finds where it changes. Raises drive errors.
    """
    mark = end - 1
    if mark <= begin.block:
        return None
    file = _file_at(drive, mark)
    if _file_at(drive, end) != file + 1:
        return None
    low, high, step = mark, mark, _FIRST_STEP
    while low > begin.block and _file_at(drive, low) == file:
        high, low, step = low, max(mark - step, begin.block), 4 * step
    if _file_at(drive, low) == file:
        return Position(BlockNo(low), FileNo(file))
    while high - low > 1:
        middle = (low + high) // 2
        if _file_at(drive, middle) == file:
            high = middle
        else:
            low = middle
    return Position(BlockNo(high), FileNo(file))


def _file_at(drive: Drive, block: int) -> int:
    drive.locate(BlockNo(block))
    return drive.position().file


def is_header(block: bytes) -> bool:
    """Is it a whole HEADER?"""
    try:
        read_header(block)
    except BadStructure:
        return False
    return True


def is_index(first_block: bytes) -> bool:
    """Does a SET INDEX begin with this block?"""
    if is_age(first_block):
        try:
            clear = parse(first_block).clear
        except BadStructure:
            return False
        return clear is not None and clear.what == "index"
    try:
        text = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj().decompress(first_block[:1024])
    except zstandard.ZstdError:
        return False
    return text.startswith(b'{"t":"index"')
