"""What is searched for, and what is found. Records only."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, replace

from catalog.ids import EntryNo, SetId
from catalog.index.model import Entry
from catalog.records import BackupSet
from tapefs.search.patterns import NamePattern, last_names, path_matcher

#: Letters as those of `find -type`.
KINDS = {
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "p": stat.S_IFIFO,
    "s": stat.S_IFSOCK,
    "c": stat.S_IFCHR,
    "b": stat.S_IFBLK,
}


@dataclass(frozen=True, slots=True)
class Query:
    """Names, and conditions that all must hold."""

    #: Any of them; of a path with `whole_path`, else of its last name.
    patterns: tuple[str, ...]
    ignore_case: bool = False
    regex: bool = False
    whole_path: bool = False
    #: Only sets of jobs with these names; none: of all.
    jobs: frozenset[str] = frozenset()
    #: Only what this set shows.
    set_id: SetId | None = None
    #: Only what sets show that were begun from then on, and until then.
    since_ns: int | None = None
    until_ns: int | None = None
    #: Of regular files the size, both included; with either nothing else is found.
    min_bytes: int | None = None
    max_bytes: int | None = None
    #: Values of KINDS; none: all.
    kinds: frozenset[int] = frozenset()
    #: Every version of a path, not only the newest.
    every: bool = False
    #: Count the versions of each path.
    count_versions: bool = False
    #: Attributes of what is found are wanted.
    attributes: bool = False

    def within(self, set_id: SetId) -> Query:
        """Return the same search of one set only."""
        return replace(self, set_id=set_id)

    def name_patterns(self) -> list[NamePattern]:
        """Return what the names in question match. Raises UsageError."""
        if self.whole_path:
            return [last_names(each, ignore_case=self.ignore_case, regex=self.regex) for each in self.patterns]
        return [NamePattern(each, ignore_case=self.ignore_case, regex=self.regex) for each in self.patterns]

    def path_matchers(self) -> list[Callable[[bytes], bool]]:
        """Return what tells whether a path with a slash before it matches; none when names are enough.

        Raises UsageError.
        """
        if not self.whole_path:
            return []
        return [path_matcher(each, ignore_case=self.ignore_case, regex=self.regex) for each in self.patterns]

    @property
    def asks_entries(self) -> bool:
        """Does a condition need the attributes?"""
        return bool(self.kinds) or self.min_bytes is not None or self.max_bytes is not None

    def accepts(self, entry: Entry) -> bool:
        """Do the attributes fit?"""
        kind = stat.S_IFMT(entry.mode)
        if self.kinds and kind not in self.kinds:
            return False
        if self.min_bytes is None and self.max_bytes is None:
            return True
        if kind != stat.S_IFREG:
            return False
        is_large = self.min_bytes is None or entry.size >= self.min_bytes
        return is_large and (self.max_bytes is None or entry.size <= self.max_bytes)


@dataclass(frozen=True, slots=True)
class Match:
    """A version of a path."""

    #: The newest set asked for that shows it.
    backup_set: BackupSet
    #: From the set's root, without a slash before it.
    path: bytes
    #: Of the entry, for the index of that set.
    number: EntryNo
    #: Attributes, of a hardlinked file those of its first name; None when they were not asked for.
    entry: Entry | None
    #: How many versions of the path there are that fit; None when they were not to be counted.
    versions: int | None
