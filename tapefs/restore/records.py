"""What a restore is told and what it tells. Plain data."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from catalog.ids import DirectoryNo, EntryNo, SegmentId, SegmentNo
from catalog.index.model import Directory, Entry, Extent, NumberedFrame, SegmentRow


class Index(Protocol):
    """What a restore needs of a set's index; `catalog.index.reader.IndexReader` has it all, and describes it."""

    def directory(self, number: DirectoryNo) -> Directory:
        """Return a directory."""

    def entry(self, number: EntryNo) -> Entry:
        """Return an entry."""

    def lookup(self, directory: Directory, name: bytes) -> tuple[EntryNo, Entry] | None:
        """Return the entry of that name."""

    def list_from(self, directory: Directory, position: int) -> Iterator[tuple[int, EntryNo, Entry]]:
        """Yield the entries of a directory."""

    def extents(self, number: EntryNo) -> list[Extent]:
        """Return the parts of a split file, the data of a sparse one."""

    def first_name(self, number: EntryNo) -> EntryNo:
        """Return the entry whose attributes and content all names of its file have; for most it is the same."""

    def xattrs(self, number: EntryNo) -> list[tuple[bytes, bytes]]:
        """Return names and values of an entry's extended attributes."""

    def directory_xattrs(self, number: DirectoryNo) -> list[tuple[bytes, bytes]]:
        """Return those of a directory."""

    def segment(self, number: SegmentNo) -> SegmentRow:
        """Return a segment."""

    def frames(self, segment: SegmentNo) -> Iterator[NumberedFrame]:
        """Yield the frames of a segment."""

    def sha256(self, segment: SegmentNo, offset: int) -> bytes | None:
        """Return the checksum of the content that begins there."""


@dataclass(frozen=True, slots=True)
class NotFetched:
    """Why a frame cannot be had."""

    #: For the operator.
    reason: str
    #: What arrivals call it: `offline`, `damaged`, `locked` …; see docs/http/recalls.md.
    error: str = ""


@dataclass(frozen=True, slots=True)
class FrameWish:
    """Frames `first` to `last`, both included, that the restore wants staged."""

    segment_id: SegmentId
    first: int
    last: int


class Trouble(NamedTuple):
    """Something that is not as it was recorded."""

    #: As recorded, without a leading slash.
    path: bytes
    #: For the operator.
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that the file system or the privileges did not allow, for any number of names."""

    #: In the plural: `owners`, `ACLs`, `device nodes`.
    what: str
    #: For the operator.
    reason: str
    #: How many names it concerns.
    count: int
    #: The first of them.
    path: bytes
    #: Nothing else could be expected: owners, for anybody but root.
    is_expected: bool


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """How far a restore is."""

    #: `plan`, `write` or `finish`.
    stage: str
    #: Regular files written, and planned so far.
    files: int
    files_total: int
    #: Their content.
    bytes: int
    bytes_total: int
    #: What is being worked at.
    path: builtins.bytes
    #: Nothing to do until the tape delivers.
    is_waiting: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """What a restore did."""

    #: Regular files written and verified; their content.
    files: int
    bytes: int
    #: Made anew.
    directories: int
    symlinks: int
    #: Further names of files that have several.
    links: int
    #: Fifos and device nodes.
    specials: int
    #: Left alone because something of that name was there.
    skipped: int
    #: Files of which nothing was left under their names. Their content lies on tapes that are not here;
    offline: int
    #: it is not what was written, or is on no tape at all, as far as is known here;
    damaged: int
    #: it is encrypted, and the key is locked or not here;
    locked: int
    #: it was not read for another reason, as a drive that failed.
    unread: int
    #: What else could not be restored as recorded.
    failed: int
    #: Restored files that had changed while they were backed up: the content is what was read then.
    changed: int
    #: What was not allowed, each kind once.
    refusals: tuple[Refusal, ...]
    #: The first 1,000.
    troubles: tuple[Trouble, ...]
    #: How many there were.
    trouble_count: int
    #: Why the restore ended early, for the operator: the disk is full. Else empty.
    stopped: str

    @property
    def is_complete(self) -> bool:
        """Is everything that was chosen there as recorded (but for owners, if only root could set them)?"""
        is_refused = any(not refusal.is_expected for refusal in self.refusals)
        without = self.offline or self.damaged or self.locked or self.unread
        return not (without or self.skipped or self.failed or self.stopped or is_refused)
