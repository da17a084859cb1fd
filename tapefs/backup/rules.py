"""What a backup leaves out of its sources, as its job says: patterns, caches, other filesystems, sizes and ages.

A source itself is never left out: it was asked for by name. Used by the walk, in its thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from catalog.records import Job
from tapefs.backup.patterns import Match, Patterns

#: https://bford.info/cachedir/
CACHE_TAG = b"CACHEDIR.TAG"
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
_NS_PER_S = 1_000_000_000

#: Is this entry of a directory wanted?
Wanted = Callable[[os.DirEntry[bytes]], bool]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Regular files outside are left out; both ends belong to it, None means no end. Times are of the mtime."""

    least_bytes: int = 0
    most_bytes: int | None = None
    oldest_ns: int | None = None
    newest_ns: int | None = None

    def hold(self, status: os.stat_result) -> bool:
        """Is a file of this size and time wanted?"""
        size, mtime_ns = status.st_size, status.st_mtime_ns
        return (
            size >= self.least_bytes
            and (self.most_bytes is None or size <= self.most_bytes)
            and (self.oldest_ns is None or mtime_ns >= self.oldest_ns)
            and (self.newest_ns is None or mtime_ns <= self.newest_ns)
        )


def bounds_of(job: Job, began_ns: int) -> Bounds | None:
    """Return the job's bounds for a run that began at `began_ns`; None when there are none."""
    bounds = Bounds(
        least_bytes=job.min_bytes,
        most_bytes=job.max_bytes or None,
        oldest_ns=began_ns - job.max_age_s * _NS_PER_S if job.max_age_s else None,
        newest_ns=began_ns - job.min_age_s * _NS_PER_S if job.min_age_s else None,
    )
    return None if bounds == Bounds() else bounds


class Rules:
    """What is left out below the sources."""

    def __init__(self, job: Job, sources: Sequence[bytes], began_ns: int) -> None:
        """`sources` are the job's, in its order, as the walk meets them. Raises BadPattern."""
        pairs = list(zip(job.sources, sources, strict=True))
        self._patterns = Patterns(job.excludes, pairs)
        self._bounds = bounds_of(job, began_ns)
        self._exclude_caches = job.exclude_caches
        self._sources = frozenset(source.rstrip(b"/") for source in sources)
        #: Directories of another filesystem than their parent's are recorded, but not entered.
        self.one_file_system = job.one_file_system

    def within(self, directory: bytes, fd: int) -> Wanted | None:
        """Return what tells which entries of `directory` are wanted, None when all are.

        `directory` is absolute, without a slash at its end, and open as `fd`.
        """
        if self._exclude_caches and directory not in self._sources and _is_cache(fd):
            return _is_tag
        is_excluded = self._patterns.within(directory)
        if is_excluded is None and self._bounds is None:
            return None
        return _wanted(is_excluded, self._bounds)


def _wanted(is_excluded: Match | None, bounds: Bounds | None) -> Wanted:
    def is_wanted(entry: os.DirEntry[bytes]) -> bool:
        if is_excluded is not None and is_excluded(entry.name, entry.is_dir(follow_symlinks=False)):
            return False
        return bounds is None or not entry.is_file(follow_symlinks=False) or _is_within(bounds, entry)

    return is_wanted


def _is_within(bounds: Bounds, entry: os.DirEntry[bytes]) -> bool:
    try:
        return bounds.hold(entry.stat(follow_symlinks=False))
    except OSError:
        # Whoever opens it will meet the same and tell of it.
        return True


def _is_tag(entry: os.DirEntry[bytes]) -> bool:
    return entry.name == CACHE_TAG


def _is_cache(fd: int) -> bool:
    """Does the directory hold a regular file CACHEDIR.TAG that begins with the signature?"""
    try:
        tag = os.open(CACHE_TAG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    except OSError:
        # There is none, or it says nothing: what is in doubt is backed up.
        return False
    try:
        return stat.S_ISREG(os.fstat(tag).st_mode) and os.read(tag, len(CACHE_SIGNATURE)) == CACHE_SIGNATURE
    except OSError:
        return False
    finally:
        os.close(tag)
