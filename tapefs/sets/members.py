"""Member lines become entries, a batch at a time and column by column: a third of the time of line by line.

Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from itertools import compress, repeat
from operator import add, le, lt, or_
from stat import S_IFBLK, S_IFCHR, S_IFIFO, S_IFLNK, S_IFREG
from typing import NamedTuple, cast

from msgspec.structs import astuple

from catalog.ids import SegmentNo
from catalog.index.model import Entry, EntryFlag, Extent
from tapefs.errors import BadStructure
from tapefs.format.records import Member, name_of

#: Makes an Entry of a tuple of its fields: half the time of Entry._make.
_as_entry = cast("Callable[[tuple[object, ...]], Entry]", partial(tuple.__new__, Entry))

#: Plain numbers: an IntFlag costs 1.5 us an operation.
_UNREADABLE = int(EntryFlag.UNREADABLE)
_CHANGED = int(EntryFlag.CHANGED)
_SPLIT = int(EntryFlag.SPLIT)
_LINKED = int(EntryFlag.LINKED)
_SPARSE = int(EntryFlag.SPARSE)
_XATTRS = int(EntryFlag.XATTRS)
#: Lines with these bring more than an entry.
_MORE = _LINKED | _SPARSE
#: Flags that say nothing of where the content is.
_HARMLESS = _CHANGED | int(EntryFlag.FRESH)
_TYPE = 0o170000
_KINDS = {S_IFREG, S_IFLNK, S_IFIFO, S_IFCHR, S_IFBLK}
_DIGEST_BYTES = {32}


class Batch(NamedTuple):
    """What some member lines say, line by line; they may belong to several directories."""

    members: Sequence[Member]
    directories: tuple[int, ...]
    names: list[bytes]
    #: Of a part of a file: the file, as if its content began here. Further names of a file have the place and the
    #: flags that their line says.
    entries: list[Entry]
    places: tuple[int, ...]
    #: Lines that bring more than an entry: parts, names of a file that has several, holes, attributes, and files whose
    #: content the base has. None: no line.
    special: list[bool] | None
    #: (place in the plain stream, SHA-256) of what has content.
    hashes: list[tuple[int, bytes]]
    #: Where the last content ends in the plain stream.
    end: int


def decode(members: Sequence[Member], segment: int, begin: int) -> Batch:
    """Read one or more lines of a segment whose contents must lie behind `begin`. Raises BadStructure."""
    fields = zip(*map(astuple, members), strict=True)
    (directories, texts, raws, modes, uids, gids, sizes, mtimes, ctimes, nlinks, rdevs, devs, inos, blocks, flags,
     places, digests, targets, raw_targets, parts, part_places, part_sizes, xattrs, raw_xattrs, datas,
     as_bases, _) = fields  # fmt: skip
    names = _merged(texts, raws)
    if not _are_plain(names):
        names = [name_of(member) for member in members]
    kinds = [mode & _TYPE for mode in modes]
    if not _KINDS.issuperset(kinds):
        raise BadStructure("a member is neither a regular file nor a link, a fifo or a device")
    has_parts = max(parts) >= 0
    lengths = sizes
    if has_parts:
        lengths = tuple(
            size if part < 0 else part_size for size, part, part_size in zip(sizes, parts, part_sizes, strict=True)
        )
    segments: Iterable[int] = repeat(segment)
    offsets = places
    every = reduce(or_, set(flags))
    if every & ~_HARMLESS or any(datas):
        _check_split_flags(flags, parts)
        segments = [0 if flag & _UNREADABLE else segment for flag in flags]
        offsets = tuple(0 if flag & _UNREADABLE else place for flag, place in zip(flags, places, strict=True))
        lengths = tuple(map(_content_bytes, flags, digests, lengths, datas, part_places))
    if any(as_bases):
        lengths = tuple(0 if as_base else length for as_base, length in zip(as_bases, lengths, strict=True))
    special, entry_column = None, flags
    if has_parts or every & _MORE or max(nlinks) > 1 or any(map(any, (xattrs, raw_xattrs, as_bases))):
        columns = (parts, flags, nlinks, xattrs, raw_xattrs, as_bases)
        special = list(map(_is_special, *columns))
        entry_column = tuple(map(_entry_flags, flags, xattrs, raw_xattrs))
    target_column = _merged(targets, raw_targets) if S_IFLNK in kinds else repeat(b"")
    rows = zip(
        names, modes, uids, gids, sizes, mtimes, ctimes, nlinks, rdevs, devs, inos, blocks, entry_column, segments,
        offsets, target_column, strict=False,
    )  # fmt: skip
    filled = [length and kind == S_IFREG for kind, length in zip(kinds, lengths, strict=True)]
    contents = list(compress(zip(places, digests, strict=True), filled))
    end = _check_contents(contents, list(compress(lengths, filled)), begin)
    return Batch(members, directories, names, list(map(_as_entry, rows)), places, special, contents, end)


def is_link(flags: int) -> bool:
    """Is a line with these flags another name of a file that was there before?"""
    return flags & (_LINKED | _CHANGED | _UNREADABLE) == _LINKED


def entry_flags(flags: int) -> int:
    """Return the flags of a line as an entry has them: without LINKED where that does not count."""
    return flags if is_link(flags) else flags & ~_LINKED


def _entry_flags(flags: int, xattrs: list[object], raw_xattrs: list[object]) -> int:
    return entry_flags(flags) | (_XATTRS if xattrs or raw_xattrs else 0)


def _is_special(
    part: int, flags: int, nlink: int, xattrs: list[object], raw_xattrs: list[object], as_base: bool
) -> bool:
    return part >= 0 or nlink > 1 or as_base or bool(flags & _MORE or xattrs or raw_xattrs)


def extents_of(member: Member, segment: SegmentNo) -> list[Extent]:
    """Return where the data of a part, or of a file with holes, lies."""
    if not member.flags & _SPARSE:
        return [] if member.part < 0 else [Extent(member.part_offset, member.part_bytes, segment, member.at)]
    extents, at = [], member.at
    for place, length in member.data:
        extents.append(Extent(place, length, segment, at))
        at += length
    return extents


def _content_bytes(flags: int, digest: bytes, length: int, data: Sequence[tuple[int, int]], part_place: int) -> int:
    """Return how much content a line of a regular file has in its segment; `length` is that of the file or part."""
    if flags & _UNREADABLE or (is_link(flags) and not digest):
        return 0
    if not flags & _SPARSE:
        if data:
            raise BadStructure("a member without holes has a map of its data")
        return length
    ends = [part_place, *(place + count for place, count in data)]
    starts = [*(place for place, _ in data), part_place + length]
    if not all(map(le, ends, starts)) or not all(count for _, count in data):
        raise BadStructure("the data of a member does not ascend, is empty or reaches beyond it")
    return sum(count for _, count in data)


def kind_of(mode: int) -> int:
    """Return the type bits; other than those of `stat` this takes any number a line may hold."""
    return mode & _TYPE


def check_ascending(names: Sequence[bytes], after: bytes) -> None:
    """Raise BadStructure unless the names ascend, from a name before them on."""
    if not (after < names[0] and all(map(lt, names, names[1:]))):
        before = [after, *names]
        at = next(number for number, name in enumerate(names) if name <= before[number])
        raise BadStructure(f"the name {names[at]!r} comes after {before[at]!r}")


def _merged(texts: Sequence[str], raws: Sequence[bytes]) -> list[bytes]:
    """Return the values of a key and its `_b64` twin as bytes."""
    if any(raws):
        return [raw or text.encode() for text, raw in zip(texts, raws, strict=True)]
    return list(map(str.encode, texts))


def _are_plain(names: list[bytes]) -> bool:
    """Tell whether `name_of` would let all of them pass."""
    joined = b"/".join(names)
    if joined.count(b"/") != len(names) - 1 or b"\0" in joined or b"." in names or b".." in names:
        return False
    lengths = list(map(len, names))
    return 1 <= min(lengths) <= max(lengths) <= 255


def _check_split_flags(flags: Sequence[int], parts: Sequence[int]) -> None:
    for flag, part in zip(flags, parts, strict=True):
        if (part >= 0 and flag & _UNREADABLE) or (part < 0 and flag & _SPLIT):
            raise BadStructure("a member says that it is split and not, or that it is a part that is not there")


def _check_contents(contents: Sequence[tuple[int, bytes]], lengths: Sequence[int], begin: int) -> int:
    """Check that contents (place, SHA-256) follow one another, each with its sum; return where the last one ends."""
    if not contents:
        return begin
    places, digests = zip(*contents, strict=True)
    ends: list[int] = [begin, *map(add, places, lengths)]
    if not all(map(le, ends, places)):
        raise BadStructure("the contents of two members overlap in the plain stream")
    if set(map(len, digests)) != _DIGEST_BYTES:
        raise BadStructure("a member with content has no SHA-256")
    return ends[-1]
