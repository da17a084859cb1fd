"""Hardlinks, holes, attributes, ACLs and special files: through the mount they are what they are on the source.

Each test runs over a full set and over one that builds on another and shares most of its directories.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tapefs.staging.area import StagingArea
from tests.mount.expect import fails_with
from tests.mount.fake_sidecar import FakeSidecar
from tests.mount.mount_process import Mounted, mounted
from tests.vfs.shelf import FRAME_BYTES, Shelf

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make these files"),
]

#: Two users that own nothing here.
NAMED, OTHER = 4242, 4343


@dataclass
class Kinds:
    """A source with every kind of file, archived twice, and mounted."""

    shelf: Shelf
    sidecar: FakeSidecar
    mount: Mounted
    source: Path

    def root(self, name: str) -> Path:
        return self.mount.path / "jobs" / name / "latest" / str(self.source).lstrip("/")


def make_source(source: Path) -> None:
    chance = random.Random(5)
    for folder in ("links/deep", "sparse", "acls/closed", "acls/default", "xattrs", "special", "plain"):
        (source / folder).mkdir(parents=True)
    for number in range(20):
        (source / f"plain/{number}").write_bytes(chance.randbytes(500))
    make_links(source / "links")
    make_sparse(source / "sparse", chance)
    make_acls(source / "acls")
    make_xattrs(source / "xattrs", chance)
    os.mkfifo(source / "special/fifo", 0o620)
    os.mknod(source / "special/char", stat.S_IFCHR | 0o640, os.makedev(4095, 1_048_575))
    os.mknod(source / "special/block", stat.S_IFBLK | 0o600, os.makedev(7, 42))
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(source / "special/socket"))


def make_links(folder: Path) -> None:
    (folder / "b").write_text("three names")
    os.link(folder / "b", folder / "a")
    os.link(folder / "b", folder / "deep/c")
    (folder / "fifo").touch()
    os.symlink("nowhere", folder / "symlink")
    os.link(folder / "symlink", folder / "deep/symlink", follow_symlinks=False)
    (folder / "alone").write_text("one name")


def make_sparse(folder: Path, chance: random.Random) -> None:
    block = chance.randbytes(4096)
    layouts = {
        "middle": (1_000_000, [0, 400_000]),
        "start": (500_000, [450_000]),
        "end": (3_000_000, [0]),
        "hollow": (2_000_000, []),
        "comb": (200 * 16_384, [16_384 * at for at in range(200)]),
        "large": (1 << 40, [1 << 39]),
    }
    for name, (size, places) in layouts.items():
        with (folder / name).open("wb") as file:
            file.truncate(size)
            for at in places:
                os.pwrite(file.fileno(), block, at)
            # Written back later, it might take another number of blocks.
            os.fsync(file.fileno())
    os.link(folder / "middle", folder / "middle-too")


def make_acls(folder: Path) -> None:
    for name, acl in {
        "named": f"u::rw,u:{NAMED}:r,g::-,m::r,o::-",
        "masked": f"u::rw,u:{NAMED}:rw,g::rw,m::-,o::-",
        "group": f"u::rw,g::-,g:{NAMED}:r,m::r,o::-",
        "forbidden": f"u::rw,u:{NAMED}:-,g::r,m::r,o::r",
        "plain": "u::rw,g::r,o::-",
    }.items():
        (folder / name).write_text(name)
        os.setxattr(folder / name, "user.note", name.encode())
        setfacl(acl, folder / name)
    (folder / "closed/file").write_text("closed")
    setfacl(f"u::rwx,u:{NAMED}:x,g::-,m::x,o::-", folder / "closed")
    setfacl(f"u::rwx,u:{NAMED}:rx,g::rx,m::rx,o::-,d:u::rwx,d:u:{OTHER}:r,d:g::r,d:m::r,d:o::-", folder / "default")
    (folder / "default/heir").write_text("heir")


def setfacl(acl: str, path: Path) -> None:
    subprocess.run(["setfacl", "--set", acl, str(path)], check=True)


def make_xattrs(folder: Path, chance: random.Random) -> None:
    for name in ("file", "twin", "status"):
        (folder / name).write_text(name)
    (folder / "folder").mkdir()
    os.symlink("file", folder / "link")
    os.setxattr(folder / "file", "user.text", b"value")
    os.setxattr(folder / "file", "user.empty", b"")
    os.setxattr(folder / "file", b"user.\xff\xfe", chance.randbytes(2000))
    os.setxattr(folder / "file", "trusted.secret", b"secret")
    os.setxattr(folder / "folder", "user.folder", b"of a folder")
    os.setxattr(folder / "folder", "trusted.folder", b"secret")
    os.setxattr(folder / "link", "trusted.link", b"of a link", follow_symlinks=False)
    os.setxattr(folder / "status", "user.status", b"draft")
    os.link(folder / "file", folder / "twin-of-file")
    subprocess.run(["setcap", "cap_net_raw+ep", str(folder / "twin")], check=True)


def change(source: Path) -> None:
    """What the second set finds changed; the other directories are shared."""
    (source / "plain/3").unlink()
    (source / "plain/new").write_text("new")
    (source / "links/alone").write_text("changed, and its neighbours are not")
    os.setxattr(source / "xattrs/folder", "user.folder", b"changed")


@pytest.fixture(scope="module")
def kinds() -> Iterator[Kinds]:
    # pytest's folders are closed to others, and the archive would show them so.
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield from _kinds(Path(name))


def _kinds(folder: Path) -> Iterator[Kinds]:
    source = folder / "source"
    make_source(source)
    shelf = Shelf(folder / "home")
    sidecar = FakeSidecar(shelf).start()
    try:
        first = shelf.add_set(source, name="chained")
        change(source)
        shelf.add_set(source, name="chained", base=first, started_at_ns=first.started_at_ns + 10**9)
        shelf.add_set(source, name="full")
        with mounted(shelf.home.path, folder / "mnt", folder / "log") as mount:
            yield Kinds(shelf, sidecar, mount, source)
    finally:
        sidecar.stop()
        shelf.close()


@pytest.fixture(params=["full", "chained"])
def root(request: pytest.FixtureRequest, kinds: Kinds) -> Path:
    """The mounted source, all of it staged."""
    kinds.shelf.stage_all()
    return kinds.root(request.param)


@pytest.fixture
def cold(root: Path, kinds: Kinds) -> Path:
    """The same with nothing staged."""
    StagingArea(kinds.shelf.home.staging).evict_all()
    kinds.sidecar.waiters.clear()
    return root


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="surrogateescape", timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def differences(one: Path, other: Path) -> str:
    """What rsync would do to make `other` like `one`, content and all."""
    command = ["rsync", "-aHAXnic", "--delete", "--exclude=large", f"{one}/", f"{other}/"]
    return run(*command, cwd=one)


# -- the whole, by foreign tools -------------------------------------------------------------------------------------


def test_rsync_finds_no_difference(kinds: Kinds, root: Path) -> None:
    assert differences(root, kinds.source) == ""
    assert differences(kinds.source, root) == ""


def test_rsync_would_find_one(kinds: Kinds, tmp_path: Path) -> None:
    """The comparison that the other tests rest on sees attributes, ACLs, links and content."""
    subprocess.run(["cp", "-a", "--sparse=always", f"{kinds.source}/.", str(tmp_path)], check=True)
    assert differences(kinds.source, tmp_path) == ""
    os.setxattr(tmp_path / "xattrs/file", "user.text", b"other")
    setfacl("u::rw,g::r,o::r", tmp_path / "acls/named")
    (tmp_path / "links/a").unlink()
    (tmp_path / "links/a").write_text("three names")
    with (tmp_path / "sparse/comb").open("r+b") as file:
        file.seek(70_000)
        file.write(b"x")
    lines = differences(kinds.source, tmp_path).splitlines()
    changed = {line.split(maxsplit=1)[1].split(" =>")[0] for line in lines}
    assert {"xattrs/file", "acls/named", "sparse/comb"} <= changed
    # Which of the names it tells depends on which it came by first.
    assert {"links/a", "links/b", "links/deep/c"} & changed


def test_acls_and_attributes_are_those_of_the_source(kinds: Kinds, root: Path) -> None:
    for command in (
        ["getfacl", "-R", "-n", "-p", "."],
        ["getfattr", "-R", "-h", "-d", "-m", "-", "."],
        ["getcap", "-r", "."],
    ):
        found = run(*command, cwd=root)
        assert sorted(found.split("\n\n")) == sorted(run(*command, cwd=kinds.source).split("\n\n")), command
        assert len(found) > 20


def test_cp_makes_the_same_tree(kinds: Kinds, root: Path, tmp_path: Path) -> None:
    subprocess.run(["rsync", "-a", "--exclude=large", f"{root}/plain", str(tmp_path)], check=True)
    for folder in ("links", "acls", "xattrs", "special"):
        subprocess.run(["cp", "-a", "--sparse=always", f"{root}/{folder}", str(tmp_path)], check=True, timeout=60)
    (tmp_path / "sparse").mkdir()
    names = [str(path) for path in (root / "sparse").iterdir() if path.name != "large"]
    subprocess.run(["cp", "-a", "--sparse=always", *names, str(tmp_path / "sparse")], check=True, timeout=60)
    for folder in ("links", "acls", "xattrs", "special", "plain"):
        assert differences(kinds.source / folder, tmp_path / folder) == ""
    for name in ("middle", "start", "end", "hollow", "comb"):
        made, wanted = (tmp_path / "sparse" / name), (kinds.source / "sparse" / name)
        assert made.read_bytes() == wanted.read_bytes()
        assert made.stat().st_blocks <= wanted.stat().st_blocks


def test_tar_takes_everything_along(kinds: Kinds, root: Path, tmp_path: Path) -> None:
    keep = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--exclude=large", "--exclude=socket"]
    archive = tmp_path / "all.tar"
    subprocess.run(["tar", *keep, "-cf", str(archive), "-C", str(root), "."], check=True, timeout=60)
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["tar", *keep, "-xpf", str(archive), "-C", str(target)], check=True, timeout=60)
    wrong = [line for line in differences(kinds.source, target).splitlines() if "special/socket" not in line]
    # tar sets no time of a folder to which rsync would add the socket.
    assert [line for line in wrong if not line.startswith(".d..t")] == []


# -- hardlinks -------------------------------------------------------------------------------------------------------


def test_all_names_of_a_file_are_one_inode(kinds: Kinds, root: Path) -> None:
    for names in (("links/a", "links/b", "links/deep/c"), ("links/symlink", "links/deep/symlink"),
                  ("sparse/middle", "sparse/middle-too"), ("xattrs/file", "xattrs/twin-of-file")):  # fmt: skip
        found = {os.lstat(root / name).st_ino for name in names}
        assert len(found) == 1
        listed = run("find", ".", "-printf", "%P %i\n", cwd=root).splitlines()
        assert {int(line.split()[1]) for line in listed if line.split()[0] in names} == found
        for name in names:
            wanted, got = os.lstat(kinds.source / name), os.lstat(root / name)
            assert (got.st_nlink, got.st_ctime_ns, got.st_size) == (wanted.st_nlink, wanted.st_ctime_ns, wanted.st_size)
    assert (root / "links/deep/c").read_text() == "three names"
    sizes = [run("du", "-s", "links", cwd=top).split()[0] for top in (root, kinds.source)]
    assert sizes[0] == sizes[1]


def test_inodes_are_the_same_in_the_next_mount(kinds: Kinds, root: Path, tmp_path: Path) -> None:
    """Found by a listing there, by single look-ups here."""
    listed = run("find", ".", "-printf", "%p\t%i\t%s\n", cwd=root)
    with mounted(kinds.shelf.home.path, tmp_path / "mnt", tmp_path / "log") as mount:
        again = mount.path / root.relative_to(kinds.mount.path)
        for line in listed.splitlines():
            name, inode, _ = line.split("\t")
            assert os.lstat(again / name).st_ino == int(inode)
        assert run("find", ".", "-printf", "%p\t%i\t%s\n", cwd=again) == listed


# -- holes -----------------------------------------------------------------------------------------------------------

SPARSE = ["middle", "start", "end", "hollow", "comb", "middle-too"]


@pytest.mark.parametrize("staged", [True, False])
def test_sparse_files_read_as_they_are(kinds: Kinds, root: Path, staged: bool) -> None:
    if not staged:
        StagingArea(kinds.shelf.home.staging).evict_all()
    chance = random.Random(1)
    for name in SPARSE:
        wanted = (kinds.source / "sparse" / name).read_bytes()
        with open(root / "sparse" / name, "rb", buffering=0) as file:
            for _ in range(40):
                at, length = chance.randrange(len(wanted) + 9), chance.choice([1, 4096, 5000, 200_000])
                assert os.pread(file.fileno(), length, at) == wanted[at : at + length], (name, at, length)
        assert (root / "sparse" / name).read_bytes() == wanted


def test_blocks_are_the_recorded_ones(kinds: Kinds, root: Path) -> None:
    for name in [*SPARSE, "large"]:
        assert (root / "sparse" / name).stat().st_blocks == (kinds.source / "sparse" / name).stat().st_blocks
    with open(root / "sparse/large", "rb") as file:
        for at in (0, 1 << 39, (1 << 39) + 4090, (1 << 40) - 10):
            with open(kinds.source / "sparse/large", "rb") as source:
                assert os.pread(file.fileno(), 20, at) == os.pread(source.fileno(), 20, at)


def test_only_data_is_fetched(kinds: Kinds, cold: Path) -> None:
    """Of the comb's 3.2 MB a quarter is data: as many frames, and none for a hole or a file without data."""
    assert os.getxattr(cold / "sparse/hollow", "user.tapefs.state") == b"online"
    assert (cold / "sparse/hollow").read_bytes() == bytes(2_000_000)
    with open(cold / "sparse/end", "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 100_000, 2_000_000) == bytes(100_000)
    assert kinds.sidecar.waiters == []
    assert os.getxattr(cold / "sparse/comb", "user.tapefs.state") == b"nearline"
    assert (cold / "sparse/comb").read_bytes() == (kinds.source / "sparse/comb").read_bytes()
    frames = {
        (each["segment"], frame)
        for each in kinds.sidecar.waiters
        for frame in range(int(str(each["first"])), int(str(each["last"])) + 1)
    }
    data = 200 * 4096
    assert data // FRAME_BYTES <= len(frames) <= data // FRAME_BYTES + 2


def test_an_open_sparse_file_is_pinned(kinds: Kinds, root: Path) -> None:
    with open(root / "sparse/comb", "rb", buffering=0) as file:
        StagingArea(kinds.shelf.home.staging).evict_all()
        kinds.sidecar.waiters.clear()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == (kinds.source / "sparse/comb").read_bytes()
        assert kinds.sidecar.waiters == []


# -- attributes and ACLs ---------------------------------------------------------------------------------------------


def test_our_attributes_are_not_listed(root: Path) -> None:
    assert os.listxattr(root / "plain/1") == []
    assert os.getxattr(root / "plain/1", "user.tapefs.state") == b"online"
    assert os.getxattr(root / "plain/1", "user.status") == b"ONLINE_AND_NEARLINE"
    assert os.listxattr(root / "xattrs/status") == ["user.status"]
    assert os.getxattr(root / "xattrs/status", "user.status") == b"draft"
    with fails_with(errno.ENODATA):
        os.getxattr(root / "sparse/middle", "user.tapefs.sha256")
    with fails_with(errno.ENODATA):
        os.getxattr(root / "xattrs/file", "user.none")


def as_user(uid: int, gid: int, program: str, *paths: Path) -> list[str]:
    """Run a line of Python for each path as that user; return what it gave, or the error."""
    code = (
        f"import os, sys; os.setgroups([]); os.setgid({gid}); os.setuid({uid})\n"
        "for path in sys.argv[1:]:\n"
        f"    try: print({program})\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    command = [sys.executable, "-c", code, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


NAMES = ["named", "masked", "group", "forbidden", "plain", "closed/file", "default/heir"]
READ = "open(path).read()"


def test_the_kernel_enforces_acls(root: Path) -> None:
    paths = [root / "acls" / name for name in NAMES]
    no = "Permission denied"
    assert as_user(NAMED, 9, READ, *paths) == ["named", no, no, no, no, "closed", no]
    assert as_user(OTHER, 9, READ, *paths) == [no, no, no, "forbidden", no, no, no]
    assert as_user(OTHER, NAMED, READ, *paths) == [no, no, "group", "forbidden", no, no, no]


@pytest.mark.parametrize(("uid", "gid"), [(NAMED, NAMED), (NAMED, 0), (OTHER, 0), (OTHER, OTHER), (0, 0)])
def test_everybody_may_read_what_he_could_read_on_the_source(kinds: Kinds, root: Path, uid: int, gid: int) -> None:
    paths = [Path("acls") / name for name in [*NAMES, "closed", "default", "."]]
    programs = [READ, "sorted(os.listdir(path))", "os.access(path, os.X_OK)"]
    programs += ["os.getxattr(path, 'user.note')", "sorted(os.listxattr(path))"]
    for program in programs:
        answers = [as_user(uid, gid, program, *(top / path for path in paths)) for top in (root, kinds.source)]
        assert answers[0] == answers[1]


def test_trusted_attributes_are_for_administrators(root: Path) -> None:
    path = root / "xattrs/file"
    public = sorted(["user.empty", "user.text", os.fsdecode(b"user.\xff\xfe")])
    assert sorted(os.listxattr(path)) == ["trusted.secret", *public]
    assert as_user(OTHER, OTHER, "len(os.listxattr(path))", path) == ["3"]
    assert as_user(OTHER, OTHER, "os.getxattr(path, 'trusted.secret')", path) == ["No data available"]
    assert as_user(OTHER, OTHER, "os.listxattr(path)", root / "xattrs/folder") == ["['user.folder']"]


# -- special files ---------------------------------------------------------------------------------------------------


def test_special_files(kinds: Kinds, root: Path) -> None:
    for name in ("fifo", "char", "block", "socket"):
        wanted, found = (os.lstat(top / "special" / name) for top in (kinds.source, root))
        assert (found.st_mode, found.st_rdev, found.st_size) == (wanted.st_mode, wanted.st_rdev, wanted.st_size)
        with fails_with(errno.ENODATA):
            os.getxattr(root / "special" / name, "user.tapefs.state", follow_symlinks=False)
