"""Open-file-description record locks: they belong to an open file, not to a process or a thread.

Two descriptors of one file exclude each other even within one process, and the kernel drops the locks when the last
copy of the descriptor is closed, so also when its process is killed. Nothing here blocks but `wait_lock`. Any thread.
"""

from __future__ import annotations

import fcntl
import struct

# <fcntl.h>; the fcntl module of Python 3.11 does not name them.
_SET = 37
_SET_AND_WAIT = 38

# struct flock of the 64-bit ABI: l_type, l_whence, padding, l_start, l_len, l_pid (must be 0), padding.
_FLOCK = struct.Struct("hhqqi4x")


def try_lock(fd: int, *, exclusive: bool, start: int, length: int) -> bool:
    """Lock `length` (over 0) bytes from `start`.

    Return False if another open file holds a lock in the way. All or nothing.
    """
    try:
        fcntl.fcntl(fd, _SET, _request(fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK, start, length))
    except (BlockingIOError, PermissionError):  # EAGAIN on Linux; POSIX allows EACCES
        return False
    return True


def wait_lock(fd: int, *, start: int, length: int) -> None:
    """Lock `length` (over 0) bytes from `start` exclusively, however long that takes."""
    fcntl.fcntl(fd, _SET_AND_WAIT, _request(fcntl.F_WRLCK, start, length))


def unlock(fd: int, *, start: int, length: int) -> None:
    """Give `length` (over 0) bytes from `start` back; bytes that are not locked do not matter."""
    fcntl.fcntl(fd, _SET, _request(fcntl.F_UNLCK, start, length))


def _request(kind: int, start: int, length: int) -> bytes:
    # A length of 0 would mean "to the end of the file" to the kernel.
    if length <= 0:
        raise AssertionError(f"lock of {length} bytes")
    return _FLOCK.pack(kind, 0, start, length, 0)
