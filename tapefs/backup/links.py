"""Which names are names of the same file. Belongs to the intake thread.

The map is bounded: a file goes when all its names were seen and their segment can be lost no more; beyond
`tapefs.scratch.KEPT` files the oldest go to a scratch file in the state folder. Every entry knows in which segments its
names were met, so that the walk can go back to the start of any segment that is not committed.
"""

from __future__ import annotations

import os
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from tapefs.scratch import KEPT, ScratchMap

_KEY = Struct("<QQ")
#: No segment: nothing of the file lies where a tar member could link to it.
_NOWHERE = -1


class Link(NamedTuple):
    """A file of which one name or more has been stored."""

    #: Ordinal of the segment that its newest content is in, and where it begins there.
    segment: int
    at: int
    #: Path of that content's member, as a tar hardlink names it; empty when there is none (the file is split).
    path: bytes
    #: Size, mtime and ctime when its first name was read.
    size: int
    mtime_ns: int
    ctime_ns: int
    nlink: int
    #: Segments in which names were met, in ascending order, and how many: segment, count, segment, count…
    met: tuple[int, ...]

    @property
    def first_segment(self) -> int:
        """Return the ordinal of the segment of its first name."""
        return self.met[0]


def _link(values: tuple[object, ...]) -> Link:
    return Link(*values)  # type: ignore[arg-type]


class LinkMap:
    """Files with several names, by device and inode. Every method may raise StorageFailed."""

    def __init__(self, folder: Path, kept: int = KEPT) -> None:
        """Spill to `folder`."""
        self._links = ScratchMap(folder, _link, kept)
        #: Keys of files all names of which were met, end to end, by the segment of the last one.
        self._complete: dict[int, bytearray] = {}
        #: Segments below this one are committed. Written by the thread of the tape, read by ours.
        self.committed = 0

    def __len__(self) -> int:
        return len(self._links)

    def find(self, status: os.stat_result) -> Link | None:
        """Return what is known of the file, if it is as it was when its first name was read, and names are missing.

        One name more than there are comes when a directory was moved meanwhile: it counts as another file, for whoever
        reads the lines has forgotten that one, too.
        """
        link = self._links.get(_key(status))
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return link if link is not None and link[3:6] == stamp and not _is_complete(link) else None

    def stored(self, status: os.stat_result, segment: int, at: int, path: bytes) -> None:
        """A name was stored with content, or for the first time."""
        link = self.find(status)
        met = (segment, 1) if link is None else self._met(link, segment)
        self._put(status, Link(
            segment, at, path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_nlink, met,
        ))  # fmt: skip

    def linked(self, status: os.stat_result, link: Link, segment: int) -> None:
        """A name was stored as a link to the member that `find` told."""
        self._put(status, link._replace(met=self._met(link, segment)))

    def forget(self, status: os.stat_result) -> None:
        """What was stored of the file is not to be relied on."""
        self._links.drop(_key(status))

    def go_back(self, segment: int) -> None:
        """Segment `segment` and those behind it did not come to be."""
        self._complete = {number: keys for number, keys in self._complete.items() if number < segment}

        def before(link: Link) -> Link | None:
            if link.first_segment >= segment:
                return None
            met = tuple(value for pair in _pairs(link.met) if pair[0] < segment for value in pair)
            if link.segment < segment:
                return link._replace(met=met)
            return link._replace(segment=_NOWHERE, path=b"", met=met)

        self._links.change_all(before)

    def close(self) -> None:
        """Give the space back."""
        self._links.close()

    def _met(self, link: Link, segment: int) -> tuple[int, ...]:
        """Return the counts with one more name in `segment`; those of committed segments are joined."""
        pairs = _pairs(link.met)
        if pairs[-1][0] == segment:
            return (*link.met[:-1], link.met[-1] + 1)
        settled = [pair for pair in pairs if pair[0] < self.committed]
        others = [pair for pair in pairs if pair[0] >= self.committed]
        joined = [(settled[0][0], sum(count for _, count in settled))] if settled else []
        return tuple(value for pair in (*joined, *others, (segment, 1)) for value in pair)

    def _put(self, status: os.stat_result, link: Link) -> None:
        key = _key(status)
        self._links.put(key, link)
        if _is_complete(link):
            self._complete.setdefault(link.met[-2], bytearray()).extend(key)
        if self._complete and min(self._complete) < self.committed:
            self._drop_complete()

    def _drop_complete(self) -> None:
        for number in [number for number in self._complete if number < self.committed]:
            keys = bytes(self._complete.pop(number))
            for start in range(0, len(keys), _KEY.size):
                key = keys[start : start + _KEY.size]
                link = self._links.get(key)
                # It may have been stored anew since.
                if link is not None and _is_complete(link) and link.met[-2] == number:
                    self._links.drop(key)


def _is_complete(link: Link) -> bool:
    return sum(link.met[1::2]) >= link.nlink


def _pairs(met: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(zip(met[::2], met[1::2], strict=True))


def _key(status: os.stat_result) -> bytes:
    return _KEY.pack(status.st_dev, status.st_ino)
