"""A directory is listed again for a backup that goes on: what it is past, and what has come or changed there since.

In a directory the files come in name order, then the subdirectories in name order, and a trailer cannot go back. So
what lies before the place where the backup stood stays as it was found then; the next backup takes in what has changed
since. Runs in the intake thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from catalog.ids import DirectoryNo
from tapefs.backup.base import Base
from tapefs.backup.standing import OpenLevel, said_names
from tapefs.format.records import DirectoryEntered, Member

if TYPE_CHECKING:
    from tapefs.backup.scan import OpenDirectory

_TOO_LATE = "left as it was, or out: it appeared or changed after the interrupted run had passed its place"


class Latecomers:
    """Drops from listings what the interrupted walk was past."""

    def __init__(self, base: Base | None, miss: Callable[[bytes, str], None]) -> None:
        self._base = base
        self._miss = miss

    def pass_over(self, directory: OpenDirectory, level: OpenLevel) -> None:
        """Leave in the directory's lists what is still to be looked at, and note the subdirectories before that."""
        self._files(directory, level)
        last = level.children[-1][0] if level.children else b""
        past = [name for name in directory.directories if name <= last]
        directory.directories = [name for name in directory.directories if name > last]
        directory.children = self._children(directory, level, past)

    def _files(self, directory: OpenDirectory, level: OpenLevel) -> None:
        """Files come before subdirectories: once one of those was entered, all are past."""
        said = said_names(level)
        kept = []
        for place, name in enumerate(directory.files):
            if not level.children and name > level.last_file and name not in level.removed:
                kept.append(place)
            elif name not in said and not _is_socket(directory, name):
                self._miss(directory.path + b"/" + name, _TOO_LATE)
        states = directory.difference.states
        if states:
            directory.difference.states = bytearray(states[place] for place in kept)
        directory.files = [directory.files[place] for place in kept]

    def _children(self, directory: OpenDirectory, level: OpenLevel, past: list[bytes]) -> list[DirectoryNo]:
        """Return the numbers of the subdirectories that the walk is past, in name order."""
        found = dict(level.children)
        for name in past:
            if name in found:
                continue
            number = self._as_in_base(directory, name)
            if number is None:
                self._miss(directory.path + b"/" + name, _TOO_LATE)
            else:
                found[name] = number
        return [found[name] for name in sorted(found)]

    def _as_in_base(self, directory: OpenDirectory, name: bytes) -> DirectoryNo | None:
        """Return the number in the base of a subdirectory without lines: nothing in it differed when it was passed."""
        if self._base is None or directory.base is None:
            return None
        old = self._base.child(directory.base, name)
        if old is None:
            return None
        try:
            status = os.stat(name, dir_fd=directory.held_fd(), follow_symlinks=False)
            is_same = self._base.is_same_directory(old, status)
        except OSError:
            is_same = False
        if not is_same:
            self._miss(directory.path + b"/" + name, _TOO_LATE)
        return old.number


def _is_socket(directory: OpenDirectory, name: bytes) -> bool:
    """Is it of the kind that never gets a line?"""
    if name not in directory.specials:
        return False
    try:
        return stat.S_ISSOCK(os.stat(name, dir_fd=directory.held_fd(), follow_symlinks=False).st_mode)
    except OSError:
        return False


def status_of(line: DirectoryEntered | Member) -> os.stat_result:
    """Return what a line says, as `os.stat` would have said it; times of access are those of modification."""
    seconds = [line.mtime // 10**9, line.mtime // 10**9, line.ctime // 10**9]
    exact = {
        "st_atime_ns": line.mtime,
        "st_mtime_ns": line.mtime,
        "st_ctime_ns": line.ctime,
        "st_blocks": line.blocks,
        "st_rdev": line.rdev if isinstance(line, Member) else 0,
    }
    return os.stat_result((line.mode, line.ino, line.dev, line.nlink, line.uid, line.gid, line.size, *seconds), exact)
