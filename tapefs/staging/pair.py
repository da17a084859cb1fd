"""The two files of a segment in the staging folder: their names, and how they come and go.

Whoever makes or removes a pair holds the lock of the folder meanwhile, so there is one at a time among all processes.
Opening needs no lock: a map names the inode of its .plain file, so two files that do not belong together are noticed.
Any thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID

from catalog.crash import crash_point
from catalog.ids import SegmentId
from tapefs.errors import UsageError
from tapefs.staging import locks
from tapefs.staging.holes import punch_hole
from tapefs.staging.map_file import MapFile, Unusable, adopted_map, new_map

PLAIN = ".plain"
MAP = ".map"
_NEW = ".new"
_LOCK = "lock"

_log = logging.getLogger(__name__)

_after_adopting = crash_point("staging.adopt.written")


def pair_paths(folder: Path, segment_id: SegmentId) -> tuple[Path, Path]:
    """Return the paths of the .plain and the .map file. Raises UsageError if the id is no canonical UUID."""
    try:
        is_canonical = str(UUID(segment_id)) == segment_id
    except ValueError:
        is_canonical = False
    if not is_canonical:
        raise UsageError(f"{segment_id!r} is no segment id")
    return folder / f"{segment_id}{PLAIN}", folder / f"{segment_id}{MAP}"


def open_pair(folder: Path, segment_id: SegmentId, *, warn: bool = False) -> tuple[MapFile, int] | None:
    """Return the map and a descriptor of the .plain file, or None if they are missing or cannot be trusted."""
    plain_path, map_path = pair_paths(folder, segment_id)
    try:
        plain = os.open(plain_path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return _checked_map(map_path, segment_id, plain), plain
    except FileNotFoundError:
        os.close(plain)
        return None
    except Unusable as error:
        os.close(plain)
        level = logging.WARNING if warn and not error.is_stale else logging.DEBUG
        _log.log(level, "%s: %s; its frames count as not staged", map_path, error)
        return None
    except BaseException:
        os.close(plain)
        raise


def _checked_map(path: Path, segment_id: SegmentId, plain: int, *, stale: bool = False) -> MapFile:
    mapped = MapFile(path, segment_id, stale=stale)
    found = os.fstat(plain)
    if found.st_ino != mapped.plain_inode or found.st_size != mapped.starts[-1]:
        mapped.close()
        raise Unusable("it does not belong to the .plain file beside it")
    return mapped


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: nobody else makes or removes pairs. Makes the folder, 0700, if it is missing."""
    folder.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        _give_to_owner(fd, folder)
        locks.wait_lock(fd, start=0, length=1)
        yield
    finally:
        os.close(fd)


def make_pair(folder: Path, segment_id: SegmentId, starts: Sequence[int]) -> None:
    """Put a fresh pair in place of whatever is there; `starts` is what `starts_of` returns. The caller is `changing`.

    Raises HomeError if the file system cannot punch holes, OSError.
    """
    plain_path, map_path = pair_paths(folder, segment_id)
    new_plain, new_map_path = (path.with_name(path.name + _NEW) for path in (plain_path, map_path))
    with _new_file(new_plain, folder) as fd:
        os.truncate(fd, starts[-1])
        # Tried before anything is staged that could not be given back.
        punch_hole(fd, 0, starts[-1])
        inode = os.fstat(fd).st_ino
    # Written, not left sparse: a full disk must be an error here, not a SIGBUS at the store of a word.
    with _new_file(new_map_path, folder) as fd:
        _write_all(fd, new_map(segment_id, starts, inode))
    # Between the renames the old map names another inode than the new file has: nobody takes them for a pair.
    new_plain.rename(plain_path)
    new_map_path.rename(map_path)


def adopt_pair(folder: Path, segment_id: SegmentId) -> bool:
    """Take a pair over that was left by the machine's last run: its frames are doubtful then. The caller is `changing`.

    Nobody uses such a pair: who had it open went with the last run. Returns whether there was one; one that is damaged
    is left as it is. Raises OSError.
    """
    plain_path, map_path = pair_paths(folder, segment_id)
    try:
        plain = os.open(plain_path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        _checked_map(map_path, segment_id, plain).close()
    except FileNotFoundError:
        return False
    except Unusable as error:
        return error.is_stale and _adopt(folder, segment_id, plain)
    finally:
        os.close(plain)
    return False


def _adopt(folder: Path, segment_id: SegmentId, plain: int) -> bool:
    _, path = pair_paths(folder, segment_id)
    try:
        old = _checked_map(path, segment_id, plain, stale=True)
    except Unusable:
        return False
    try:
        new_path = path.with_name(path.name + _NEW)
        with _new_file(new_path, folder) as fd:
            _write_all(fd, adopted_map(segment_id, old))
        _after_adopting()
        # Whoever has the old map open all the same, from a machine that shares the folder, must not read what is
        # punched by the new one. The checksums stay: after a crash here it can be adopted as before.
        old.forget()
    finally:
        old.close()
    new_path.rename(path)
    return True


def remove_pair(folder: Path, segment_id: SegmentId) -> None:
    """Remove both files, map first. The caller is `changing`."""
    plain_path, map_path = pair_paths(folder, segment_id)
    for path in (map_path, plain_path):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _new_file(path: Path, folder: Path) -> Iterator[int]:
    # What a killed process left under that name is in nobody's use: the folder is locked.
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        _give_to_owner(fd, folder)
        yield fd
    finally:
        os.close(fd)


def _give_to_owner(fd: int, folder: Path) -> None:
    """A root process works for the folder's owner: the other processes must be able to open what it makes."""
    if os.geteuid() != 0:
        return
    wanted = folder.stat()
    found = os.fstat(fd)
    if (found.st_uid, found.st_gid) != (wanted.st_uid, wanted.st_gid):
        os.fchown(fd, wanted.st_uid, wanted.st_gid)


def _write_all(fd: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]
