"""Goes through TAF's archives: checks them, or restores what is in them beneath a folder. Blocking; one thread.

Restoring is done by what restores sets (`tapefs.restore.writer`): names that lead out of the target are refused, links
are never followed, and what exists is left alone unless it may be overwritten. Each set goes to a folder of its own.
Damage costs the member that it is in and those behind it in the same archive, and is told.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from tapefs.errors import BadStructure, TapefsError
from tapefs.restore.attributes import Refused
from tapefs.restore.making import TargetFull, join, reason_of
from tapefs.restore.records import RestoreProgress, RestoreReport, Trouble
from tapefs.restore.tally import Tally
from tapefs.restore.writer import BadName, Identity, MadeDirectory, SafeWriter, check_name
from tapefs.taf.records import Member
from tapefs.taf.sevenzip import members_of_7z
from tapefs.taf.tar import members_of_tar
from tapefs.taf.volume import Archive, TafVolume, open_archive

_PIECE_BYTES = 1024 * 1024
#: Twice what Linux takes for a path in one call. Work and memory for one grow with the square of its length.
_PATH_BYTES = 8192
_IMPLIED_MODE = stat.S_IFDIR | 0o755

Progress = Callable[[RestoreProgress], None]
Note = Callable[[Trouble], None]


class _Attributes(NamedTuple):
    """Those of a directory that no member stands for."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int


def members_of(volume: TafVolume, archive: Archive) -> Iterator[Member]:
    """Yield the members of an archive. Raises BadStructure, CodecFailed, OSError."""
    with open(open_archive(volume, archive), "rb") as file:
        yield from members_of_7z(file) if archive.suffix == ".7z" else members_of_tar(file, archive.suffix)


def check_archives(volume: TafVolume, archives: Iterable[Archive], progress: Progress, note: Note) -> RestoreReport:
    """Read archives from front to end and count what is in them."""
    tally = Tally(progress, note)
    tally.enter_stage("read")
    for archive in archives:
        with _reporting(tally, archive.path):
            for member in members_of(volume, archive):
                tally.tell(member.path)
                while member.read(_PIECE_BYTES):
                    pass
                _count(tally, member)
    tally.enter_stage("finish")
    return tally.report()


def _count(tally: Tally, member: Member) -> None:
    kind = stat.S_IFMT(member.mode)
    if member.is_link:
        tally.links += 1
    elif kind == stat.S_IFREG:
        tally.files += 1
        tally.bytes += member.size_bytes
    elif kind == stat.S_IFDIR:
        tally.directories += 1
    elif kind == stat.S_IFLNK:
        tally.symlinks += 1
    else:
        tally.specials += 1


def extract_archives(
    volume: TafVolume, archives: Iterable[Archive], target: Path, *, overwrite: bool, progress: Progress, note: Note
) -> RestoreReport:
    """Restore archives, each set beneath a folder of its name in `target`. Raises UsageError."""
    tally = Tally(progress, note)
    tally.enter_stage("write")
    with closing(SafeWriter(target, overwrite=overwrite)) as writer:
        extraction = _Extraction(writer, tally)
        try:
            for archive in archives:
                with _reporting(tally, archive.path):
                    extraction.run(archive.set_id, members_of(volume, archive))
        except TargetFull as error:
            tally.stopped = str(error)
        tally.enter_stage("finish")
        extraction.finish()
        writer.sync()
    return tally.report()


def extract_members(
    members: Iterable[Member],
    target: Path,
    *,
    overwrite: bool,
    special: bool,
    progress: Progress,
    note: Note,
) -> RestoreReport:
    """Restore members beneath `target`, each at its own path; without `special` nothing that gives rights.

    Raises UsageError (target), BadStructure where they end too soon; what was restored by then is there.
    """
    tally = Tally(progress, note)
    tally.enter_stage("write")
    with closing(SafeWriter(target, overwrite=overwrite, special=special)) as writer:
        extraction = _Extraction(writer, tally)
        try:
            extraction.run(b"", iter(members))
        except TargetFull as error:
            tally.stopped = str(error)
        finally:
            tally.enter_stage("finish")
            extraction.finish()
            writer.sync()
    return tally.report()


@contextmanager
def _reporting(tally: Tally, path: bytes) -> Iterator[None]:
    """Make damage of an archive a line of the report."""
    try:
        yield
    except BadStructure as error:
        tally.damage(path, str(error))
    except OSError as error:
        tally.damage(path, error.strerror or str(error))


class _Extraction:
    """Archives on their way to a folder. Memory grows with their directories, and with the files of one archive."""

    def __init__(self, writer: SafeWriter, tally: Tally) -> None:
        self._writer = writer
        self._tally = tally
        self._directories: dict[bytes, tuple[MadeDirectory, Member | _Attributes]] = {}
        self._files: dict[bytes, Identity] = {}

    def run(self, folder: bytes, members: Iterator[Member]) -> None:
        """Restore the members of one archive. Raises BadStructure, TargetFull, and OSError of the archive."""
        self._files = {}
        for member in members:
            self._tally.tell(member.path)
            relative = _relative(member.path)
            path = join(folder, relative) if relative else folder
            try:
                _check_length(path)
                self._make(path, member)
            except FileExistsError:
                self._tally.skip(path)
            except PermissionError as error:
                self._refuse_or_fail(path, member, error)
            except (_OfTarget, BadName) as error:
                self._tally.fail(path, str(error))
            except OSError as error:
                self._tally.fail(path, reason_of(error))

    def _refuse_or_fail(self, path: bytes, member: Member, error: PermissionError) -> None:
        if stat.S_IFMT(member.mode) in (stat.S_IFCHR, stat.S_IFBLK):
            self._tally.refuse(path, [Refused("device nodes", "not made: only root may, and not everywhere")])
        else:
            self._tally.fail(path, reason_of(error))

    def _make(self, path: bytes, member: Member) -> None:
        if stat.S_ISDIR(member.mode):
            self._enter(path, member)
            return
        if above := path.rpartition(b"/")[0]:
            self._enter(above, None)
        if not self._writer.overwrite and self._writer.exists(path):
            raise FileExistsError
        if member.is_link:
            self._link(path, member)
        elif stat.S_ISREG(member.mode):
            self._write(path, member)
        elif stat.S_ISLNK(member.mode):
            self._tally.refuse(path, self._writer.make_symlink(path, member.target, member, ()).refused)
        else:
            self._tally.refuse(path, self._writer.make_node(path, member.rdev, member, ()).refused)
        if not stat.S_ISREG(member.mode) or member.is_link:
            _count(self._tally, member)

    def _enter(self, path: bytes, member: Member | None) -> None:
        """Have a directory, and those above it; give it the attributes of `member` at the end, if there is one."""
        missing = []
        while path not in self._directories:
            missing.append(path)
            path, _, name = path.rpartition(b"/")
            check_name(name)
            if not path:
                break
        for path in reversed(missing):
            made = self._writer.make_directory(path)
            self._tally.directories += made.is_new
            implied = _Attributes(_IMPLIED_MODE, os.geteuid(), os.getegid(), time.time_ns())
            self._directories[path] = made, implied
        if member is not None:
            self._directories[path] = self._directories[path][0], member

    def _write(self, path: bytes, member: Member) -> None:
        file = self._writer.new_file(path)
        try:
            offset = 0
            while piece := member.read(_PIECE_BYTES):
                file.write_at(offset, piece)
                offset += len(piece)
            if offset != member.size_bytes:
                raise BadStructure("the archive is damaged: a content ends early")
        except BaseException:
            file.discard()
            raise
        made = file.finish(offset, member, ())
        self._tally.refuse(path, made.refused)
        self._files[path] = made.identity
        _count(self._tally, member)

    def _link(self, path: bytes, member: Member) -> None:
        first = join(path.partition(b"/")[0], _relative(member.target))
        identity = self._files.get(first)
        if identity is None:
            raise _OfTarget(f"another name of {os.fsdecode(member.target)}, which was not restored")
        self._writer.make_link(first, identity, path)
        self._files[path] = identity

    def finish(self) -> None:
        """Give directories their attributes, the deepest first."""
        for path in sorted(self._directories, key=lambda path: path.count(b"/"), reverse=True):
            made, attributes = self._directories[path]
            if isinstance(attributes, _Attributes) and not made.is_new:
                continue  # It was there, and nothing is known of it.
            try:
                self._tally.refuse(path, self._writer.finish_directory(path, made, attributes, ()))
            except OSError as error:
                self._tally.fail(path, error.strerror or str(error))


class _OfTarget(TapefsError):
    """A name that cannot be made, and why."""


def _check_length(path: bytes) -> None:
    if len(path) > _PATH_BYTES:
        raise BadName(f"a path of {len(path)} bytes")


def _relative(path: bytes) -> bytes:
    """Return a member's path as tar means it: without `./` before and `/` behind. Anything else is left to fail."""
    while path.startswith(b"./"):
        path = path[2:]
    if path == b".":
        return b""
    return path[:-1] if path.endswith(b"/") and len(path) > 1 else path
