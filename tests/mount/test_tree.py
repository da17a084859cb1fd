"""What is seen without reading content: it equals what was recorded, and nothing is recalled for it."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.mount.conftest import ODD_NAME, Rig

pytestmark = pytest.mark.fuse

FIELDS = ("st_mode", "st_uid", "st_gid", "st_size", "st_nlink", "st_rdev", "st_blocks", "st_mtime_ns", "st_ctime_ns")


def everything(root: Path) -> list[bytes]:
    found = []
    top = os.fsencode(root)
    for folder, directories, files in os.walk(top):
        found += [os.path.relpath(os.path.join(folder, name), top) for name in directories + files]
    return sorted(found)


def test_every_attribute_is_the_recorded_one(rig: Rig) -> None:
    names = everything(rig.source)
    assert everything(rig.root) == names
    assert ODD_NAME in names
    for name in [b".", *names]:
        wanted, found = (os.lstat(os.path.join(os.fsencode(top), name)) for top in (rig.source, rig.root))
        for field in FIELDS:
            assert getattr(found, field) == getattr(wanted, field), (name, field)
        assert found.st_atime_ns == found.st_mtime_ns


def test_links_have_their_targets(rig: Rig) -> None:
    for name in (b"link", b"deep/broken"):
        wanted, found = (os.readlink(os.path.join(os.fsencode(top), name)) for top in (rig.source, rig.root))
        assert found == wanted


def test_listing_tells_types_and_inodes(rig: Rig) -> None:
    with os.scandir(rig.root) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            assert entry.inode() == status.st_ino
            assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(status.st_mode)
            assert entry.is_symlink() == stat.S_ISLNK(status.st_mode)
    output = subprocess.run(["ls", "-ai", str(rig.root / "deep")], capture_output=True, text=True, check=True).stdout
    inodes = {name: int(number) for number, name in map(str.split, output.splitlines()[:2])}
    assert inodes == {".": (rig.root / "deep").stat().st_ino, "..": rig.root.stat().st_ino}


def test_names_share_an_inode_where_the_source_says_so(rig: Rig) -> None:
    names = everything(rig.root)
    pairs = {
        tuple(os.lstat(os.path.join(os.fsencode(top), name)).st_ino for top in (rig.root, rig.source)) for name in names
    }
    assert len({one for one, _ in pairs}) == len({two for _, two in pairs}) == len(pairs) == len(names) - 1


def test_a_missing_name_is_missing(rig: Rig) -> None:
    for path in (rig.root / "nothing", rig.mount.path / "nothing", rig.mount.path / "jobs/nothing"):
        for _ in range(2):
            assert not os.path.lexists(path)


def test_walks_recall_nothing(evicted: Rig) -> None:
    before = list(evicted.sidecar.waiters)
    for command in (
        ["find", "-printf", "%s %m %l"],
        ["ls", "-lR"],
        ["du", "-sb", "."],
        ["tar", "cf", "/dev/null", "."],
    ):
        assert subprocess.run(command, cwd=evicted.root, capture_output=True).returncode in (0, 1), command
    assert evicted.sidecar.waiters == before
    sizes = [
        subprocess.run(["du", "-sl", "."], cwd=top, capture_output=True).stdout
        for top in (evicted.root, evicted.source)
    ]
    assert sizes[0] == sizes[1]


def test_the_top(rig: Rig) -> None:
    top = rig.mount.path
    assert sorted(os.listdir(top)) == ["README.txt", "jobs", "sets", "tapes"]
    assert "read-only" in (top / "README.txt").read_text()
    assert os.listdir(top / "jobs") == ["docs"]
    assert sorted(os.listdir(top / "jobs/docs")) == ["2026-11-23T020000Z", "latest"]
    assert os.readlink(top / "jobs/docs/latest") == "2026-11-23T020000Z"
    link = top / "sets" / rig.backup_set.set_id
    assert os.readlink(link) == "../jobs/docs/2026-11-23T020000Z"
    assert link.resolve() == (top / "jobs/docs/latest").resolve()
    assert stat.S_IMODE((top / "tapes").stat().st_mode) == 0o700
    assert (top / "jobs/docs/latest/..").stat().st_ino == (top / "jobs/docs").stat().st_ino


def test_a_tape_tells_how_to_read_it(rig: Rig) -> None:
    folder = rig.mount.path / "tapes/TAP001L9"
    assert sorted(os.listdir(folder)) == ["CONTENTS.txt", "docs-2026-11-23T020000Z"]
    assert (folder / "docs-2026-11-23T020000Z" / str(rig.source).lstrip("/")).resolve() == rig.root.resolve()
    text = (folder / "CONTENTS.txt").read_text()
    assert rig.backup_set.set_id in text
    assert all(segment_id in text for segment_id in rig.shelf.segments)
    assert "mt -f /dev/nst0 fsf 3\n" in text
    assert "dd if=/dev/nst0 bs=1M | zstd -dc | tar" in text


def test_a_new_set_appears_at_once_and_a_running_one_never(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/file").write_text("new")
    assert "other" not in os.listdir(rig.mount.path / "jobs")
    rig.shelf.add_set(tmp_path / "new", name="other", complete=False)
    time.sleep(0.05)
    assert "other" not in os.listdir(rig.mount.path / "jobs")
    backup_set = rig.shelf.add_set(tmp_path / "new", name="other")
    time.sleep(0.05)
    # The running one has that second's name, and keeps it.
    assert sorted(os.listdir(rig.mount.path / "jobs/other")) == ["2026-11-23T020000Z-2", "latest"]
    assert backup_set.set_id in os.listdir(rig.mount.path / "sets")
    rig.shelf.stage_all()
    assert (rig.mount.path / "jobs/other/latest" / str(tmp_path).lstrip("/") / "new/file").read_text() == "new"


def test_statfs(rig: Rig) -> None:
    sizes = os.statvfs(rig.root)
    assert sizes.f_blocks * sizes.f_frsize >= rig.backup_set.bytes > 0
    assert (sizes.f_bfree, sizes.f_bavail, sizes.f_ffree) == (0, 0, 0)
    assert sizes.f_files >= rig.backup_set.files
    assert sizes.f_namemax == 255
    assert sizes.f_flag & os.ST_RDONLY


def test_mount_options(rig: Rig) -> None:
    line = next(line for line in Path("/proc/mounts").read_text().splitlines() if str(rig.mount.path) in line)
    device, _, kind, options, *_ = line.split()
    assert (device, kind) == ("tapefs", "fuse.tapefs")
    assert {"ro", "nosuid", "nodev", "default_permissions"} <= set(options.split(","))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_permissions_are_those_of_the_source(evicted: Rig) -> None:
    evicted.shelf.stage_all()
    program = (
        "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try: open(path, 'rb').read(1); print('read')\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    paths = [evicted.root / "text", evicted.root / "small/file-001", evicted.mount.path / "tapes/TAP001L9/CONTENTS.txt"]
    answer = subprocess.run(["python3", "-c", program, *map(str, paths)], capture_output=True, text=True)
    assert answer.stdout.splitlines() == ["Permission denied", "read", "Permission denied"]


class _Handle(ctypes.Structure):
    """struct file_handle with room for FUSE's."""

    _fields_ = (("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("handle", ctypes.c_ubyte * 128))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may open by handle")
def test_handles_as_nfs_uses_them(rig: Rig) -> None:
    """A handle outlives what the kernel remembers: it is looked up by `.`, and connected to the root by `..`."""
    libc = ctypes.CDLL(None, use_errno=True)
    root = os.open(rig.mount.path, os.O_RDONLY)
    try:
        for path in (rig.root / "deep/er/and/deeper", rig.root / "deep/er", rig.root / "text", rig.mount.path / "jobs"):
            inode = path.stat().st_ino
            handle, mount_id = _Handle(bytes=128), ctypes.c_int()
            named = libc.name_to_handle_at(root, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0)
            assert named == 0, os.strerror(ctypes.get_errno())
            Path("/proc/sys/vm/drop_caches").write_text("2")
            opened = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
            assert opened >= 0, os.strerror(ctypes.get_errno())
            assert os.fstat(opened).st_ino == inode
            if path.is_dir():
                assert os.listdir(opened) == os.listdir(path)
            os.close(opened)
    finally:
        os.close(root)
