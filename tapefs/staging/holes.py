"""Giving a file's blocks back without changing its length. Any thread."""

from __future__ import annotations

import ctypes
import errno
import os

from tapefs.errors import HomeError

# <linux/falloc.h>
_KEEP_SIZE = 1
_PUNCH_HOLE = 2

_fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_fallocate.restype = ctypes.c_int


def punch_hole(fd: int, start: int, length: int) -> None:
    """Make `length` bytes from `start` read as zeros and free the whole blocks among them.

    Raises HomeError if the file system cannot do that, OSError if it failed.
    """
    if length <= 0:
        return
    while _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, start, length) != 0:
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        if number in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise HomeError(
                "the file system of the staging folder cannot punch holes: "
                "put the state folder on ext4, XFS, btrfs or tmpfs"
            )
        raise OSError(number, os.strerror(number))
