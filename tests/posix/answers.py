"""What single calls answer, errors included: asked of the mount and of the source. Blocking."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.posix.names import all_names

#: Maps one page more than the file has; prints what is behind its end in the last page, then touches the page behind.
_BEHIND_THE_END = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
fd = os.open(os.fsencode(sys.argv[1]), os.O_RDONLY)
size = os.fstat(fd).st_size
end = -(-size // 4096) * 4096
at = libc.mmap(None, ctypes.c_size_t(end + 4096), 1, 2, fd, ctypes.c_long(0))
print(ctypes.string_at(at + size, end - size), flush=True)
print(ctypes.string_at(at + end, 1))
"""


def answer(call: Callable[[], object]) -> str:
    """Return what a call gives, or the name of its errno."""
    try:
        return repr(call())
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def _closed(path: bytes, flags: int) -> str:
    os.close(os.open(path, flags))
    return "opened"


def _read(path: bytes, flags: int = 0) -> bytes:
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        return os.read(fd, 10)
    finally:
        os.close(fd)


def _sought(path: bytes, offset: int, whence: int) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(fd, offset, whence)
    finally:
        os.close(fd)


#: Asked of every name.
OF_ANY: dict[str, Callable[[bytes], object]] = {
    "stat": lambda path: stat.S_IFMT(os.stat(path).st_mode),
    "readlink": os.readlink,
    "listdir": lambda path: len(os.listdir(path)),
    "name/": lambda path: stat.S_IFMT(os.lstat(path + b"/").st_mode),
    "name/.": lambda path: stat.S_IFMT(os.lstat(path + b"/.").st_mode),
    "name/missing": lambda path: os.lstat(path + b"/missing"),
    "name too long": lambda path: os.lstat(path + b"/" + b"n" * 256),
    "path too long": lambda path: os.lstat(path + b"/." * 2048),
    "missing xattr": lambda path: os.getxattr(path, "user.missing", follow_symlinks=False),
    "unknown xattr": lambda path: os.getxattr(path, "nonsense.missing", follow_symlinks=False),
    "open as a directory": lambda path: _closed(path, os.O_RDONLY | os.O_DIRECTORY),
    "open without following": lambda path: _closed(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK),
    "open the path only": lambda path: _closed(path, os.O_PATH),
    "may be read": lambda path: os.access(path, os.R_OK),
    "may be run": lambda path: os.access(path, os.X_OK),
}
#: Asked of regular files.
OF_FILES: dict[str, Callable[[bytes], object]] = {
    "read": _read,
    "read without following": lambda path: _read(path, os.O_NOFOLLOW),
    "seek to the end": lambda path: _sought(path, 0, os.SEEK_END),
    "seek behind the end": lambda path: _sought(path, 10, os.SEEK_END),
    "seek before the beginning": lambda path: _sought(path, -1, os.SEEK_SET),
    "seek data behind the end": lambda path: _sought(path, os.path.getsize(path) + 1, os.SEEK_DATA),
    "pread before the beginning": lambda path: _at(path, lambda fd: os.pread(fd, 1, -1)),
    "pread far behind the end": lambda path: _at(path, lambda fd: os.pread(fd, 1, 1 << 62)),
    "write to what was opened for reading": lambda path: _at(path, lambda fd: os.write(fd, b"x")),
    "truncate what was opened for reading": lambda path: _at(path, lambda fd: os.ftruncate(fd, 0)),
    "fsync": lambda path: _at(path, os.fsync),
}
#: Asked of directories.
OF_DIRECTORIES: dict[str, Callable[[bytes], object]] = {
    "read": _read,
    "pread": lambda path: _at(path, lambda fd: os.pread(fd, 1, 0)),
    "the parent": lambda path: os.lstat(path + b"/..").st_mode,
}
#: Answers that may differ, and why: device nodes in the mount have no effect.
_NODEV = {"open without following"}


def _at(path: bytes, call: Callable[[int], object]) -> object:
    fd = os.open(path, os.O_RDONLY)
    try:
        return call(fd)
    finally:
        os.close(fd)


def of_answers(source: bytes, root: bytes, most_names: int, seed: int) -> Iterator[str]:
    """Ask names, so many of them, all that fits their kind; yield a line for every answer that is another one."""
    names = all_names(source)
    for name in random.Random(seed).sample(names, min(most_names, len(names))):
        theirs, ours = os.path.join(source, name), os.path.join(root, name)
        mode = os.lstat(theirs).st_mode
        calls = dict(OF_ANY)
        if stat.S_ISLNK(mode):
            # It may lead out of the tree, to where other names are.
            del calls["listdir"]
        elif stat.S_ISREG(mode):
            calls |= OF_FILES
        elif stat.S_ISDIR(mode) and name != b".":
            calls |= OF_DIRECTORIES
        for word, call in calls.items():
            if word in _NODEV and (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
                continue
            wanted, found = (answer(lambda: call(path)) for path in (theirs, ours))  # noqa: B023
            if found != wanted:
                yield f"{word} of {name!r}: {found}, not {wanted}"


def behind_the_end(path: bytes) -> tuple[bytes, int]:
    """Return what a mapping shows behind a file's end in its last page, and how the process ends that goes further."""
    command = [sys.executable, "-c", _BEHIND_THE_END, path]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    return done.stdout, done.returncode


def of_programs(source: bytes, root: bytes) -> Iterator[str]:
    """Run every program below a folder `programs`, from here and there."""
    for path in sorted(Path(os.fsdecode(source), "programs").iterdir()):
        ours = Path(os.fsdecode(root), "programs", path.name)
        wanted, found = (
            subprocess.run([each, "word"], capture_output=True, timeout=60, cwd="/") for each in (path, ours)
        )
        if (found.stdout, found.returncode) != (wanted.stdout, wanted.returncode) or not wanted.stdout:
            yield f"{path.name} from the mount: {found}"
