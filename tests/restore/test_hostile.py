"""Names that want out, links in the way, others at work in the target, disks that are full."""

import ctypes
import errno
import multiprocessing
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tapefs.errors import UsageError
from tapefs.restore import beneath, writer
from tests.restore.archive import Archive, Dir, File, Link, expected, noise, seen

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do that")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder that nothing may touch."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_bytes(b"precious")
    before = seen(folder), folder.stat().st_mtime_ns
    yield folder
    assert (seen(folder), folder.stat().st_mtime_ns) == before


HOSTILE = [
    b"",
    b".",
    b"..",
    b"/",
    b"/etc/passwd",
    b"../outside/new",
    b"../../outside/new",
    b"a/../../outside/new",
    b"a//b",
    b"a/",
    b"/a",
    b"a\0b",
    b"\0",
    b"x" * 256,
    b"x" * 5000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name[:20]))
@pytest.mark.parametrize("node", [File(b"evil"), File(noise(50)), Link(b"/etc"), Dir({b"inner": File(b"evil")})])
def test_hostile_names_are_refused_and_the_rest_is_restored(bring_back, target, outside, name, node):
    tree = Dir({b"good": File(b"1"), b"d": Dir({b"first": File(b"2"), name: node, b"zz": File(b"3")})})
    report = bring_back(Archive(tree))
    assert report.failed == 1
    assert not report.is_complete
    found = seen(target)
    assert found.keys() == {b"good", b"d", b"d/first", b"d/zz"}
    assert seen(target.parent).keys() >= {b"target", b"outside"}


def test_a_directory_that_contains_itself(bring_back, target):
    archive = Archive(Dir({b"a": Dir({b"b": Dir({b"file": File(b"1")})})}))
    archive.change_entry(b"b", offset=1)
    report = bring_back(archive)
    assert report.failed == 1
    assert "contains itself" in report.troubles[0].reason


def test_a_directory_that_the_index_does_not_have(bring_back, target):
    archive = Archive(Dir({b"a": Dir(), b"good": File(b"1")}))
    archive.change_entry(b"a", offset=99)
    report = bring_back(archive)
    assert report.failed == 1
    assert seen(target).keys() == {b"good"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_links_planted_in_the_target_are_not_followed(bring_back, target, outside, overwrite):
    (target / "usr").mkdir(parents=True)
    (target / "usr/share").symlink_to(outside)
    (target / "etc").symlink_to("../outside")
    (target / "loop").symlink_to("loop")
    (target / "precious").symlink_to(outside / "precious")
    tree = Dir(
        {
            b"usr": Dir({b"share": Dir({b"file": File(b"1"), b"d": Dir({b"x": File(b"2")})}), b"fine": File(b"3")}),
            b"etc": Dir({b"precious": File(b"4")}),
            b"loop": Dir({b"x": Link(b"y")}),
            b"precious": File(b"5"),
        }
    )
    report = bring_back(Archive(tree), overwrite=overwrite)
    assert report.failed >= 3
    assert {trouble.path for trouble in report.troubles} >= {b"usr/share", b"etc", b"loop"}
    assert (target / "usr/fine").read_bytes() == b"3"
    assert os.readlink(target / "usr/share") == str(outside)
    assert (target / "precious").is_symlink() != overwrite


def test_a_recorded_link_and_a_directory_of_the_same_name(bring_back, target, outside):
    """A hostile index has `d` as a link to the outside, and as a directory with a file in it."""
    archive = Archive(Dir({b"d": Link(os.fsencode(outside)), b"e": Dir({b"evil": File(b"evil")})}))
    archive.change_entry(b"e", name=b"d")
    report = bring_back(archive)
    assert report.failed == 1
    assert (target / "d").is_symlink()


def test_dangling_and_odd_links_come_back_as_links(bring_back, target):
    tree = Dir({b"a": Link(b"/nowhere"), b"b": Link(b"../../../.."), b"c": Link(b"\xff" * 4000)})
    assert bring_back(Archive(tree)).is_complete
    assert seen(target) == expected(tree)


def test_a_link_target_that_is_none(bring_back, target):
    report = bring_back(Archive(Dir({b"a": Link(b"x\0y"), b"b": Link(b""), b"c": Link(b"x" * 5000)})))
    assert report.failed == 3
    assert seen(target) == {}


def test_paths_deeper_than_the_system_takes(bring_back, target):
    tree = Dir({b"file": File(b"deepest")})
    for depth in range(60):
        tree = Dir({b"n" * 200: tree, b"file": File(b"%d" % depth)})
    try:
        report = bring_back(Archive(tree))
        assert report.is_complete
        assert (report.files, report.directories) == (61, 60)
        fd = os.open(target, os.O_RDONLY)
        for _ in range(60):
            inner = os.open(b"n" * 200, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = inner
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o755
        file = os.open("file", os.O_RDONLY, dir_fd=fd)
        assert os.read(file, 100) == b"deepest"
        os.close(file)
        os.close(fd)
    finally:
        # pytest's own way of removing it cannot go so deep.
        subprocess.run(["rm", "-rf", str(target)], check=True)


def swap_for_ever(target: Path, outside: Path, ready: Path, stop: Path) -> None:
    """Exchange directories of the target with links to the outside and back, as fast as possible."""
    renameat2 = ctypes.CDLL(None).renameat2
    here, exchange = -100, 2
    pairs = []
    for path in (target / "top", target / "top" / "d1", target / "top" / "d2"):
        link = target / f"link to {path.name}"
        link.symlink_to(outside)
        pairs.append((os.fsencode(path), os.fsencode(link)))
    ready.touch()
    while not stop.exists():
        for path, link in pairs:
            for _ in range(20):
                renameat2(here, path, here, link, exchange)


@pytest.mark.parametrize("kept_open", [1, 64])
@pytest.mark.parametrize("has_openat2", [True, False])
def test_a_racing_swap_of_directories_never_leads_out(
    bring_back, target, outside, tmp_path, monkeypatch, kept_open, has_openat2
):
    """With one directory kept open each file walks down anew: more chances for the swap."""
    monkeypatch.setattr(beneath, "_KEPT_OPEN", kept_open)
    if not has_openat2:
        monkeypatch.setattr(beneath, "_is_openat2_possible", lambda root: False)
    names = [b"%03d" % number for number in range(20)]
    shared = File(b"y" * 100, nlink=9, xattrs=((b"user.a", b"1"),))
    inner = {name: File(b"x" * 100) for name in names} | {b"l" + name: Link(b"x") for name in names}
    inner |= {b"f" + name: File(type=stat.S_IFIFO) for name in names} | {b"h": shared, b"precious": shared}
    archive = Archive(Dir({b"top": Dir({b"d1": Dir(inner | {b"e": Dir(inner)}), b"d2": Dir(inner)})}))
    assert bring_back(archive).is_complete
    ready, stop = tmp_path / "ready", tmp_path / "stop"
    process = multiprocessing.get_context("spawn").Process(target=swap_for_ever, args=(target, outside, ready, stop))
    process.start()
    disturbed = 0
    try:
        while not ready.exists():
            assert process.is_alive()
            time.sleep(0.01)
        begin_s = time.monotonic()
        # On a busy machine the other process may not run for a while.
        while (passed_s := time.monotonic() - begin_s) < 1.5 or (not disturbed and passed_s < 30):
            disturbed += bring_back(archive, overwrite=True).failed
    finally:
        stop.touch()
        process.join()
    # The `outside` fixture looks whether anything got there; this tells that the race took place.
    assert disturbed > 0


# -- targets that cannot be written ------------------------------------------------------------------------------------


def test_a_target_that_is_a_file(bring_back, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for where in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError):
            bring_back(Archive(Dir()), target=where)


def test_a_missing_target_is_made_with_its_parents_and_may_be_reached_by_a_link(bring_back, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert bring_back(Archive(Dir({b"a": File(b"1")})), target=tmp_path / "link/x/y").is_complete
    assert (tmp_path / "real/x/y/a").read_bytes() == b"1"


AS_NOBODY = """
import os, sys
import stat
from pathlib import Path
from tapefs.home import Home
from tapefs.settings.whole import Settings
from tapefs.restore import restore
from tapefs.errors import UsageError
from tests.restore.archive import *
# Everything is imported by now: the way to the modules may be closed to others.
os.setgroups([]); os.setgid(65534); os.setuid(65534)
top = Path(sys.argv[1])
home = Home(top / "home", Settings(format=1))
attributes = ((b"user.a", b"1"), (b"trusted.b", b"2"), (b"security.c", b"3"))
inner = {
    b"suid": File(b"1", mode=0o6755, uid=0, gid=0),
    b"l": Link(b"x", uid=0),
    b"closed": File(b"2", mode=0o400, uid=65534, gid=65534, xattrs=attributes),
    b"fifo": File(type=stat.S_IFIFO, uid=65534, gid=65534),
    b"disk": File(type=stat.S_IFBLK, rdev=2048),
    b"null": File(type=stat.S_IFCHR, rdev=259),
}
tree = Dir({b"d": Dir(inner, uid=0, gid=0, mode=0o2755)})
archive = Archive(tree)
with Mover(archive, home.staging) as mover:
    options = {"fetch": mover.fetch, "progress": lambda told: None}
    try:
        restore(home, archive, [], top / "closed", **options)
    except UsageError as error:
        assert "cannot write" in str(error), error
    else:
        raise SystemExit("wrote to a closed folder")
    report = restore(home, archive, [], top / "open", **options)
    plain = Archive(Dir({b"f": File(uid=0)}))
    assert restore(home, plain, [], top / "open", **options).is_complete
assert not report.is_complete, report
assert sorted((each.what, each.count, each.is_expected) for each in report.refusals) == [
    ("attributes security.*", 1, False),
    ("attributes trusted.*", 1, False),
    ("device nodes", 2, False),
    ("owners", 3, True),
    ("set-id bits", 2, True),
], report
assert (report.specials, report.failed, report.troubles) == (1, 0, ()), report
assert os.listxattr(top / "open/d/closed") == ["user.a"]
assert not os.path.lexists(top / "open/d/disk")
status = os.stat(top / "open/d/suid")
assert (status.st_uid, status.st_mode & 0o7777) == (65534, 0o755), status
assert os.stat(top / "open/d").st_mode & 0o7777 == 0o755
"""


@is_root
def test_as_somebody_else():
    """Owners are kept and said once, set-id bits go, a closed target is refused at once."""
    # Not tmp_path: pytest closes that to others.
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        top.chmod(0o755)
        for name in ("home", "home/staging", "open"):
            (top / name).mkdir()
            os.chown(top / name, 65534, 65534)
        (top / "closed").mkdir(mode=0o755)
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, folder], cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@is_root
def test_a_full_disk_ends_the_restore_with_whole_files_only(bring_back, small_disk):
    tree = Dir({b"d": Dir({b"%02d" % number: File(noise(90_000, number)) for number in range(40)}, mode=0o711)})
    report = bring_back(Archive(tree), target=small_disk)
    assert "No space left" in report.stopped
    assert not report.is_complete
    assert 5 < report.files < 12
    found, wanted = seen(small_disk), expected(tree)
    assert len(found) == report.files + 1
    # Whole files, nothing half, no temporary name; the directory is finished.
    assert all(wanted[path] == what for path, what in found.items())


@is_root
def test_a_file_system_without_the_flag_of_rename(bring_back, target, monkeypatch):
    """Then a link takes its place, and does not replace anything either."""

    class Old:
        syncfs = writer._libc.syncfs

        def renameat2(self, *_: object) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(writer, "_libc", Old())
    target.mkdir()
    (target / "mine").write_bytes(b"mine")
    tree = Dir({b"mine": File(b"theirs"), b"new": File(b"1"), b"link": Link(b"x"), b"d": Dir({b"e": File(b"2")})})
    report = bring_back(Archive(tree))
    assert report.skipped == 1
    assert (target / "mine").read_bytes() == b"mine"
    found = seen(target)
    assert {path: found[path] for path in (b"new", b"link", b"d/e")} == {
        path: what for path, what in expected(tree).items() if path in (b"new", b"link", b"d/e")
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can do that")
def test_a_set_of_others_gives_no_rights(bring_back, target):
    """No set-id bits, capabilities, attributes of the system's, devices; each is told. All else is as recorded."""
    capable = bytes.fromhex("0100000200040000000000000000000000000000")
    tree = Dir(
        {
            b"program": File(b"#!", mode=0o6755, uid=12, gid=34, xattrs=((b"security.capability", capable),)),
            b"trusted": File(b"x", xattrs=((b"trusted.overlay.opaque", b"y"), (b"user.mine", b"z"))),
            b"disk": File(type=stat.S_IFBLK, rdev=os.makedev(8, 0), mode=0o666),
            b"tty": File(type=stat.S_IFCHR, rdev=os.makedev(1, 1), mode=0o666),
            b"pipe": File(type=stat.S_IFIFO, mode=0o600),
            b"shared": Dir({b"empty": File(mode=0o4711)}, mode=0o2775),
        }
    )
    report = bring_back(Archive(tree), special=False)
    assert {each.what for each in report.refusals} == {
        "set-id bits", "attributes security.*", "attributes trusted.*", "device nodes",
    }  # fmt: skip
    assert not report.is_complete
    assert sorted(os.listdir(target)) == ["pipe", "program", "shared", "trusted"]
    program = os.stat(target / "program")
    assert (stat.S_IMODE(program.st_mode), program.st_uid, program.st_gid) == (0o755, 12, 34)
    assert os.listxattr(target / "program") == []
    assert os.listxattr(target / "trusted") == ["user.mine"]
    assert stat.S_IMODE(os.stat(target / "shared/empty").st_mode) == 0o711
    assert stat.S_IMODE(os.stat(target / "shared").st_mode) == 0o2775
    again = bring_back(Archive(tree), target=target / "more")
    assert again.is_complete
    assert stat.S_IMODE(os.stat(target / "more/program").st_mode) == 0o6755
