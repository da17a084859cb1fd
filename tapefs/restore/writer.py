"""Writes a tree beneath one folder, whatever the names say and whoever else is at work there.

Every step down opens one directory by its name relative to the descriptor of the one above, never following a
symbolic link; names that are more than a name are refused. So nothing outside the target is ever touched, however
links are planted or swapped meanwhile: a swap makes the step fail. (`openat2` with RESOLVE_BENEATH does the same in
fewer calls, but container runtimes still forbid it; directories stay open here, so a file costs no walk.)

A file is made under a temporary name, 0600 and exclusively, written, given owner, mode and times through its
descriptor, and only then renamed: a name never stands for half a file. A killed process can leave files `.tapefs-*`
behind. One thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
import time
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple, Protocol

from tapefs.errors import UsageError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_KEPT_OPEN = 64
_NAME_BYTES = 255
#: uid or gid that means "leave it" to chown.
_NOBODY_AT_ALL = (1 << 32) - 1
_SET_ID_BITS = stat.S_ISUID | stat.S_ISGID

_AT_EMPTY_PATH = 0x1000
_RENAME_NOREPLACE = 1
_libc = ctypes.CDLL(None, use_errno=True)


class BadName(ValueError):
    """A name in the index is no name: empty, `.`, `..`, or with a slash or NUL in it."""


class Attributes(Protocol):
    """Owner, mode and time; entries and directories of an index have them."""

    @property
    def mode(self) -> int: ...  # noqa: D102 - as st_mode
    @property
    def uid(self) -> int: ...  # noqa: D102
    @property
    def gid(self) -> int: ...  # noqa: D102
    @property
    def mtime_ns(self) -> int: ...  # noqa: D102


class MadeDirectory(NamedTuple):
    """A directory as it was when the writer made or found it."""

    is_new: bool
    dev: int
    ino: int


class SafeWriter:
    """Writes beneath `target`. Paths are bytes relative to it, without leading slash; b"" is the target itself.

    All methods may raise OSError with the reason of the system, and BadName; overflows of absurd numbers come as
    OSError, too.
    """

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        """Open the target and make it if it is missing. Raises UsageError if that or writing there is not possible."""
        #: May existing files and links be replaced?
        self.overwrite = overwrite
        self._open: OrderedDict[bytes, int] = OrderedDict()
        try:
            target.mkdir(parents=True, exist_ok=True)
            # The way to the target is the user's own choice: links in it are followed.
            self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise UsageError(f"cannot restore to {target}: {error.strerror}") from error
        if not os.access(f"/proc/self/fd/{self._root}", os.W_OK | os.X_OK, effective_ids=True):
            os.close(self._root)
            raise UsageError(f"cannot write to {target}: choose another folder, or become its owner")

    def close(self) -> None:
        """Let go of all directories."""
        while self._open:
            os.close(self._open.popitem()[1])
        os.close(self._root)

    def sync(self) -> None:
        """Have the file system put everything on disk. Raises OSError if it could not."""
        if _libc.syncfs(self._root) != 0:
            raise _last_error()

    # -- directories -------------------------------------------------------------------------------------------------

    def make_directory(self, path: bytes) -> MadeDirectory:
        """Make it, 0700, or take the one that is there. Raises OSError if something else is."""
        above, name = self._above(path)
        try:
            os.mkdir(name, 0o700, dir_fd=above)
            is_new = True
        except FileExistsError:
            is_new = False
        found = os.fstat(self._keep(path, os.open(name, _DIRECTORY, dir_fd=above)))
        return MadeDirectory(is_new, found.st_dev, found.st_ino)

    def finish_directory(self, path: bytes, made: MadeDirectory, attributes: Attributes) -> bool:
        """Give it owner, mode and time, after all that goes into it; return False if the owner could not be set.

        Raises OSError, also if it is not the directory any more that `make_directory` saw.
        """
        fd = self._same_directory(path, made)
        return _apply(fd, attributes)

    def differs(self, path: bytes, made: MadeDirectory, attributes: Attributes) -> bool:
        """Tell whether an existing directory has another owner or mode."""
        found = os.fstat(self._same_directory(path, made))
        return (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (
            attributes.uid,
            attributes.gid,
            stat.S_IMODE(attributes.mode),
        )

    def _same_directory(self, path: bytes, made: MadeDirectory) -> int:
        fd = self._directory(path)
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != (made.dev, made.ino):
            raise OSError(errno.ESTALE, "the directory was replaced by another one meanwhile")
        return fd

    def _directory(self, path: bytes) -> int:
        """Return the descriptor of a directory; valid until some 60 others were asked for."""
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        # Up to an ancestor that is open, then down again; no recursion, for paths can be thousands deep.
        below: list[bytes] = []
        above = path
        while above and above not in self._open:
            above, _, name = above.rpartition(b"/")
            below.append(name)
        fd = self._open[above] if above else self._root
        while below:
            name = check_name(below.pop())
            above = above + b"/" + name if above else name
            fd = self._keep(above, os.open(name, _DIRECTORY, dir_fd=fd))
        return fd

    def _keep(self, path: bytes, fd: int) -> int:
        old = self._open.pop(path, None)
        if old is not None:
            os.close(old)
        self._open[path] = fd
        if len(self._open) > _KEPT_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def _above(self, path: bytes) -> tuple[int, bytes]:
        above, _, name = path.rpartition(b"/")
        return self._directory(above), check_name(name)

    # -- everything else ---------------------------------------------------------------------------------------------

    def exists(self, path: bytes) -> bool:
        """Tell whether there is anything of that name; links are not followed."""
        above, name = self._above(path)
        try:
            os.lstat(name, dir_fd=above)
        except FileNotFoundError:
            return False
        return True

    def new_file(self, path: bytes) -> NewFile:
        """Begin a regular file; finish or discard it before the next one is begun."""
        above, name = self._above(path)
        return NewFile(above, name, overwrite=self.overwrite)

    def make_symlink(self, path: bytes, points_to: bytes, attributes: Attributes) -> bool:
        """Make a symbolic link; return False if its owner could not be set. Raises FileExistsError."""
        above, name = self._above(path)
        if b"\0" in points_to:
            raise BadName("a link to a name with NUL in it")
        temporary = _temporary_name()
        os.symlink(points_to, temporary, dir_fd=above)
        try:
            has_owner = _own_symlink(above, temporary, attributes)
            times = _times(attributes)
            os.utime(temporary, ns=times, dir_fd=above, follow_symlinks=False)
            _rename(above, temporary, name, overwrite=self.overwrite)
        except BaseException:
            _remove(above, temporary)
            raise
        return has_owner


class NewFile:
    """A regular file that does not have its name yet."""

    def __init__(self, above: int, name: bytes, *, overwrite: bool) -> None:
        self._above = above
        self._name = name
        self._overwrite = overwrite
        self._temporary = _temporary_name()
        #: Its length so far.
        self._length = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._fd = os.open(self._temporary, flags, 0o600, dir_fd=above)

    def write_at(self, offset: int, content: bytes | memoryview) -> None:
        """Write at a place of the file; what is never written reads as zeros."""
        rest = memoryview(content)
        while rest:
            written = os.pwrite(self._fd, rest, offset)
            rest = rest[written:]
            offset += written
        self._length = max(self._length, offset)

    def cut(self, length: int) -> None:
        """Drop everything from `length` on, or fill up with zeros."""
        if length != self._length:
            os.ftruncate(self._fd, length)
            self._length = length

    def finish(self, size: int, attributes: Attributes) -> bool:
        """Give it its length, owner, mode, time and name; return False if the owner could not be set.

        Raises FileExistsError if there is something of that name and it must not be overwritten.
        """
        try:
            self.cut(size)
            has_owner = _apply(self._fd, attributes)
            fd, self._fd = self._fd, -1
            os.close(fd)
            _rename(self._above, self._temporary, self._name, overwrite=self._overwrite)
        except BaseException:
            self.discard()
            raise
        return has_owner

    def discard(self) -> None:
        """Remove it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        _remove(self._above, self._temporary)


def check_name(name: bytes) -> bytes:
    """Return the name of one directory entry. Raises BadName, and OSError if it is too long."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise BadName(f"{name!r} is no name of a file")
    if len(name) > _NAME_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return name


def _temporary_name() -> bytes:
    return b".tapefs-" + secrets.token_hex(8).encode()


def _apply(fd: int, attributes: Attributes) -> bool:
    """Set owner, then mode (chown takes the set-id bits away), then time.

    Return False if the owner could not be set.
    """
    has_owner = _own(fd, attributes)
    mode = stat.S_IMODE(attributes.mode)
    # A program that ran as its owner must not run as whoever restores it.
    os.fchmod(fd, mode if has_owner else mode & ~_SET_ID_BITS)
    os.utime(fd, ns=_times(attributes))
    return has_owner


def _own(fd: int, attributes: Attributes) -> bool:
    found = os.fstat(fd)
    if (found.st_uid, found.st_gid) == (attributes.uid, attributes.gid):
        return True
    if not _are_ids(attributes):
        return False
    try:
        os.fchown(fd, attributes.uid, attributes.gid)
    except PermissionError:
        return False
    return True


def _own_symlink(above: int, name: bytes, attributes: Attributes) -> bool:
    """As `_own`, through a descriptor of the link: its name could be somebody else's file by now."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=above)
    try:
        found = os.fstat(fd)
        if not stat.S_ISLNK(found.st_mode):
            raise OSError(errno.ESTALE, "the link was replaced by something else meanwhile")
        if (found.st_uid, found.st_gid) == (attributes.uid, attributes.gid):
            return True
        if not _are_ids(attributes):
            return False
        owner = ctypes.c_uint32(attributes.uid), ctypes.c_uint32(attributes.gid)
        if _libc.fchownat(fd, b"", *owner, _AT_EMPTY_PATH) == 0:
            return True
        error = _last_error()
        if isinstance(error, PermissionError):
            return False
        raise error
    finally:
        os.close(fd)


def _are_ids(attributes: Attributes) -> bool:
    return 0 <= attributes.uid < _NOBODY_AT_ALL and 0 <= attributes.gid < _NOBODY_AT_ALL


def _times(attributes: Attributes) -> tuple[int, int]:
    """Return access and modification time; the access is now, as tar does it."""
    if not -(1 << 63) <= attributes.mtime_ns // 1_000_000_000 < 1 << 63:
        raise OSError(errno.EOVERFLOW, "its time does not fit this system")
    return time.time_ns(), attributes.mtime_ns


def _rename(above: int, old: bytes, new: bytes, *, overwrite: bool) -> None:
    if overwrite:
        os.rename(old, new, src_dir_fd=above, dst_dir_fd=above)
        return
    if _libc.renameat2(above, old, above, new, _RENAME_NOREPLACE) == 0:
        return
    error = _last_error()
    if error.errno not in (errno.EINVAL, errno.ENOSYS):
        raise error
    # The file system does not know the flag: a link does not replace anything either.
    os.link(old, new, src_dir_fd=above, dst_dir_fd=above, follow_symlinks=False)
    os.unlink(old, dir_fd=above)


def _remove(above: int, name: bytes) -> None:
    try:
        os.unlink(name, dir_fd=above)
    except FileNotFoundError:
        return


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
