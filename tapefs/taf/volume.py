"""Finds TAF's archives on a mounted volume: `<set id>/backup_….tar.gz`, `.tar.zst`, `.tar` or `.7z`. Blocking.

They come in the order in which they lie on tape, by LTFS's partition and start block: a volume is then read from front
to end, where the order of names would wind the tape to and fro for each.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drivers.ltfs.attributes import Place, VolumeFacts, read_facts, read_place
from tapefs.errors import NoSuchThing, UsageError

_ARCHIVE = re.compile(rb"backup_.+?(\.tar\.gz|\.tar\.zst|\.tar|\.7z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive of a set."""

    #: Name of the folder that it is in.
    set_id: bytes
    name: bytes
    #: What the name ends in, for instance `.tar.gz`.
    suffix: str
    size_bytes: int
    mtime_ns: int
    #: Where it begins on tape; None where the file system does not tell.
    place: Place | None

    @property
    def path(self) -> bytes:
        """Path on the volume."""
        return self.set_id + b"/" + self.name


@dataclass(frozen=True, slots=True)
class TafVolume:
    """A mounted volume and TAF's archives on it, in the order of the tape."""

    root: Path
    facts: VolumeFacts
    archives: tuple[Archive, ...]

    def of_sets(self, wanted: tuple[str, ...]) -> tuple[Archive, ...]:
        """Return the archives of these sets, of all if none is named. Raises NoSuchThing for one that is not there."""
        known = {archive.set_id for archive in self.archives}
        names = {os.fsencode(each) for each in wanted}
        for name in sorted(names - known):
            raise NoSuchThing(f"there is no set {os.fsdecode(name)!r} of TAF on {self.root}: see `tapefs taf list`")
        return tuple(archive for archive in self.archives if not names or archive.set_id in names)


def open_volume(root: Path) -> TafVolume:
    """Look for archives. Raises UsageError when the volume cannot be read."""
    try:
        facts = read_facts(root)
        archives = [archive for set_id in _folders(root) for archive in _archives(root, set_id)]
    except OSError as error:
        raise UsageError(f"cannot read {root}: {error.strerror}") from error
    return TafVolume(root, facts, tuple(sorted(archives, key=_order)))


def _order(archive: Archive) -> tuple[bool, Place, bytes]:
    # Without a place: an empty file, or no LTFS.
    return archive.place is None, archive.place or Place("", 0), archive.path


def _folders(root: Path) -> list[bytes]:
    with os.scandir(os.fsencode(root)) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _archives(root: Path, set_id: bytes) -> Iterator[Archive]:
    with os.scandir(os.path.join(os.fsencode(root), set_id)) as entries:
        for entry in entries:
            found = _ARCHIVE.fullmatch(entry.name)
            if found and entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                suffix = found[1].decode("ascii")
                place = read_place(entry.path)
                yield Archive(set_id, entry.name, suffix, status.st_size, status.st_mtime_ns, place)


def open_archive(volume: TafVolume, archive: Archive) -> int:
    """Return a descriptor to read the archive with. Raises OSError, also when it is no regular file any more."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    folder = os.open(volume.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        inner = os.open(archive.set_id, flags | os.O_DIRECTORY, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        descriptor = os.open(archive.name, flags, dir_fd=inner)
    finally:
        os.close(inner)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file any more")
    return descriptor
