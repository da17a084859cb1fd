"""System calls that Python has no name for: raw directory listings, file handles. Blocking."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

_LIBC = ctypes.CDLL(None, use_errno=True)
#: struct linux_dirent64 without its name: inode, cookie, length of the record, type.
_RECORD = struct.Struct("=QqHB")
_GETDENTS64 = {"x86_64": 217, "aarch64": 61}[os.uname().machine]
#: The longest record there is: a name of 255 bytes, its end, rounded up to eight.
LONGEST_RECORD = 280
AT_FDCWD = -100


class Record(NamedTuple):
    """An entry of a directory as the kernel tells it."""

    inode: int
    #: Where the listing goes on behind it, for lseek.
    cookie: int
    #: DT_DIR and so on: the type bits of st_mode, shifted by 12.
    type: int
    name: bytes


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def getdents(fd: int, buffer_bytes: int) -> list[Record]:
    """Return what one call gives; nothing at the end of the directory. Raises OSError."""
    buffer = ctypes.create_string_buffer(buffer_bytes)
    count = _checked(_LIBC.syscall(_GETDENTS64, fd, buffer, buffer_bytes))
    return list(_records(buffer.raw[:count]))


def _records(raw: bytes) -> Iterator[Record]:
    at = 0
    while at < len(raw):
        inode, cookie, length, kind = _RECORD.unpack_from(raw, at)
        name = raw[at + _RECORD.size : at + length].split(b"\0", 1)[0]
        yield Record(inode, cookie, kind, name)
        at += length


def listed(fd: int, buffer_bytes: int = 1 << 16) -> list[Record]:
    """Return what is left of an open directory, with so large a buffer for each call."""
    found: list[Record] = []
    while some := getdents(fd, buffer_bytes):
        found += some
    return found


class Handle(ctypes.Structure):
    """struct file_handle with room for those of FUSE and ext4."""

    _fields_ = (("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("handle", ctypes.c_ubyte * 128))


def name_to_handle(path: bytes) -> Handle:
    """Return the handle of what is at `path`; a symbolic link is not followed. Raises OSError."""
    handle, mount_id = Handle(bytes=128), ctypes.c_int()
    _checked(_LIBC.name_to_handle_at(AT_FDCWD, path, ctypes.byref(handle), ctypes.byref(mount_id), 0))
    return handle


def open_by_handle(mount_fd: int, handle: Handle, flags: int) -> int:
    """Return a descriptor; any of the same file system tells where to look. For root only. Raises OSError."""
    return _checked(_LIBC.open_by_handle_at(mount_fd, ctypes.byref(handle), flags))


def renameat2(source: bytes, target: bytes, flags: int) -> None:
    """Rename with flags. Raises OSError."""
    _checked(_LIBC.renameat2(AT_FDCWD, source, AT_FDCWD, target, flags))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Allocate or punch. Raises OSError."""
    _checked(_LIBC.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))
