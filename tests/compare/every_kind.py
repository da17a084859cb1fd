"""A tree with every kind of file that a file system can hold, made by system calls and foreign tools."""

from __future__ import annotations

import os
import random
import socket
import stat
import subprocess
from pathlib import Path

#: Every byte but those that a name cannot have.
ODD_NAME = bytes(byte for byte in range(1, 256) if byte != ord("/"))
MIB = 1024**2


def every_kind(root: Path, *, sockets: bool = False) -> Path:
    """Make the tree; the caller is root. Files over a segment of 3 MiB are in `large`."""
    root.mkdir()
    _names(root / "names")
    _modes(root / "modes")
    _hardlinks(root)
    _sparse(root / "sparse")
    _specials(root / "specials")
    _attributes(root / "attributes")
    _large(root / "large")
    if sockets:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(str(root / "socket"))
    _times(root)
    return root


def _names(folder: Path) -> None:
    folder.mkdir()
    top = os.fsencode(folder)
    names = [
        b" ",
        b"\n",
        b"\\",
        b"-rf",
        b"...",
        b"caf\xc3\xa9",
        b"latin-\xe9",
        b"n" * 255,
        ODD_NAME[:127],
        ODD_NAME[127:],
    ]
    for number, name in enumerate(names):
        with open(os.path.join(top, name), "wb") as file:
            file.write(random.Random(number).randbytes(number * 700))
    os.makedirs(os.path.join(top, b"d" * 255, b"\xff\xfe"))
    deep = folder
    for level in range(40):
        deep = deep / f"level-{level:02}-{'x' * 20}"
        deep.mkdir()
    (deep / "deepest").write_text("deepest")
    (folder / "empty").mkdir()
    (folder / "none").touch()


def _modes(folder: Path) -> None:
    folder.mkdir(mode=0o711)
    for mode in (0o000, 0o444, 0o755, 0o1644, 0o2755, 0o4755, 0o6711, 0o7777):
        path = folder / f"file-{mode:04o}"
        path.write_text(oct(mode))
        os.chown(path, 1234, 4321)
        path.chmod(mode)
        path = folder / f"directory-{mode:04o}"
        path.mkdir()
        (path / "inside").write_text("inside")
        os.chown(path, 4_000_000_000, 3_000_000_000)
        path.chmod(mode)


def _hardlinks(root: Path) -> None:
    """Within a directory and between them; of a file, an empty one, a sparse one, a link, a fifo; with attributes."""
    for name in ("links-a", "links-b"):
        (root / name).mkdir()
    first = root / "links-a/first"
    first.write_bytes(random.Random(1).randbytes(100_000))
    os.setxattr(first, "user.shared", b"by all names")
    for name in ("links-a/second", "links-b/third", "zz-fourth"):
        os.link(first, root / name)
    (root / "links-a/empty").touch()
    os.link(root / "links-a/empty", root / "links-b/empty, too")
    with (root / "links-b/sparse").open("wb") as file:
        file.truncate(3 * MIB)
        os.pwrite(file.fileno(), b"data", MIB)
    os.link(root / "links-b/sparse", root / "links-a/sparse, too")
    os.symlink("first", root / "links-a/symlink")
    os.link(root / "links-a/symlink", root / "links-b/symlink", follow_symlinks=False)
    os.mkfifo(root / "links-a/fifo")
    os.link(root / "links-a/fifo", root / "links-b/fifo")
    # Its other name is outside the tree.
    os.link(first, root.parent / f"{root.name}-outside")
    (root / "alone").write_text("alone")
    os.link(root / "alone", root.parent / f"{root.name}-alone-outside")


def _sparse(folder: Path) -> None:
    folder.mkdir()
    runs = {
        "all-hole": (5 * MIB, []),
        "hole-at-the-end": (MIB, [(0, 5000)]),
        "hole-at-the-beginning": (MIB + 1, [(MIB - 8192, 8193)]),
        "odd": (10 * MIB + 333, [(0, 1), (MIB + 77, 100), (4 * MIB, 123_456), (10 * MIB, 333)]),
        "many-runs": (2 * MIB, [(at, 4096) for at in range(0, 2 * MIB, 16384)]),
        "far": (1 << 26, [(1 << 25, 10_000)]),
    }
    for number, (name, (size, data)) in enumerate(runs.items()):
        with (folder / name).open("wb") as file:
            file.truncate(size)
            for at, length in data:
                os.pwrite(file.fileno(), random.Random(number).randbytes(length), at)
    # No hole, whatever is in it.
    (folder / "zeros").write_bytes(bytes(300_000))


def _specials(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "fifo", 0o640)
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(folder / "block", stat.S_IFBLK | 0o660, os.makedev(259, 1_000_000))
    os.mknod(folder / "whiteout", stat.S_IFCHR, os.makedev(0, 0))
    os.chown(folder / "null", 5, 6)
    (folder / "null").chmod(0o4711)
    for name, target in (
        (b"dangling", b"nowhere"),
        (b"long", b"t" * 4000),
        (b"odd", b"\xff\n"),
        (b"up", b"../../../.."),
    ):
        os.symlink(target, os.path.join(os.fsencode(folder), name))
    os.lchown(folder / "dangling", 777, 888)


def _attributes(folder: Path) -> None:
    folder.mkdir()
    for name in ("file", "closed", "acl", "capable", "many"):
        (folder / name).write_text(name)
    (folder / "directory").mkdir()
    (folder / "link").symlink_to("file")
    for name in ("file", "directory"):
        os.setxattr(folder / name, "user.text", b"text")
        os.setxattr(folder / name, b"user.bytes-\xc3\xa9", bytes(range(256)))
        os.setxattr(folder / name, "user.empty", b"")
        os.setxattr(folder / name, "trusted.hidden", b"\0\1")
        os.setxattr(folder / name, "security.other", b"label")
    os.setxattr(folder / "link", "trusted.of-a-link", b"yes", follow_symlinks=False)
    for number in range(40):
        os.setxattr(folder / "many", f"user.{number:03}", b"x" * 40)
    os.setxattr(folder / "closed", "user.text", b"of a file that its owner cannot write")
    (folder / "closed").chmod(0o400)
    subprocess.run(["setcap", "cap_net_raw,cap_sys_admin+ep", folder / "capable"], check=True)
    subprocess.run(["setfacl", "-m", "u:1234:rwx,g:4321:r,g::---,m::rwx", folder / "acl"], check=True)
    subprocess.run(["setfacl", "-m", "u:1234:r-x,d:u:4321:rwx,d:o::---", folder / "directory"], check=True)
    # Made behind the default ACL: inherits it.
    (folder / "directory/heir").write_text("heir")


def _large(folder: Path) -> None:
    """Larger than a segment of 3 MiB, with and without holes, and with two names."""
    folder.mkdir()
    (folder / "split").write_bytes(random.Random(5).randbytes(8 * MIB + 5))
    with (folder / "split-sparse").open("wb") as file:
        file.truncate(40 * MIB)
        for at in (0, 10 * MIB, 20 * MIB, 30 * MIB):
            os.pwrite(file.fileno(), random.Random(at).randbytes(2 * MIB), at)
    os.link(folder / "split", folder / "split-again")


def _times(root: Path) -> None:
    """Give every name a time of its own, with nanoseconds, some before 1970, directories last."""
    everything = [
        os.path.join(folder, name) for folder, below, names in os.walk(os.fsencode(root)) for name in below + names
    ]
    for number, path in enumerate(reversed(sorted(everything))):
        mtime_ns = -1_000_000_001 if number % 50 == 7 else 1_500_000_000_123_456_789 + number * 1_000_000_007
        os.utime(path, ns=(1, mtime_ns), follow_symlinks=False)
    os.utime(root, ns=(1, 1_400_000_000_000_000_001))
