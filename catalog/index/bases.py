"""The indexes below an index: which one holds a number, and a bounded number of them open.

Blocking; everything here belongs to one thread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from catalog.errors import Damaged, NotFound
from catalog.ids import EntryNo, SegmentNo
from catalog.index.layer import Layer
from catalog.index.model import Base, Claim, Meta

#: An open file is a descriptor and an address range; a process has 1,024 descriptors unless it was given more.
OPEN_BASES = 256


class OpenBases:
    """Opens files when they are asked for and keeps those used last; the readers of one thread may share it.

    A layer it returns is good until the next call.
    """

    def __init__(self, limit: int = OPEN_BASES) -> None:
        self._limit = limit
        self._layers: OrderedDict[Path, Layer] = OrderedDict()

    def layer(self, path: Path) -> Layer:
        """Return the file, open. Raises NotFound, WrongVersion, Damaged, StorageFailed."""
        layer = self._layers.get(path)
        if layer is not None:
            self._layers.move_to_end(path)
            return layer
        # First room, then the file: so that there are never more than the limit.
        while len(self._layers) >= self._limit:
            self._layers.popitem(last=False)[1].close()
        layer = self._layers[path] = Layer(path)
        return layer

    def forget(self, path: Path) -> None:
        """Close a file, if it is open."""
        layer = self._layers.pop(path, None)
        if layer is not None:
            layer.close()

    def close(self) -> None:
        """Close all files. Harmless twice; what is asked for afterwards is opened again."""
        while self._layers:
            self._layers.popitem()[1].close()


class Chain:
    """The indexes below one, the oldest first, each with the numbers that are its own."""

    def __init__(self, path: Path, meta: Meta, bases: Sequence[Base], opened: OpenBases) -> None:
        """`path` is that of the index on top; the others lie beside it, named by their sets."""
        self._path = path
        self._opened = opened
        self._entries = [base.entries_first for base in bases]
        self._segments = [base.segments_first for base in bases]
        ends = [*zip(self._entries[1:], self._segments[1:], strict=True), (meta.entries_first, meta.segments_first)]
        #: Of each: what it must say of itself.
        self._claims = [Claim(*base, *end) for base, end in zip(bases, ends if bases else [], strict=True)]
        #: Made once, for making one takes longer than a look-up.
        self._paths: dict[int, Path] = {}

    def of_entry(self, number: int) -> Layer:
        """Return the layer whose own an entry is; it must be below the first of the index on top."""
        return self._layer(bisect_right(self._entries, EntryNo(number)) - 1)

    def of_segment(self, number: int) -> Layer:
        """Return the layer whose own a segment is; it must be below the first of the index on top."""
        return self._layer(bisect_right(self._segments, SegmentNo(number)) - 1)

    def is_in_one(self, first: int, count: int) -> bool:
        """Tell whether a run of entries, below the first of the index on top, is wholly of one layer."""
        at = bisect_right(self._entries, EntryNo(first)) - 1
        return at >= 0 and first + count <= self._claims[at].entries_end

    def _layer(self, at: int) -> Layer:
        """Return a base, open, and sure to be the one that was built on."""
        claim = self._claims[at]
        path = self._paths.get(at)
        if path is None:
            path = self._paths[at] = self._path.with_name(f"{claim.set_id}.lmdb")
        try:
            layer = self._opened.layer(path)
        except NotFound as error:
            raise Damaged(f"{self._path.name} builds on an index that is missing", str(path)) from error
        if layer.claim != claim:
            self._opened.forget(path)
            raise Damaged(f"{self._path.name} builds on another index than this", str(path))
        return layer
