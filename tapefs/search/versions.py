"""Every version of a path: how it looked in set after set. Blocking; belongs to one thread; reads indexes only."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from catalog.ids import DirectoryNo, EntryNo
from catalog.index.model import Directory, Entry
from catalog.index.reader import IndexReader
from catalog.records import BackupSet
from tapefs.errors import NoSuchThing
from tapefs.search.content import attributes_of, content_of
from tapefs.vfs.archive import ROOT_DIRECTORY, Archive
from tapefs.vfs.nodes import first_name


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


@dataclass(frozen=True, slots=True)
class _Look:
    """How a path looks in one set."""

    number: EntryNo | None
    entry: Entry | None
    sha256: bytes
    content: object
    attributes: object


_GONE = _Look(None, None, b"", None, None)


def versions(
    archive: Archive, path: bytes, jobs: frozenset[str] = frozenset(), look_around: Callable[[], None] = lambda: None
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
            yield from _of_job(archive, names, roster.by_name[job], look_around)


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
    return Version(backup_set, backup_set, 1, look.number, look.entry, look.sha256, same)


def _is_same(before: _Look, look: _Look) -> bool | None:
    if before.entry is None or look.entry is None:
        return None
    if look.content == before.content or (before.sha256 and look.sha256):
        return look.content == before.content
    kinds = {stat.S_IFMT(before.entry.mode), stat.S_IFMT(look.entry.mode)}
    return None if kinds == {stat.S_IFREG} and before.entry.size == look.entry.size else False


def _longer(version: Version, backup_set: BackupSet) -> Version:
    return Version(
        version.backup_set, backup_set, version.sets + 1, version.number, version.entry, version.sha256,
        version.same_content,
    )  # fmt: skip


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
