"""The bytes of a namespace index: tables, keys and packed values. Pure functions, usable from any thread.

`docs/index.md` describes every field. What all values share: the last four bytes are a CRC32 (little endian) over key
and value, so the CRC32 of key and whole value together is always `RESIDUE`, which is checked without cutting.
Keys are big endian, because LMDB sorts them as bytes; values are little endian and unaligned.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import lru_cache, partial
from itertools import accumulate, chain, repeat, starmap
from struct import Struct
from struct import error as StructError
from typing import NamedTuple, cast
from zlib import crc32

from catalog.ids import DirectoryNo, EntryNo, FrameNo, SegmentId, SegmentNo, SetId
from catalog.index.model import Base, Directory, Entry, Extent, FrameRow, Meta, NumberedFrame, SegmentRow, Totals

VERSION = 3
MAGIC = b"tapefs index"

#: Entry and directory numbers stay below this: an inode has 40 bits for them, the highest of which tells directories.
NUMBERS = 1 << 39


class Table(Enum):
    """The named databases of the LMDB file."""

    META = b"meta"
    ENTRIES = b"entries"
    DIRECTORIES = b"directories"
    EXTENTS = b"extents"
    LINKS = b"links"
    XATTRS = b"xattrs"
    DIRECTORY_XATTRS = b"directory_xattrs"
    SEGMENTS = b"segments"
    FRAMES = b"frames"
    FRAME_NUMBERS = b"frame_numbers"
    HASHES = b"hashes"


#: LMDB fits two nodes in a page, so a value whose key has up to 12 bytes may have 2,018 bytes; a longer one takes pages
#: of its own.
VALUE_BYTES = 2016

META_KEY = b"index"
BASES_KEY = b"bases"
#: Key of entry blocks, of chunks of attributes (first entry number); of extents, links (entry number); of directories
#: and their attributes.
NUMBER_KEY = Struct(">Q")
#: Key of segments.
SEGMENT_KEY = Struct(">I")
#: Key of chunks of frames and hashes: segment, first place in the plain stream.
PLACE_KEY = Struct(">IQ")
#: Key of the table of frame ordinals: segment, ordinal of a chunk's first frame.
ORDINAL_KEY = Struct(">II")

#: The lower word of a time. Nanoseconds since 1970 fill 64 bits in 2554, and filesystems keep later years than that.
_LOW = (1 << 64) - 1

#: CRC32 of any data followed by its own CRC32.
RESIDUE = 0x2144DF1C
_CRC = Struct("<I")
CRC_BYTES = _CRC.size

#: Magic, layout version.
_META_HEAD = Struct("<12sI")
#: The totals: entries, directories, files, lower and upper word of bytes (sparse files add up); first and end of the
#: entries' numbers, of the segments'; bases; length of the set id that follows.
_META = Struct("<QQQQQQQQQIH")
#: First entry, first segment, length of the set id that follows.
_BASE = Struct("<QQH")
#: Count of entries, count of attribute classes.
_BLOCK_HEAD = Struct("<HH")
#: mode, uid, gid, nlink, rdev, dev, flags, segment, upper words of mtime_ns and ctime_ns.
_CLASS = Struct("<IIIIQQHIii")
#: class, end in the heap, size, lower words of mtime_ns and ctime_ns, ino, blocks, offset.
_ROW_FORMAT = "BHQQQQQQ"
_ROW = Struct("<" + _ROW_FORMAT)
_END = Struct("<H")
#: Place of the heap end within a row.
_END_AT = 1
#: The fields of Directory but its number; times as upper and lower words, bytes as lower and upper word.
_DIRECTORY = Struct("<QIIIQiQiQIQQQQQQQQIH")
#: Of those: first entry and count of the files, of the subdirectories.
_RUNS = Struct("<QQQQ")
_RUNS_AT = Struct("<QIIIQiQiQIQQQ").size
_EXTENT = Struct("<QQIQ")
_LINK = Struct("<Q")
#: Plain bytes, stored bytes, frames, length of the segment id that follows.
_SEGMENT = Struct("<QQIH")
#: Ordinal of the chunk's first frame.
_FRAMES_HEAD = Struct("<I")
_FRAME = Struct("<QQQQ16s")
FRAMES_PER_CHUNK = (VALUE_BYTES - _FRAMES_HEAD.size - _CRC.size) // _FRAME.size
_PLAIN_OFFSET = Struct("<Q")
DIGEST_BYTES = 32
HASHES_PER_CHUNK = (VALUE_BYTES - _CRC.size) // (8 + DIGEST_BYTES)

#: Makes an Entry of a tuple of its fields: half the time of Entry._make.
_as_entry = cast("Callable[[tuple[object, ...]], Entry]", partial(tuple.__new__, Entry))

_as_extent = cast("Callable[[tuple[object, ...]], Extent]", partial(tuple.__new__, Extent))

Item = tuple[bytes, bytes]


def seal(key: bytes, body: bytes) -> bytes:
    """Return the value to store under `key`: the body and its CRC32."""
    return body + _CRC.pack(crc32(body, crc32(key)))


def is_sound(key: bytes, value: bytes) -> bool:
    """Tell whether the value is what was sealed under this key."""
    return crc32(value, crc32(key)) == RESIDUE


# -- entries ---------------------------------------------------------------------------------------------------------


def encode_entries(first: int, entries: Sequence[Entry], *, last: bool) -> tuple[list[Item], int]:
    """Pack entries numbered from `first` into blocks; return the blocks and how many entries went into them.

    Without `last` the entries of a block that could still take more are left over, so that the blocks do not depend on
    how the entries were handed over. Raises ValueError when a field does not fit or a name holds a NUL.
    """
    if not entries:
        return [], 0
    (names, modes, uids, gids, sizes, mtimes, ctimes, nlinks, rdevs, devs, inos, blocks, flags, segments, offsets,
     targets) = zip(*entries, strict=True)  # fmt: skip
    if b"\0" in b"".join(names):
        raise ValueError("a name holds a NUL byte")
    pieces = [name + b"\0" + target if target else name for name, target in zip(names, targets, strict=True)]
    attributes = list(
        zip(modes, uids, gids, nlinks, rdevs, devs, flags, segments, _upper(mtimes), _upper(ctimes), strict=False)
    )
    columns = (sizes, _lower(mtimes), _lower(ctimes), inos, blocks, offsets)
    filled = list(accumulate(map(_ROW.size.__add__, map(len, pieces)), initial=0))
    items: list[Item] = []
    start = 0
    try:
        while start < len(entries):
            cut = _cut(filled, attributes, start, last=last)
            if cut is None:
                break
            stop, classes = cut
            key = NUMBER_KEY.pack(first + start)
            numbers = map(classes.__getitem__, attributes[start:stop])
            body = _block(classes, numbers, [column[start:stop] for column in columns], pieces[start:stop])
            items.append((key, seal(key, body)))
            start = stop
    except StructError as error:
        raise ValueError(f"a field of an entry does not fit: {error}") from error
    return items, start


def _upper(times: Sequence[int]) -> Iterable[int]:
    return repeat(0) if 0 <= min(times) <= max(times) <= _LOW else [time >> 64 for time in times]


def _lower(times: Sequence[int]) -> Sequence[int]:
    return times if 0 <= min(times) <= max(times) <= _LOW else [time & _LOW for time in times]


def _cut(
    filled: list[int], attributes: list[tuple[int, ...]], start: int, *, last: bool
) -> tuple[int, dict[tuple[int, ...], int]] | None:
    """Find where the block from `start` ends, and its classes; None when more entries may fit than there are.

    A block has at most VALUE_BYTES / _ROW.size entries, so its classes can be counted in a byte.
    """
    room = VALUE_BYTES - _BLOCK_HEAD.size - _CRC.size
    count = 1
    stop = 0
    while True:
        limit = filled[start] + room - count * _CLASS.size
        stop = max(start + 1, bisect_right(filled, limit, start + 1) - 1)
        if stop == len(attributes) and count == 1 and not last:
            return None
        distinct = dict.fromkeys(attributes[start:stop])
        if len(distinct) <= count or stop == start + 1:
            return stop, {attribute: number for number, attribute in enumerate(distinct)}
        count = len(distinct)


@lru_cache(maxsize=256)
def _rows(count: int) -> Struct:
    return Struct("<" + _ROW_FORMAT * count)


def _block(
    classes: dict[tuple[int, ...], int], numbers: Iterable[int], columns: list[Sequence[int]], pieces: list[bytes]
) -> bytes:
    rows = chain.from_iterable(zip(numbers, accumulate(map(len, pieces)), *columns, strict=True))
    return b"".join(
        (
            _BLOCK_HEAD.pack(len(pieces), len(classes)),
            *starmap(_CLASS.pack, classes),
            _rows(len(pieces)).pack(*rows),
            *pieces,
        )
    )


def block_count(value: bytes) -> int:
    """Return how many entries a sound block holds."""
    return cast(int, _BLOCK_HEAD.unpack_from(value)[0])


def decode_entry(value: bytes, at: int) -> Entry:
    """Return the entry at place `at` of a sound block."""
    count, classes = _BLOCK_HEAD.unpack_from(value)
    rows = _BLOCK_HEAD.size + classes * _CLASS.size
    row = rows + at * _ROW.size
    heap = rows + count * _ROW.size
    number, end, size, mtime, ctime, ino, blocks, offset = _ROW.unpack_from(value, row)
    mode, uid, gid, nlink, rdev, dev, flags, segment, upper_mtime, upper_ctime = _CLASS.unpack_from(
        value, _BLOCK_HEAD.size + number * _CLASS.size
    )
    if upper_mtime or upper_ctime:
        mtime, ctime = mtime + (upper_mtime << 64), ctime + (upper_ctime << 64)
    begin = _END.unpack_from(value, row - _ROW.size + _END_AT)[0] if at else 0
    name, _, target = value[heap + begin : heap + end].partition(b"\0")
    return Entry(
        name, mode, uid, gid, size, mtime, ctime, nlink, rdev, dev, ino, blocks, flags, segment, offset, target
    )  # fmt: skip


def decode_entries(value: bytes, start: int, stop: int) -> list[Entry]:
    """Return the entries at the places from `start` up to `stop` of a sound block; 0 <= start < stop <= count."""
    count, classes = _BLOCK_HEAD.unpack_from(value)
    rows = _BLOCK_HEAD.size + classes * _CLASS.size
    heap = rows + count * _ROW.size
    table = list(_CLASS.iter_unpack(value[_BLOCK_HEAD.size : rows]))
    numbers, ends, sizes, mtimes, ctimes, inos, blocks, offsets = zip(
        *_ROW.iter_unpack(value[rows + start * _ROW.size : rows + stop * _ROW.size]), strict=True
    )
    modes, uids, gids, nlinks, rdevs, devs, flags, segments, upper_mtimes, upper_ctimes = zip(
        *map(table.__getitem__, numbers), strict=True
    )
    if any(upper_mtimes) or any(upper_ctimes):
        mtimes, ctimes = _joined(upper_mtimes, mtimes), _joined(upper_ctimes, ctimes)
    begin = _END.unpack_from(value, rows + (start - 1) * _ROW.size + _END_AT)[0] if start else 0
    names = [value[heap + a : heap + b] for a, b in zip((begin, *ends), ends, strict=False)]
    targets: Iterable[bytes] = repeat(b"")
    if value.find(b"\0", heap + begin, heap + ends[-1]) >= 0:
        names, _, targets = zip(*[name.partition(b"\0") for name in names], strict=True)  # type: ignore[assignment]
    return list(
        map(
            _as_entry,
            zip(names, modes, uids, gids, sizes, mtimes, ctimes, nlinks, rdevs, devs, inos, blocks, flags, segments,
                offsets, targets, strict=False),
        )
    )  # fmt: skip


def decode_names(value: bytes) -> list[bytes]:
    """Return the names of all entries of a sound block."""
    count, classes = _BLOCK_HEAD.unpack_from(value)
    start = _BLOCK_HEAD.size + classes * _CLASS.size
    heap = start + count * _ROW.size
    ends = [heap + end for end in _rows(count).unpack_from(value, start)[1::8]]
    names = [value[begin:end] for begin, end in zip((heap, *ends), ends, strict=False)]
    if ends and value.find(b"\0", heap, ends[-1]) >= 0:
        return [name.partition(b"\0")[0] for name in names]
    return names


class BlockMarks(NamedTuple):
    """Of all entries of a block: what is compared to see whether a file has changed."""

    #: name, mode, uid, gid, nlink, size, mtime_ns, ctime_ns, ino
    rows: list[tuple[bytes, int, int, int, int, int, int, int, int]]
    offsets: Sequence[int]
    #: By place in the block.
    targets: dict[int, bytes]
    #: Empty where all are 0.
    flags: Sequence[int]


def decode_marks(value: bytes) -> BlockMarks:
    """Return what a sound block says of all its entries."""
    count, classes = _BLOCK_HEAD.unpack_from(value)
    start = _BLOCK_HEAD.size + classes * _CLASS.size
    heap = start + count * _ROW.size
    fields = _rows(count).unpack_from(value, start)
    ends = [heap + end for end in fields[1::8]]
    names = [value[begin:end] for begin, end in zip((heap, *ends), ends, strict=False)]
    targets: dict[int, bytes] = {}
    if value.find(b"\0", heap, ends[-1] if ends else heap) >= 0:
        for at, name in enumerate(names):
            names[at], is_link, target = name.partition(b"\0")
            if is_link:
                targets[at] = target
    table = list(_CLASS.iter_unpack(value[_BLOCK_HEAD.size : start]))
    columns: list[Iterable[int]]
    if classes == 1:
        columns = [repeat(field) for field in table[0]]
        flags = (table[0][6],) * count if table[0][6] else ()
    else:
        columns = list(zip(*map(table.__getitem__, fields[0::8]), strict=True)) or [()] * 10
        flags = tuple(columns[6]) if any(columns[6]) else ()
    modes, uids, gids, nlinks = columns[:4]
    mtimes, ctimes = fields[3::8], fields[4::8]
    if any(row[8] or row[9] for row in table):
        mtimes = tuple((upper << 64) + lower for upper, lower in zip(columns[8], mtimes, strict=False))
        ctimes = tuple((upper << 64) + lower for upper, lower in zip(columns[9], ctimes, strict=False))
    rows = list(zip(names, modes, uids, gids, nlinks, fields[2::8], mtimes, ctimes, fields[5::8], strict=False))
    return BlockMarks(rows, fields[7::8], targets, flags)


def _joined(upper: Sequence[int], lower: Sequence[int]) -> tuple[int, ...]:
    return tuple((high << 64) + low for high, low in zip(upper, lower, strict=True))


def name_at(value: bytes, at: int) -> bytes:
    """Return the name at place `at` of a sound block."""
    count, classes = _BLOCK_HEAD.unpack_from(value)
    rows = _BLOCK_HEAD.size + classes * _CLASS.size
    heap = rows + count * _ROW.size
    row = rows + at * _ROW.size + _END_AT
    begin = _END.unpack_from(value, row - _ROW.size)[0] if at else 0
    return value[heap + begin : heap + _END.unpack_from(value, row)[0]].partition(b"\0")[0]


def find_name(value: bytes, name: bytes, start: int, stop: int) -> int | None:
    """Return the place of the name among those from `start` up to `stop` of a sound block; None if it is not there."""
    at = bisect_left(range(start, stop), name, key=partial(name_at, value)) + start
    return at if at < stop and name_at(value, at) == name else None


# -- everything else -------------------------------------------------------------------------------------------------


def encode_meta(meta: Meta) -> Item:
    """Pack the record that makes the file an index. Raises ValueError when a number does not fit."""
    text = meta.set_id.encode()
    totals = meta.totals
    content = (totals.bytes & _LOW, totals.bytes >> 64)
    try:
        body = _META.pack(*totals[:3], *content, *meta[2:], len(text))
    except StructError as error:
        raise ValueError(f"the totals do not fit: {error}") from error
    return META_KEY, seal(META_KEY, _META_HEAD.pack(MAGIC, VERSION) + body + text)


def meta_version(value: bytes) -> int | None:
    """Return the layout version of a sound meta record; None when the magic is not ours."""
    if len(value) < _META_HEAD.size:
        return None
    magic, version = _META_HEAD.unpack_from(value)
    return version if magic == MAGIC else None


def decode_meta(value: bytes) -> Meta:
    """Return what a sound meta record of this version says."""
    entries, directories, files, lower, upper, *numbers, length = _META.unpack_from(value, _META_HEAD.size)
    begin = _META_HEAD.size + _META.size
    set_id = SetId(value[begin : begin + length].decode())
    return Meta(set_id, Totals(entries, directories, files, lower + (upper << 64)), *numbers)


def encode_bases(bases: Sequence[Base]) -> Item:
    """Pack the indexes below, the oldest first."""
    texts = [base.set_id.encode() for base in bases]
    rows = [
        _BASE.pack(base.entries_first, base.segments_first, len(text)) + text
        for base, text in zip(bases, texts, strict=True)
    ]
    return BASES_KEY, seal(BASES_KEY, b"".join(rows))


def decode_bases(value: bytes) -> list[Base]:
    """Return the indexes that a sound record names."""
    bases = []
    at, end = 0, len(value) - _CRC.size
    while at < end:
        entries, segments, length = _BASE.unpack_from(value, at)
        at += _BASE.size + length
        bases.append(Base(SetId(value[at - length : at].decode()), EntryNo(entries), SegmentNo(segments)))
    return bases


def encode_directory(directory: Directory) -> Item:
    """Pack a directory record. Raises ValueError when a field does not fit."""
    try:
        key = NUMBER_KEY.pack(directory.number)
        parent, mode, uid, gid, size, mtime, ctime, *rest, content, flags = directory[1:]
        times = (mtime >> 64, mtime & _LOW, ctime >> 64, ctime & _LOW)
        words = (content & _LOW, content >> 64)
        return key, seal(key, _DIRECTORY.pack(parent, mode, uid, gid, size, *times, *rest, *words, flags))
    except StructError as error:
        raise ValueError(f"a field of directory {directory.number} does not fit: {error}") from error


def decode_directory(number: DirectoryNo, value: bytes) -> Directory:
    """Return what a sound directory record says."""
    (parent, mode, uid, gid, size, upper_mtime, mtime, upper_ctime, ctime, *rest, content, upper, flags
     ) = _DIRECTORY.unpack_from(value)  # fmt: skip
    mtime, ctime = mtime + (upper_mtime << 64), ctime + (upper_ctime << 64)
    return Directory(number, parent, mode, uid, gid, size, mtime, ctime, *rest, content + (upper << 64), flags)  # type: ignore[call-arg]


def decode_runs(value: bytes) -> tuple[int, int, int, int]:
    """Return of a sound directory record first entry and count of the files, and of the subdirectories."""
    return cast("tuple[int, int, int, int]", _RUNS.unpack_from(value, _RUNS_AT))


def encode_extents(number: int, extents: Sequence[Extent]) -> Item:
    """Pack the extents of an entry. Raises ValueError when a field does not fit."""
    try:
        key = NUMBER_KEY.pack(number)
        return key, seal(key, b"".join(starmap(_EXTENT.pack, extents)))
    except StructError as error:
        raise ValueError(f"an extent of entry {number} does not fit: {error}") from error


def decode_extents(value: bytes) -> list[Extent]:
    """Return the extents of a sound record."""
    return list(map(_as_extent, _EXTENT.iter_unpack(value[: -_CRC.size])))


def encode_link(number: int, first: int) -> Item:
    """Pack the number that the first name of a file has. Raises ValueError when a number does not fit."""
    try:
        key = NUMBER_KEY.pack(number)
        return key, seal(key, _LINK.pack(first))
    except StructError as error:
        raise ValueError(f"the link {number} does not fit: {error}") from error


def decode_link(value: bytes) -> EntryNo:
    """Return the number that a sound record names."""
    return EntryNo(_LINK.unpack_from(value)[0])


def encode_segment(row: SegmentRow) -> Item:
    """Pack a row of the table of segments. Raises ValueError when a field does not fit."""
    try:
        key = SEGMENT_KEY.pack(row.number)
        text = row.segment_id.encode()
        return key, seal(key, _SEGMENT.pack(row.plain_bytes, row.stored_bytes, row.frames, len(text)) + text)
    except StructError as error:
        raise ValueError(f"a field of segment {row.number} does not fit: {error}") from error


def decode_segment(number: SegmentNo, value: bytes) -> SegmentRow:
    """Return the row of a sound record."""
    plain, stored, frames, length = _SEGMENT.unpack_from(value)
    return SegmentRow(number, SegmentId(value[_SEGMENT.size : _SEGMENT.size + length].decode()), plain, stored, frames)


def encode_frames(segment: int, first: int, rows: Sequence[FrameRow]) -> tuple[Item, Item]:
    """Pack one chunk of frames, and the row that finds it by ordinal. Raises ValueError when a field does not fit."""
    try:
        key = PLACE_KEY.pack(segment, rows[0].plain_offset)
        body = _FRAMES_HEAD.pack(first) + b"".join(starmap(_FRAME.pack, rows))
        ordinal = ORDINAL_KEY.pack(segment, first)
        return (key, seal(key, body)), (ordinal, seal(ordinal, _PLAIN_OFFSET.pack(rows[0].plain_offset)))
    except StructError as error:
        raise ValueError(f"a frame of segment {segment} does not fit: {error}") from error


def decode_frames(value: bytes) -> list[NumberedFrame]:
    """Return the frames of a sound chunk."""
    first = _FRAMES_HEAD.unpack_from(value)[0]
    rows = starmap(FrameRow, _FRAME.iter_unpack(value[_FRAMES_HEAD.size : -_CRC.size]))
    return [NumberedFrame(FrameNo(number), row) for number, row in enumerate(rows, first)]


def decode_plain_offset(value: bytes) -> int:
    """Return where the chunk of frames that a sound ordinal row names begins in the plain stream."""
    return cast(int, _PLAIN_OFFSET.unpack_from(value)[0])


def encode_hashes(segment: int, rows: Sequence[tuple[int, bytes]]) -> Item:
    """Pack one chunk of SHA-256 rows: all offsets, then all digests. Raises ValueError when a field does not fit."""
    offsets, digests = zip(*rows, strict=True)
    if set(map(len, digests)) != {DIGEST_BYTES}:
        raise ValueError(f"a SHA-256 of segment {segment} does not have {DIGEST_BYTES} bytes")
    try:
        key = PLACE_KEY.pack(segment, offsets[0])
        return key, seal(key, Struct(f"<{len(rows)}Q").pack(*offsets) + b"".join(digests))
    except StructError as error:
        raise ValueError(f"a place in segment {segment} does not fit: {error}") from error


def find_hash(value: bytes, offset: int) -> bytes | None:
    """Return the digest of the content that begins at `offset`, out of a sound chunk."""
    count = (len(value) - _CRC.size) // (8 + DIGEST_BYTES)
    offsets = Struct(f"<{count}Q").unpack_from(value)
    at = bisect_left(offsets, offset)
    if at == count or offsets[at] != offset:
        return None
    begin = count * 8 + at * DIGEST_BYTES
    return value[begin : begin + DIGEST_BYTES]
