"""What is told about names: the mounted tree against its source, call by call. Blocking; the source must lie still.

Each function yields a line for every difference.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator

from tests.compare.look import same_blocks
from tests.posix.calls import LONGEST_RECORD, Record, getdents, listed

#: All of struct stat but st_dev, st_ino, st_atime and st_blocks, which are looked at apart.
FIELDS = (
    "st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev", "st_size", "st_blksize", "st_mtime_ns", "st_ctime_ns",
)  # fmt: skip
#: For listings: from as small as it can be to as large as libc's.
BUFFERS = (LONGEST_RECORD, 400, 1000, 4096, 1 << 15)


def all_names(top: bytes) -> list[bytes]:
    """Return the paths of everything below `top`, relative to it, and b'.' first."""
    found = []
    for folder, directories, files in os.walk(top):
        found += [os.path.relpath(os.path.join(folder, name), top) for name in directories + files]
    return [b".", *sorted(found)]


def of_names(source: bytes, root: bytes) -> Iterator[str]:
    """Compare which names there are, what lstat, readlink and xattrs tell of each, and who shares an inode."""
    names = all_names(source)
    mounted = all_names(root)
    for name in sorted(set(names) ^ set(mounted)):
        yield f"{name!r} is only in the {'source' if name in set(names) else 'mount'}"
    inodes: dict[int, int] = {}
    devices = set()
    for name in sorted(set(names) & set(mounted)):
        theirs, ours = os.path.join(source, name), os.path.join(root, name)
        wanted, found = os.lstat(theirs), os.lstat(ours)
        devices.add(found.st_dev)
        if inodes.setdefault(wanted.st_ino, found.st_ino) != found.st_ino:
            yield f"{name!r} has an inode of its own"
        yield from _of_status(name, wanted, found)
        yield from _of_target(name, theirs, ours, wanted)
        yield from _of_xattrs(name, theirs, ours)
    if len(set(inodes.values())) != len(inodes):
        yield "names that are different files share an inode"
    if len(devices) != 1:
        yield f"more than one device: {devices}"


def _of_status(name: bytes, wanted: os.stat_result, found: os.stat_result) -> Iterator[str]:
    for field in FIELDS:
        if getattr(wanted, field) != getattr(found, field):
            yield f"{field} of {name!r} is {getattr(found, field)}, not {getattr(wanted, field)}"
    if not same_blocks(found, wanted):
        yield f"st_blocks of {name!r} is {found.st_blocks}, not {wanted.st_blocks}"
    if found.st_atime_ns != found.st_mtime_ns:
        yield f"st_atime of {name!r} is not its st_mtime"


def _of_target(name: bytes, theirs: bytes, ours: bytes, status: os.stat_result) -> Iterator[str]:
    if stat.S_ISLNK(status.st_mode) and os.readlink(theirs) != os.readlink(ours):
        yield f"{name!r} points to {os.readlink(ours)!r}, not to {os.readlink(theirs)!r}"


def xattrs(path: bytes) -> dict[str, bytes]:
    """Return all extended attributes of a name, links not followed."""
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def _of_xattrs(name: bytes, theirs: bytes, ours: bytes) -> Iterator[str]:
    wanted, found = xattrs(theirs), xattrs(ours)
    if wanted != found:
        yield f"xattrs of {name!r} are {found}, not {wanted}"


def of_listings(source: bytes, root: bytes, cookies: int, seed: int) -> Iterator[str]:
    """Compare every directory's listing: with small buffers, again from the start, and on from any of its cookies, of
    which so many are taken at random.
    """
    chance = random.Random(seed)
    for folder, directories, files in os.walk(source):
        name = os.path.relpath(folder, source)
        fd = os.open(os.path.join(root, name), os.O_RDONLY | os.O_DIRECTORY)
        try:
            whole = listed(fd)
            if sorted(each.name for each in whole) != sorted([b".", b"..", *directories, *files]):
                yield f"the listing of {name!r} has not the names of the source"
            yield from (f"{name!r}: {each}" for each in _of_records(fd, whole))
            yield from (f"{name!r}: {each}" for each in _of_ways(fd, whole))
            for at in chance.sample(range(len(whole)), min(cookies, len(whole))):
                buffer_bytes = chance.choice(BUFFERS)
                ways_on = _from_cookie(fd, os.path.join(root, name), whole, at, buffer_bytes)
                yield from (f"{name!r}: {each}" for each in ways_on)
        finally:
            os.close(fd)


def _of_records(fd: int, whole: list[Record]) -> Iterator[str]:
    if len({each.cookie for each in whole}) != len(whole):
        yield "two places of the listing have the same cookie"
    for each in whole:
        status = os.stat(each.name, dir_fd=fd, follow_symlinks=False)
        if each.name != b".." and each.inode != status.st_ino:
            yield f"listed inode {each.inode} of {each.name!r} is not {status.st_ino}"
        if each.type != stat.S_IFMT(status.st_mode) >> 12:
            yield f"listed type {each.type} of {each.name!r} is not that of {status.st_mode:o}"


def _of_ways(fd: int, whole: list[Record]) -> Iterator[str]:
    for buffer_bytes in BUFFERS:
        os.lseek(fd, 0, os.SEEK_SET)
        if listed(fd, buffer_bytes) != whole:
            yield f"with a buffer of {buffer_bytes} bytes it is another listing"
    os.lseek(fd, 0, os.SEEK_SET)
    getdents(fd, 1000)
    os.lseek(fd, 0, os.SEEK_SET)
    if listed(fd) != whole:
        yield "rewound in the middle it is another listing"


def _from_cookie(fd: int, path: bytes, whole: list[Record], at: int, buffer_bytes: int) -> Iterator[str]:
    """Go on behind a place: in this open directory, and in one that was never read from the start."""
    fresh = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for each in (fd, fresh):
            os.lseek(each, whole[at].cookie, os.SEEK_SET)
            if os.lseek(each, 0, os.SEEK_CUR) != whole[at].cookie:
                yield f"telldir at place {at} is not where seekdir went"
            if listed(each, buffer_bytes) != whole[at + 1 :]:
                yield f"behind place {at} it goes on with something else"
    finally:
        os.close(fresh)


def of_forgotten(root: bytes) -> Iterator[str]:
    """Go on with listings whose directories the kernel has forgotten meanwhile; nothing where it cannot be asked to."""
    largest = sorted(((len(directories + files), folder) for folder, directories, files in os.walk(root)), reverse=True)
    for _, folder in largest[:3]:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            whole = listed(fd)
            for at in (0, len(whole) // 2, len(whole) - 1):
                os.lseek(fd, whole[at].cookie, os.SEEK_SET)
                drop_caches()
                if listed(fd, 1000) != whole[at + 1 :]:
                    yield f"{folder!r}: forgotten at place {at} it goes on with something else"
        finally:
            os.close(fd)


def drop_caches() -> bool:
    """Have the kernel forget names and inodes; tell whether it could be asked to."""
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("2")
    except OSError:
        return False
    return True
