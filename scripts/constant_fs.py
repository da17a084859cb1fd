"""A mount with one file of the same bytes over and over: what FUSE through Python can give at best. For scripts/bench.

Usage: constant_fs.py DIR BYTES; SIGTERM unmounts.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys

import pyfuse3
import trio

FILE = pyfuse3.InodeT(2)
BUFFER = b"\x5a" * (1024 * 1024)


class Constant(pyfuse3.Operations):
    """The file system."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    async def getattr(self, inode, ctx=None):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFDIR | 0o755 if inode == pyfuse3.ROOT_INODE else stat.S_IFREG | 0o444
        entry.st_size = 0 if inode == pyfuse3.ROOT_INODE else self._size
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        return entry

    async def lookup(self, parent_inode, name, ctx=None):
        if parent_inode != pyfuse3.ROOT_INODE or name != b"file":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(FILE)

    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def read(self, fh, off, size):
        return BUFFER[: max(0, min(size, self._size - off))]


async def serve() -> None:
    """Serve until SIGTERM."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pyfuse3.main)
            async for _ in signals:
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    pyfuse3.init(Constant(int(sys.argv[2])), sys.argv[1], {"ro", "fsname=constant"})
    try:
        trio.run(serve)
    finally:
        pyfuse3.close(unmount=True)
