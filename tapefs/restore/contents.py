"""Where the content of a file lies: members on tape, each with a SHA-256 of its own, and the runs of the file in them.

A file that is neither split nor sparse is one member of one run. The data of a sparse member lies run behind run, and
its SHA-256 is over that. Functions without state.
"""

from __future__ import annotations

from typing import NamedTuple

from catalog.ids import EntryNo, SegmentNo
from catalog.index.model import Entry, EntryFlag, Extent
from tapefs.errors import BadStructure
from tapefs.restore.records import Index

# Plain numbers: an operation on flags costs 3 us.
_SPARSE = int(EntryFlag.SPARSE)
IN_EXTENTS = int(EntryFlag.SPARSE | EntryFlag.SPLIT)


class Content(NamedTuple):
    """A member's share of a file."""

    segment: SegmentNo
    #: In the segment's plain tar stream.
    offset: int
    length: int
    #: Place in the file and length; they lie one behind the other from `offset` on.
    runs: tuple[tuple[int, int], ...]


def contents_of(index: Index, number: EntryNo, entry: Entry) -> list[Content]:
    """Return the members of a regular file, in file order; none if it is empty or all hole.

    Raises BadStructure unless they are the whole file (of a sparse one: lie in it, one behind the other), and
    CatalogError.
    """
    if not entry.flags & IN_EXTENTS:
        whole = Content(SegmentNo(entry.segment), entry.offset, entry.size, ((0, entry.size),))
        return [whole] if entry.size else []
    is_sparse = bool(entry.flags & _SPARSE)
    extents = index.extents(number)
    _check(extents, entry.size, is_sparse=is_sparse)
    contents: list[Content] = []
    runs: list[tuple[int, int]] = []
    for position, extent in enumerate(extents):
        runs.append((extent.file_offset, extent.length))
        if is_sparse and position + 1 < len(extents) and _goes_on(extent, extents[position + 1]):
            continue
        length = sum(run_length for _, run_length in runs)
        contents.append(Content(extent.segment, extent.offset + extent.length - length, length, tuple(runs)))
        runs.clear()
    return contents


def _goes_on(extent: Extent, after: Extent) -> bool:
    """Does the next one belong to the same member? Between members there is a header at least."""
    return (after.segment, after.offset) == (extent.segment, extent.offset + extent.length)


def _check(extents: list[Extent], size: int, *, is_sparse: bool) -> None:
    at = 0
    for extent in extents:
        is_next = extent.file_offset >= at if is_sparse else extent.file_offset == at
        if not is_next or extent.length <= 0:
            break
        at = extent.file_offset + extent.length
    else:
        if at == size or (is_sparse and at < size):
            return
    raise BadStructure(f"the index is damaged: the parts of this file are not its {size} bytes")
