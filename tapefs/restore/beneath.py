"""Opens directories beneath one folder, whatever their names say and whoever swaps them for links meanwhile.

`openat2` with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS goes down a whole path in one call (4 us,
where a call for each name takes 3 us a name). Kernels before 5.6 do not have it and some container runtimes forbid it:
then each name is opened relative to the directory above it, never following a symbolic link, which is as safe. Either
way the names are looked at first: `..` within the target would be no escape, but is no name either.

One thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections import OrderedDict
from itertools import islice

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_KEPT_OPEN = 64
_NAME_BYTES = 255
#: PATH_MAX without the NUL: a longer way is gone in several calls.
_WAY_BYTES = 4095

#: The number is the same on every architecture.
_OPENAT2 = 437
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
#: struct open_how: flags, mode, resolve.
_HOW = struct.pack("=QQQ", _DIRECTORY | os.O_CLOEXEC, 0, _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH)
#: EAGAIN means that something was renamed meanwhile; who renames all the time gets it told as an error.
_TRIES = 100

_libc = ctypes.CDLL(None, use_errno=True)


class BadName(ValueError):
    """A name in the index is no name: empty, `.`, `..`, or with a slash or NUL in it."""


def check_name(name: bytes) -> bytes:
    """Return the name of one directory entry. Raises BadName, and OSError if it is too long."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise BadName(f"{name!r} is no name of a file")
    if len(name) > _NAME_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return name


def last_error() -> OSError:
    """Return the error of the call into the C library that was made last."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


class Beneath:
    """The directories beneath `root`, a descriptor that now belongs to this. Paths are bytes, relative to it."""

    def __init__(self, root: int) -> None:
        self.root = root
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self._has_openat2 = _is_openat2_possible(root)

    def close(self) -> None:
        """Let go of all directories."""
        while self._open:
            os.close(self._open.popitem()[1])
        os.close(self.root)

    def directory(self, path: bytes) -> int:
        """Return the descriptor of a directory; valid until some 60 others were asked for. Raises OSError, BadName."""
        if not path:
            return self.root
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        if path.startswith(b"/"):
            raise BadName(f"{path!r} begins with a slash")
        # Up to an ancestor that is open, then down again; no recursion, for paths can be thousands deep.
        below: list[bytes] = []
        above = path
        while above and above not in self._open:
            above, _, name = above.rpartition(b"/")
            below.append(check_name(name))
        fd = self._open[above] if above else self.root
        return self._down(fd, above, below[::-1])

    def above(self, path: bytes) -> tuple[int, bytes]:
        """Return the descriptor of the directory that a name is in, and the name, checked."""
        above, _, name = path.rpartition(b"/")
        return self.directory(above), check_name(name)

    def enter(self, path: bytes) -> int:
        """Open a directory anew, and keep it open. Raises OSError, also if it is none, and BadName."""
        above, name = self.above(path)
        return self._keep(path, os.open(name, _DIRECTORY, dir_fd=above))

    def _down(self, fd: int, above: bytes, below: list[bytes]) -> int:
        names = iter(below)
        while way := list(islice(names, self._names_at_once(below))):
            path = b"/".join(way)
            above = above + b"/" + path if above else path
            fd = self._keep(above, self._open_way(fd, path))
        return fd

    def _names_at_once(self, below: list[bytes]) -> int:
        if not self._has_openat2:
            return 1
        return max(1, _WAY_BYTES // (max(map(len, below)) + 1))

    def _open_way(self, fd: int, path: bytes) -> int:
        if not self._has_openat2:
            return os.open(path, _DIRECTORY, dir_fd=fd)
        for _ in range(_TRIES):
            opened = _openat2(fd, path)
            if opened >= 0:
                return opened
            if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
                break
        raise last_error()

    def _keep(self, path: bytes, fd: int) -> int:
        old = self._open.pop(path, None)
        if old is not None:
            os.close(old)
        self._open[path] = fd
        if len(self._open) > _KEPT_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return fd


def _openat2(fd: int, path: bytes) -> int:
    return int(_libc.syscall(_OPENAT2, fd, path, _HOW, len(_HOW)))


def _is_openat2_possible(root: int) -> bool:
    fd = _openat2(root, b".")
    if fd < 0:
        return False
    os.close(fd)
    return True
