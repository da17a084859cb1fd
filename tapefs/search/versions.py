"""Every version of a path: how it looked in set after set. Blocking; belongs to one thread; reads indexes only."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache

from catalog.ids import DirectoryNo, EntryNo, SegmentId
from catalog.index.model import Directory, Entry
from catalog.index.reader import IndexReader
from catalog.ledger import Ledger
from catalog.records import BackupSet
from tapefs.errors import NoSuchThing
from tapefs.home import Home
from tapefs.search.content import attributes_of, content_of
from tapefs.staging.stage import SegmentStage
from tapefs.vfs.archive import ROOT_DIRECTORY, Archive
from tapefs.vfs.nodes import first_name
from tapefs.vfs.residency import Residency, State, pieces_of

#: Staging files that are open at a time.
_STAGES_KEPT = 32


@dataclass(frozen=True, slots=True)
class Version:
    """How a path looks in a set, and in those after it up to the next version; or that it is gone from there on."""

    #: The first set that shows it so.
    backup_set: BackupSet
    #: The last one.
    last: BackupSet
    #: How many complete sets of the job show it so.
    sets: int
    #: None where it is gone.
    number: EntryNo | None
    #: Of a hardlinked file its first name's.
    entry: Entry | None
    #: Empty when it is no regular file, or its content does not lie on tape in one piece.
    sha256: bytes
    #: Is the content what it was in the version before? None for the first one, where it is gone, and where nobody can
    #: tell: of a file that lies on tape in other pieces than before.
    same_content: bool | None
    #: How soon its content can be read; None where it is gone or no regular file.
    state: State | None


@dataclass(frozen=True, slots=True)
class _Look:
    """How a path looks in one set."""

    number: EntryNo | None
    entry: Entry | None
    sha256: bytes
    content: object
    attributes: object


_GONE = _Look(None, None, b"", None, None)


@contextmanager
def residency_of(home: Home, ledger: Ledger) -> Iterator[Residency]:
    """Yield what tells where content is, by tapes and staging area alone: what is on its way counts as on tape."""
    with ExitStack() as stack:

        @cache
        def stage_of(segment_id: SegmentId) -> SegmentStage | None:
            stage = SegmentStage.open(home.staging, segment_id)
            if stage is not None:
                stack.callback(stage.close)
            return stage

        # Versions of many years lie in many segments.
        def few_stages(segment_id: SegmentId) -> SegmentStage | None:
            if stage_of.cache_info().currsize > _STAGES_KEPT:
                stack.close()
                stage_of.cache_clear()
            return stage_of(segment_id)

        yield Residency(ledger, few_stages, lambda *_: False, lambda: True)


def versions(
    archive: Archive,
    path: bytes,
    residency: Residency,
    jobs: frozenset[str] = frozenset(),
    look_around: Callable[[], None] = lambda: None,
) -> Iterator[Version]:
    """Yield the versions of a path (slashes at its ends do not matter), job by job, the oldest first.

    `look_around` is called for every set, and may raise. Raises NoSuchThing for a job without sets, CatalogError.
    """
    roster = archive.roster()
    unknown = jobs - set(roster.by_name)
    if unknown:
        raise NoSuchThing(f"no job named {min(unknown)!r} has a complete set; `tapefs sets` lists them")
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    for job in sorted(roster.by_name):
        if not jobs or job in jobs:
            for found in _of_job(archive, names, roster.by_name[job], look_around):
                yield replace(found, state=_state(archive, residency, found))


def _state(archive: Archive, residency: Residency, version: Version) -> State | None:
    if version.entry is None or version.number is None or not stat.S_ISREG(version.entry.mode):
        return None
    reader = archive.index(version.backup_set.set_id)
    return residency.state(reader, version.entry, pieces_of(reader, version.number, version.entry))


def _of_job(
    archive: Archive, names: list[bytes], sets: list[BackupSet], look_around: Callable[[], None]
) -> Iterator[Version]:
    current: Version | None = None
    before: _Look | None = None
    for backup_set in sets:
        look_around()
        look = _look(archive.index(backup_set.set_id), names)
        if before is None:
            if look.entry is None:
                continue
            current = _version(backup_set, look, None)
        elif current is None or (look.attributes, look.content) != (before.attributes, before.content):
            if current is not None:
                yield current
            current = _version(backup_set, look, before)
        else:
            current = _longer(current, backup_set)
        before = look
    if current is not None:
        yield current


def _version(backup_set: BackupSet, look: _Look, before: _Look | None) -> Version:
    same = None if before is None else _is_same(before, look)
    return Version(backup_set, backup_set, 1, look.number, look.entry, look.sha256, same, None)


def _is_same(before: _Look, look: _Look) -> bool | None:
    if before.entry is None or look.entry is None:
        return None
    if look.content == before.content or (before.sha256 and look.sha256):
        return look.content == before.content
    kinds = {stat.S_IFMT(before.entry.mode), stat.S_IFMT(look.entry.mode)}
    return None if kinds == {stat.S_IFREG} and before.entry.size == look.entry.size else False


def _longer(version: Version, backup_set: BackupSet) -> Version:
    return replace(version, last=backup_set, sets=version.sets + 1)


def _look(reader: IndexReader, names: list[bytes]) -> _Look:
    directory: Directory | None = reader.directory(ROOT_DIRECTORY)
    found: tuple[EntryNo, Entry] | None = None
    for name in names:
        found = reader.lookup(directory, name) if directory is not None else None
        if found is None:
            return _GONE
        is_directory = stat.S_ISDIR(found[1].mode)
        directory = reader.directory(DirectoryNo(found[1].offset)) if is_directory else None
    if found is None:
        return _GONE
    number, entry = first_name(reader, *found)
    content = content_of(reader, number, entry)
    return _Look(found[0], entry, content.sha256, content.identity, attributes_of(entry))
