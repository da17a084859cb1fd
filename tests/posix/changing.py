"""Calls that would change something, each on a path of its own kind. Blocking."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from tests.posix.calls import fallocate, renameat2

_NOREPLACE, _EXCHANGE, _WHITEOUT = 1, 2, 4
_PUNCH_HOLE = 0x2 | 0x1
_SET_FLAGS = 0x40086602
_ACL = struct.pack("<IHHIHHIHHI", 2, 1, 6, 0xFFFFFFFF, 4, 4, 0xFFFFFFFF, 32, 4, 0xFFFFFFFF)


def make_tree(folder: Path) -> Path:
    """Make what `CHANGES` are tried on."""
    (folder / "folder").mkdir(parents=True)
    (folder / "folder/inside").touch()
    (folder / "empty").mkdir()
    (folder / "file").write_text("content")
    (folder / "other").write_text("other")
    (folder / "link").symlink_to("file")
    os.mkfifo(folder / "fifo")
    os.setxattr(folder / "file", "user.mine", b"mine")
    return folder


def _open(flags: int) -> Callable[[Path], None]:
    return lambda folder: os.close(os.open(folder / "file", flags))


def _made(flags: int) -> Callable[[Path], None]:
    return lambda folder: os.close(os.open(folder / "new", flags, 0o600))


def _bind(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        # Paths of sockets are short; this one is relative to the descriptor of its folder.
        fd = os.open(folder, os.O_RDONLY)
        try:
            end.bind(f"/proc/self/fd/{fd}/socket")
        finally:
            os.close(fd)


def _on_open(call: Callable[[int], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        fd = os.open(folder / "file", os.O_RDONLY)
        try:
            call(fd)
        finally:
            os.close(fd)

    return changed


#: Each would change something in a folder made by `make_tree`, were it not read-only.
CHANGES: dict[str, Callable[[Path], object]] = {
    "mkdir": lambda folder: os.mkdir(folder / "new"),
    "rmdir": lambda folder: os.rmdir(folder / "empty"),
    "open O_CREAT": _made(os.O_CREAT | os.O_RDONLY),
    "open O_CREAT O_EXCL": _made(os.O_CREAT | os.O_EXCL | os.O_RDWR),
    "open O_TMPFILE": lambda folder: os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR)),
    "open O_WRONLY": _open(os.O_WRONLY),
    "open O_RDWR": _open(os.O_RDWR),
    "open O_APPEND": _open(os.O_WRONLY | os.O_APPEND),
    "open O_TRUNC": _open(os.O_RDONLY | os.O_TRUNC),
    "open O_WRONLY through a link": lambda folder: os.close(os.open(folder / "link", os.O_WRONLY)),
    "truncate": lambda folder: os.truncate(folder / "file", 0),
    "unlink": lambda folder: os.unlink(folder / "file"),
    "unlink of a link": lambda folder: os.unlink(folder / "link"),
    "unlink of a missing name": lambda folder: os.unlink(folder / "missing"),
    "rename": lambda folder: os.rename(folder / "file", folder / "new"),
    "rename over another": lambda folder: os.rename(folder / "file", folder / "other"),
    "rename of a directory": lambda folder: os.rename(folder / "folder", folder / "empty"),
    "rename of a missing name": lambda folder: os.rename(folder / "missing", folder / "new"),
    "rename NOREPLACE": lambda folder: _renamed(folder, "new", _NOREPLACE),
    "rename EXCHANGE": lambda folder: _renamed(folder, "other", _EXCHANGE),
    "rename WHITEOUT": lambda folder: _renamed(folder, "new", _WHITEOUT),
    "link": lambda folder: os.link(folder / "file", folder / "new"),
    "link of a link": lambda folder: os.link(folder / "link", folder / "new", follow_symlinks=False),
    "symlink": lambda folder: os.symlink("target", folder / "new"),
    "mknod of a file": lambda folder: os.mknod(folder / "new", stat.S_IFREG | 0o600),
    "mknod of a device": lambda folder: os.mknod(folder / "new", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "mkfifo": lambda folder: os.mkfifo(folder / "new"),
    "bind of a socket": _bind,
    "chmod": lambda folder: os.chmod(folder / "file", 0o600),
    "chmod of a directory": lambda folder: os.chmod(folder / "folder", 0o700),
    "fchmod": _on_open(lambda fd: os.fchmod(fd, 0o600)),
    "chown": lambda folder: os.chown(folder / "file", 1, 1),
    "lchown": lambda folder: os.lchown(folder / "link", 1, 1),
    "fchown": _on_open(lambda fd: os.fchown(fd, 1, 1)),
    "utimensat": lambda folder: os.utime(folder / "file", ns=(1, 1)),
    "utimensat to now": lambda folder: os.utime(folder / "file"),
    "utimensat of a link": lambda folder: os.utime(folder / "link", ns=(1, 1), follow_symlinks=False),
    "futimens": _on_open(lambda fd: os.utime(fd, ns=(1, 1))),
    "setxattr": lambda folder: os.setxattr(folder / "file", "user.new", b"new"),
    "setxattr of one there is": lambda folder: os.setxattr(folder / "file", "user.mine", b"new", os.XATTR_REPLACE),
    "setxattr of an ACL": lambda folder: os.setxattr(folder / "file", "system.posix_acl_access", _ACL),
    "setxattr of a capability": lambda folder: os.setxattr(folder / "file", "security.capability", bytes(20)),
    "fsetxattr": _on_open(lambda fd: os.setxattr(fd, "user.new", b"new")),
    "removexattr": lambda folder: os.removexattr(folder / "file", "user.mine"),
    "removexattr of a missing one": lambda folder: os.removexattr(folder / "file", "user.missing"),
    "set flags": _on_open(lambda fd: fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", 0x10))),
    "write": _on_open(lambda fd: os.write(fd, b"x")),
    "ftruncate": _on_open(lambda fd: os.ftruncate(fd, 0)),
    "fallocate": _on_open(lambda fd: fallocate(fd, 0, 0, 1 << 20)),
    "punch a hole": _on_open(lambda fd: fallocate(fd, _PUNCH_HOLE, 0, 4096)),
    "copy_file_range into it": _on_open(lambda fd: os.copy_file_range(fd, fd, 1, 0, 100)),
}
#: What is refused already because the file was opened for reading, with this.
NOT_FOR_WRITING = {
    "write": errno.EBADF,
    "ftruncate": errno.EINVAL,
    "fallocate": errno.EBADF,
    "punch a hole": errno.EBADF,
    "copy_file_range into it": errno.EBADF,
}
#: What else is answered where the kernel lets writes through.
WRITABLE = NOT_FOR_WRITING | {
    "open O_TMPFILE": errno.ENOTSUP,
    "unlink of a missing name": errno.ENOENT,
    "rename of a missing name": errno.ENOENT,
    "setxattr of a capability": errno.EINVAL,
    "set flags": errno.ENOTTY,
}


def _renamed(folder: Path, to: str, flags: int) -> None:
    renameat2(os.fsencode(folder / "file"), os.fsencode(folder / to), flags)
