"""Every kind of file goes to tape as it is: GNU tar and bsdtar restore it, and the index shows it."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.index.model import Entry, EntryFlag
from catalog.index.reader import IndexReader
from tapefs.backup import attributes, base, small
from tests.backup.rig import Rig
from tests.backup.trees import entries, payloads, random_files

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="devices, owners and trusted attributes need root")

_KIB = 1024
_MIB = 1024**2
_PROGRAMS = {
    "tar": "tar --xattrs --xattrs-include='*' --acls",
    "bsdtar": "bsdtar",
}
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def sparse_file(path: Path, size: int, runs: list[tuple[int, int]]) -> None:
    """Make a file with data at these places, and holes elsewhere."""
    with path.open("wb") as file:
        file.truncate(size)
        for place, length in runs:
            os.pwrite(file.fileno(), bytes([place // 4096 % 255 + 1]) * length, place)


def every_kind(root: Path) -> Path:
    """Make a tree of everything that is not in `odd_tree`."""
    tree = root / "source"
    (tree / "dir/sub").mkdir(parents=True)
    (tree / "file").write_bytes(b"content")
    (tree / "setuid").write_bytes(b"x")
    (tree / "setuid").chmod(0o4755)
    for name in ("dir/second", "dir/sub/third", "zlast"):
        os.link(tree / "file", tree / name)
    (tree / "empty-1").touch()
    os.link(tree / "empty-1", tree / "empty-2")
    (tree / "symlink").symlink_to("no where/" * 20)
    os.link(tree / "symlink", tree / "dir/symlink", follow_symlinks=False)
    os.mkfifo(tree / "fifo", 0o640)
    os.link(tree / "fifo", tree / "fifo-2")
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(tree / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 2**20 - 1))
    os.link(tree / "disk", tree / "disk-2")
    sparse_file(tree / "holes", 50 * _MIB + 7, [(64 * _KIB, 8 * _KIB), (30 * _MIB, 100 * _KIB)])
    sparse_file(tree / "hole", 3 * _MIB, [])
    sparse_file(tree / "holes-in-frames", 80 * _MIB, [(_MIB, 5 * _MIB + 3), (20 * _MIB, 6 * _MIB)])
    os.link(tree / "holes", tree / "holes-2")
    os.setxattr(tree / "file", "user.colour", b"r\0e\nd=")
    os.setxattr(tree / "file", "trusted.mark", b"")
    os.setxattr(tree / "setuid", "security.capability", CAPABILITY)
    os.setxattr(tree / "symlink", "trusted.of-a-link", b"1", follow_symlinks=False)
    os.setxattr(tree / "null", "trusted.of-a-device", b"2")
    os.setxattr(tree / "dir", "user.caf\xe9", b"\xff" * 300)
    subprocess.run(["setfacl", "-m", "u:12345:rwx,g:54321:r", tree / "file", tree / "dir/sub"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:12345:rwx", tree / "dir"], check=True)
    os.chown(tree / "null", 7, 8)
    for path in [*tree.rglob("*"), tree]:
        os.utime(path, ns=(1, 1_400_000_000_987_654_321), follow_symlinks=False)
    return tree


Look = tuple[object, ...]


def look(root: Path) -> dict[bytes, Look]:
    """Return all that is to be kept of everything below `root`, and which names are of the same file."""
    top = bytes(root)
    found: dict[bytes, Look] = {}
    names: dict[int, list[bytes]] = {}
    for folder, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            xattrs = sorted(
                (each, os.getxattr(path, each, follow_symlinks=False))
                for each in os.listxattr(path, follow_symlinks=False)
            )
            content: object = os.readlink(path) if kind == stat.S_IFLNK else b""
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    content = hash(file.read())
            relative = os.path.relpath(path, top)
            names.setdefault(status.st_ino, []).append(relative)
            size = 0 if kind == stat.S_IFDIR else status.st_size
            sparse = kind == stat.S_IFREG and status.st_blocks * 512 < status.st_size
            found[relative] = (
                status.st_mode, status.st_uid, status.st_gid, size, status.st_mtime_ns, status.st_rdev, sparse,
                content, xattrs,
            )  # fmt: skip
    for group in names.values():
        for name in group:
            found[name] += (sorted(group),)
    return found


def unpack(rig: Rig, target: Path, program: str) -> Path:
    """Unpack all payloads as the HEADER says; nothing may be remarked upon."""
    target.mkdir()
    for payload in payloads(rig):
        command = f"zstd -qdc {payload} | {_PROGRAMS[program]} --numeric-owner -xpf - -C {target}"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=True)
        remarks = [line for line in done.stderr.splitlines() if b"TAPEFS.part" not in line]
        assert remarks == []
    return target


def index(rig: Rig, set_id: str) -> IndexReader:
    return IndexReader(rig.home.index(set_id))  # type: ignore[arg-type]


def shown(reader: IndexReader, tree: Path) -> dict[bytes, Entry]:
    top = bytes(tree)[1:] + b"/"
    return {path[len(top) :]: entry for path, entry in entries(reader).items() if path.startswith(top)}


def number_of(reader: IndexReader, path: Path) -> int:
    directory = reader.directory(0)  # type: ignore[arg-type]
    for name in bytes(path)[1:].split(b"/"):
        found = reader.lookup(directory, name)
        assert found is not None
        number, entry = found
        if stat.S_ISDIR(entry.mode):
            directory = reader.directory(entry.offset)  # type: ignore[arg-type]
    return number


@pytest.mark.parametrize("program", _PROGRAMS)
def test_foreign_programs_restore_every_kind(make_rig: Callable[..., Rig], tmp_path: Path, program: str) -> None:
    """Content, mode, owner, times to the ns, links, holes, attributes, ACLs, capabilities, device numbers."""
    tree = every_kind(tmp_path)
    before = look(tree)
    rig = make_rig(tapes=1, tape_bytes=20_000 * _MIB)
    rig.backup(tree)
    assert rig.watcher.troubles == []
    assert look(Path(f"{unpack(rig, tmp_path / 'out', program)}{tree}")) == before


@pytest.mark.parametrize("program", _PROGRAMS)
def test_every_kind_over_many_segments(make_rig: Callable[..., Rig], tmp_path: Path, program: str) -> None:
    """What is lost then is what the documents say: names of one file in different segments are not joined by tar."""
    tree = every_kind(tmp_path)
    before = look(tree)
    rig = make_rig(tapes=1, tape_bytes=20_000 * _MIB, backup_settings="segment_members = 3")
    rig.backup(tree)
    assert len(payloads(rig)) > 5
    after = look(Path(f"{unpack(rig, tmp_path / 'out', program)}{tree}"))
    assert {path: seen[:-1] for path, seen in after.items()} == {path: seen[:-1] for path, seen in before.items()}


@pytest.mark.parametrize("members", [1, 3, 1_000_000])
def test_the_index_shows_every_kind(make_rig: Callable[..., Rig], tmp_path: Path, members: int) -> None:
    """Whatever segments it lies in: attributes, extents, and which names are of one file."""
    tree = every_kind(tmp_path)
    rig = make_rig(tapes=1, tape_bytes=20_000 * _MIB, backup_settings=f"segment_members = {members}")
    set_id = rig.backup(tree)
    reader = index(rig, set_id)
    found = shown(reader, tree)
    for path, entry in found.items():
        status = os.lstat(bytes(tree) + b"/" + path)
        assert (entry.mode, entry.rdev, entry.nlink, entry.ino) == (
            status.st_mode, status.st_rdev, status.st_nlink, status.st_ino,
        )  # fmt: skip
        full = Path(os.fsdecode(bytes(tree) + b"/" + path))
        names = os.listxattr(full, follow_symlinks=False)
        xattrs = [(os.fsencode(each), os.getxattr(full, each, follow_symlinks=False)) for each in sorted(names)]
        if stat.S_ISDIR(entry.mode):
            assert reader.directory_xattrs(entry.offset) == xattrs  # type: ignore[arg-type]
        else:
            assert reader.xattrs(number_of(reader, full)) == xattrs  # type: ignore[arg-type]
            assert bool(entry.flags & EntryFlag.XATTRS) == bool(xattrs)
    firsts = {b"dir/second": b"file", b"zlast": b"file", b"dir/sub/third": b"file", b"empty-2": b"empty-1"}
    firsts |= {b"dir/symlink": b"symlink", b"fifo-2": b"fifo", b"disk-2": b"disk", b"holes-2": b"holes"}
    assert {path for path, entry in found.items() if entry.flags & EntryFlag.LINKED} == set(firsts)
    for path, first in firsts.items():
        assert (found[path].segment, found[path].offset) == (found[first].segment, found[first].offset)
        number = number_of(reader, tree / os.fsdecode(first))
        assert reader.link(number_of(reader, tree / os.fsdecode(path))) == number  # type: ignore[arg-type]
    sparse = {path for path, entry in found.items() if entry.flags & EntryFlag.SPARSE}
    assert sparse == {b"holes", b"holes-2", b"hole", b"holes-in-frames"}
    for path, runs in {
        b"holes": [(64 * _KIB, 8 * _KIB), (30 * _MIB, 100 * _KIB)],
        b"holes-2": [(64 * _KIB, 8 * _KIB), (30 * _MIB, 100 * _KIB)],
        b"hole": [],
    }.items():
        extents = reader.extents(number_of(reader, tree / os.fsdecode(path)))  # type: ignore[arg-type]
        assert [(extent.file_offset, extent.length) for extent in extents] == runs
        place = found[path].offset
        for extent in extents:
            assert (extent.segment, extent.offset) == (found[path].segment, place)
            place += extent.length
    done = rig.ledger.backup_set(set_id)
    assert (done.files, done.troubled_files) == (len(found) - 2, 0)


def test_fresh_is_what_changed_just_now(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose ctime is under two seconds old may change without a trace, and says so."""
    before, found, after = time.time_ns(), base.fresh_from_ns(), time.time_ns()
    assert before <= found + 2 * 10**9 <= after
    tree = random_files(tmp_path / "tree", 2, 10)
    (tree / "link").symlink_to("x")
    # The backup's clock stands still, where this takes longer than two seconds too.
    boundary = os.stat(tree / "link", follow_symlinks=False).st_ctime_ns
    for module in (base, small):
        monkeypatch.setattr(module, "fresh_from_ns", lambda: boundary)
    time.sleep(0.05)  # Times have the grain of the kernel's clock, some milliseconds.
    (tree / "file-00001").write_bytes(b"new")
    found = shown(index(rig, rig.backup(tree)), tree)
    flags = {path: entry.flags for path, entry in found.items()}
    assert flags == {b"file-00000": 0, b"file-00001": EntryFlag.FRESH, b"link": 0}


def test_attributes_that_cannot_be_read_are_told(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is kept with those that can be read; a filesystem without attributes is no trouble."""
    tree = random_files(tmp_path / "tree", 4, 10)
    names = [tree / f"file-0000{number}" for number in range(4)]
    for name in names:
        os.setxattr(name, "user.a", b"1")
        os.setxattr(name, "user.b", b"2")
    real_list, real_get = os.listxattr, os.getxattr
    inodes = [os.stat(name).st_ino for name in names]

    def inode(place: int | bytes) -> int:
        return os.stat(place).st_ino

    def list_some(place: int | bytes, *, follow_symlinks: bool = True) -> list[str]:
        if inode(place) == inodes[1]:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        if inode(place) == inodes[2]:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return real_list(place, follow_symlinks=follow_symlinks)

    def get_some(place: int | bytes, name: bytes, *, follow_symlinks: bool = True) -> bytes:
        if inode(place) == inodes[3] and name == b"user.a":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return real_get(place, name, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(attributes.os, "listxattr", list_some)
    monkeypatch.setattr(attributes.os, "getxattr", get_some)
    set_id = rig.backup(tree)
    monkeypatch.undo()
    reader = index(rig, set_id)
    found = [reader.xattrs(number_of(reader, name)) for name in names]  # type: ignore[arg-type]
    assert found == [[(b"user.a", b"1"), (b"user.b", b"2")], [], [], [(b"user.b", b"2")]]
    assert rig.watcher.troubles == [
        (bytes(names[2]), "its extended attributes cannot be read: Permission denied"),
        (bytes(names[3]), "attribute user.a cannot be read: Permission denied"),
    ]
    assert rig.ledger.backup_set(set_id).troubled_files == 2


def test_more_attributes_than_a_header_takes(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beyond the limit are left out and told; what is kept is whole."""
    tree = random_files(tmp_path / "tree", 1, 10)
    for name in "abc":
        os.setxattr(tree / "file-00000", f"user.{name}", b"v" * 900)
    monkeypatch.setattr(attributes, "ATTRIBUTES_BYTES", 2000)
    reader = index(rig, rig.backup(tree))
    kept = reader.xattrs(number_of(reader, tree / "file-00000"))  # type: ignore[arg-type]
    assert [name for name, _ in kept] == [b"user.a", b"user.b"]
    ((path, reason),) = rig.watcher.troubles
    assert (path, "user.c is left out" in reason) == (bytes(tree / "file-00000"), True)
