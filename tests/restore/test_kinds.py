"""Holes, hardlinks, device nodes, attributes: what is more than names and bytes."""

import errno
import os
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.index.model import EntryFlag, Extent
from tapefs.restore import beneath, links, writer
from tests.compare.look import look
from tests.restore.archive import Archive, Dir, File, Link, expected, noise, seen, segment_id

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do that")

MIB = 1024**2


def with_holes(size: int, *data: tuple[int, int], **options: object) -> File:
    content = bytearray(size)
    for number, (at, length) in enumerate(data):
        content[at : at + length] = noise(length, number)
    return File(bytes(content), data=data, **options)


def runs(path: Path) -> tuple[tuple[int, int], ...]:
    return look(path.parent)[os.fsencode(path.name)].data


# -- holes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    [
        with_holes(MIB),
        with_holes(MIB, (0, 4096)),
        with_holes(MIB, (MIB - 4096, 4096)),
        with_holes(10 * MIB, (4096, 8192), (MIB, 3 * MIB), (9 * MIB, 4096)),
        with_holes(2 * MIB, *((at, 4096) for at in range(0, 2 * MIB, 16384))),
    ],
    ids=["all hole", "end", "beginning", "several", "many"],
)
def test_holes_come_back_where_they_were(bring_back, target, file):
    tree = Dir({b"a": File(noise(3000)), b"sparse": file, b"z": File(noise(3000, 1))})
    report = bring_back(Archive(tree, frame_bytes=100_000))
    assert report.is_complete
    assert seen(target) == expected(tree)
    assert runs(target / "sparse") == file.data
    assert report.bytes == len(file.content) + 6000


def test_zeros_that_are_no_hole_are_written(bring_back, target):
    """Also when the file took less room than its size, as on a file system that compresses."""
    tree = Dir({b"zeros": File(bytes(300_000), blocks=8), b"data": with_holes(MIB, (0, 4096))})
    tree.children[b"data"] = File(bytes(MIB), data=((0, 65536),))
    assert bring_back(Archive(tree)).is_complete
    # A run may end at the next block of the file system.
    assert runs(target / "zeros") == ((0, 300_000),)
    assert runs(target / "data") == ((0, 65536),)


def test_a_file_that_is_split_and_has_holes(bring_back, target):
    file = with_holes(10 * MIB, (0, 8192), (3 * MIB, 2 * MIB), (9 * MIB, 4096), split_at=(4 * MIB, 6 * MIB, 7 * MIB))
    tree = Dir({b"both": file, b"z": File(b"1")})
    archive = Archive(tree, frame_bytes=100_000)
    assert len(archive.streams) == 4
    assert bring_back(archive).is_complete
    assert seen(target) == expected(tree)
    assert runs(target / "both") == file.data


def test_a_sparse_file_that_was_damaged_on_the_way_is_fetched_again(bring_back, target, mover):
    file = with_holes(MIB, (4096, 40_960), (512 * 1024, 40_960))
    archive = Archive(Dir({b"sparse": file}))
    asked = mover(archive)
    asked.damaged = {(segment_id(0), 6): 1}
    assert bring_back(archive, mover=asked).is_complete
    assert (target / "sparse").read_bytes() == file.content
    assert runs(target / "sparse") == file.data


def test_the_checksum_of_a_sparse_file_is_looked_at(bring_back, target):
    tree = Dir({b"sparse": with_holes(MIB, (4096, 8192), sha256=bytes(32)), b"good": File(b"1")})
    assert bring_back(Archive(tree)).damaged == 1
    assert seen(target).keys() == {b"good"}


@pytest.mark.parametrize(
    "extents",
    [
        [Extent(MIB - 10, 20, 0, 512)],
        [Extent(0, 1 << 62, 0, 512)],
        [Extent(1 << 70, 10, 0, 512)],
        [Extent(8192, 100, 0, 512), Extent(0, 100, 0, 612)],
        [Extent(0, 100, 0, 512), Extent(50, 100, 0, 612)],
        [Extent(0, 0, 0, 512)],
        [Extent(0, -5, 0, 512)],
        [Extent(-5, 100, 0, 512)],
        [Extent(0, 100, 0, 1 << 50)],
        [Extent(0, 100, 7, 512)],
    ],
)
def test_extents_that_do_not_lie_in_the_file(bring_back, target, extents):
    archive = Archive(Dir({b"sparse": with_holes(MIB, (0, 4096)), b"good": File(b"1")}))
    archive.change_extents(extents)
    if extents[0].segment:
        archive.streams.append(bytearray())
        archive.change_extents([extents[0]._replace(segment=1)])
    report = bring_back(archive)
    assert report.damaged + report.failed == 1
    assert seen(target).keys() == {b"good"}


@pytest.mark.parametrize("size", [1 << 60, (1 << 63) - 1, 1 << 63, 1 << 64, 1 << 80])
def test_absurd_sizes_are_reported_not_allocated(bring_back, target, size):
    archive = Archive(Dir({b"sparse": with_holes(MIB, (0, 4096)), b"empty": with_holes(MIB), b"good": File(b"1")}))
    archive.change_entry(b"sparse", size=size)
    archive.change_entry(b"empty", size=size)
    report = bring_back(archive)
    assert report.failed == 2
    assert not report.stopped
    assert seen(target).keys() == {b"good"}


# -- hardlinks ---------------------------------------------------------------------------------------------------------


def linked_tree() -> tuple[Dir, dict[bytes, set[bytes]]]:
    content = File(noise(30_000), nlink=4, xattrs=((b"user.a", b"shared"),))
    empty, holes = File(nlink=2), with_holes(MIB, (4096, 8192), nlink=2)
    symlink, fifo = Link(b"x", nlink=2), File(type=stat.S_IFIFO, nlink=2)
    first = {b"a": content, b"b": content, b"empty": empty, b"holes": holes, b"link": symlink, b"pipe": fifo}
    second = {b"c": content, b"empty, too": empty, b"holes, too": holes, b"link, too": symlink, b"pipe, too": fifo}
    tree = Dir({b"one": Dir(first), b"two": Dir(second), b"zz": content, b"alone": File(b"alone", nlink=3)})
    groups = {
        b"one/a": {b"one/a", b"one/b", b"two/c", b"zz"},
        b"one/empty": {b"one/empty", b"two/empty, too"},
        b"one/holes": {b"one/holes", b"two/holes, too"},
        b"one/link": {b"one/link", b"two/link, too"},
        b"one/pipe": {b"one/pipe", b"two/pipe, too"},
        b"alone": {b"alone"},
    }
    return tree, groups


def groups_at(target: Path) -> dict[bytes, set[bytes]]:
    return {path: set(found.names) for path, found in look(target).items()}


def test_names_of_one_file_are_one_file_again(bring_back, target):
    tree, groups = linked_tree()
    report = bring_back(Archive(tree))
    assert report.is_complete
    found = groups_at(target)
    assert {path: found[path] for path in groups} == groups
    assert (report.links, report.files, report.specials) == (7, 4, 1)
    assert (target / "two/c").read_bytes() == noise(30_000)
    assert os.getxattr(target / "zz", "user.a") == b"shared"
    assert (target / "one/b").stat().st_mtime_ns == expected(tree)[b"one/b"][2]


@pytest.mark.parametrize("kept_open", [1, 64])
def test_a_part_without_the_first_name_has_content_and_its_links(bring_back, target, monkeypatch, kept_open):
    monkeypatch.setattr(beneath, "_KEPT_OPEN", kept_open)
    tree, _ = linked_tree()
    report = bring_back(Archive(tree), b"two", b"one/b", b"one/pipe")
    assert report.is_complete
    found = groups_at(target)
    assert found[b"two/c"] == {b"two/c", b"one/b"}
    assert found[b"one/pipe"] == {b"one/pipe", b"two/pipe, too"}
    assert found[b"two/holes, too"] == {b"two/holes, too"}
    assert runs(target / "two/holes, too") == ((4096, 8192),)
    assert (target / "one/b").read_bytes() == noise(30_000)
    assert os.getxattr(target / "one/b", "user.a") == b"shared"
    assert os.readlink(target / "two/link, too") == "x"


def test_many_names_through_small_runs_of_the_scratch_file(bring_back, target, monkeypatch):
    """The names of 50 files with 10 names each, sorted in runs of 7."""
    monkeypatch.setattr(links.Links.__init__, "__defaults__", (7,))
    files = [File(noise(100, number), nlink=10) for number in range(50)]
    tree = Dir({b"%d" % copy: Dir({b"%02d" % n: file for n, file in enumerate(files)}) for copy in range(10)})
    report = bring_back(Archive(tree))
    assert (report.files, report.links, report.is_complete) == (50, 450, True)
    assert groups_at(target)[b"7/33"] == {b"%d/33" % copy for copy in range(10)}
    assert seen(target) == expected(tree)


def test_names_that_exist_are_left_alone_and_never_linked_to(bring_back, target):
    """The first name is somebody else's file: the next free one gets the content."""
    (target / "one").mkdir(parents=True, mode=0o755)
    (target / "one").chmod(0o755)
    (target / "one/a").write_bytes(b"mine")
    (target / "zz").write_bytes(b"mine, too")
    tree, _ = linked_tree()
    report = bring_back(Archive(tree))
    assert (report.skipped, report.damaged, report.failed) == (2, 0, 0)
    assert {trouble.path for trouble in report.troubles} == {b"one/a", b"zz"}
    assert (target / "one/a").read_bytes() == b"mine"
    assert groups_at(target)[b"one/b"] == {b"one/b", b"two/c"}


def test_overwriting_with_links(bring_back, target):
    tree, groups = linked_tree()
    assert bring_back(Archive(tree)).is_complete
    (target / "two/c").unlink()
    (target / "two/c").write_bytes(b"mine")
    assert bring_back(Archive(tree), overwrite=True).is_complete
    found = groups_at(target)
    assert {path: found[path] for path in groups} == groups


def test_links_to_what_could_not_be_restored(bring_back, target):
    content = File(noise(30_000), nlink=3, sha256=bytes(32))
    unreadable = File(noise(10), nlink=2, flags=EntryFlag.UNREADABLE)
    tree = Dir({b"a": content, b"b": content, b"c": content, b"u": unreadable, b"v": unreadable, b"x": File(b"1")})
    report = bring_back(Archive(tree))
    assert (report.damaged, report.failed, report.links) == (1, 4, 0)
    assert seen(target).keys() == {b"x"}


@pytest.mark.parametrize("number", [0, 5])
def test_a_link_to_something_else(bring_back, target, number):
    """A hostile index says that a file is another name of a link or of a directory."""
    file = File(noise(100), nlink=2)
    archive = Archive(Dir({b"0": Link(b"/etc/passwd"), b"a": file, b"b": file, b"c": File(b"1"), b"d": Dir()}))
    archive.change_link(4 if number == 5 else 0)
    report = bring_back(archive)
    assert report.damaged == 1
    assert seen(target).keys() == {b"0", b"a", b"c", b"d"}


def test_a_first_name_that_is_replaced_before_the_others_are_made(bring_back, target, monkeypatch):
    """Whatever has the name by then, it gets no further one."""
    file = File(noise(100), nlink=2)
    make_link = writer.SafeWriter.make_link

    def replaced(self, *arguments):
        (target / "new").write_bytes(b"somebody else's")
        (target / "new").rename(target / "a")
        make_link(self, *arguments)

    monkeypatch.setattr(writer.SafeWriter, "make_link", replaced)
    report = bring_back(Archive(Dir({b"a": file, b"b": file})))
    assert report.failed == 1
    assert "replaced" in report.troubles[0].reason
    assert seen(target).keys() == {b"a"}


def test_a_file_system_that_cannot_link_gets_copies(bring_back, target, monkeypatch):
    tree, _ = linked_tree()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    report = bring_back(Archive(tree))
    (refusal,) = report.refusals
    assert (refusal.what, refusal.count) == ("hardlinks", 5)
    assert not report.is_complete
    # A link and a fifo are not copied.
    assert report.failed == 2
    wanted = {path: what for path, what in expected(tree).items() if path not in (b"two/link, too", b"two/pipe, too")}
    assert seen(target) == wanted
    assert runs(target / "two/holes, too") == ((4096, 8192),)
    assert os.getxattr(target / "two/c", "user.a") == b"shared"


# -- fifos and devices -------------------------------------------------------------------------------------------------


@is_root
def test_fifos_and_devices(bring_back, target):
    null, disk = os.makedev(1, 3), os.makedev(259, 1_000_000)
    tree = Dir(
        {
            b"null": File(type=stat.S_IFCHR, rdev=null, mode=0o666),
            b"disk": File(type=stat.S_IFBLK, rdev=disk, mode=0o660, uid=1, gid=2, xattrs=((b"trusted.a", b"1"),)),
            b"fifo": File(type=stat.S_IFIFO, mode=0o6622, uid=1234, xattrs=((b"security.a", b"2"),)),
            b"whiteout": File(type=stat.S_IFCHR, mode=0),
        }
    )
    report = bring_back(Archive(tree))
    assert (report.specials, report.is_complete) == (4, True)
    assert seen(target) == expected(tree)
    assert (target / "null").stat().st_rdev == null
    assert (target / "disk").stat().st_rdev == disk
    assert os.getxattr(target / "disk", "trusted.a") == b"1"
    assert (target / "null").write_bytes(b"works") == 5


@is_root
@pytest.mark.parametrize("rdev", [1 << 31 | 1 << 52, 1 << 63, 1 << 64, 1 << 90])
def test_devices_that_do_not_exist(bring_back, target, rdev):
    """Numbers that do not fit are an error, never another device."""
    report = bring_back(Archive(Dir({b"odd": File(type=stat.S_IFBLK, rdev=rdev), b"good": File(b"1")})))
    assert report.failed == 1
    assert seen(target).keys() == {b"good"}


# -- attributes --------------------------------------------------------------------------------------------------------

ACL = struct.pack(
    "<I" + "HHI" * 5, 2, 1, 6, 0xFFFFFFFF, 2, 7, 1234, 4, 4, 0xFFFFFFFF, 16, 7, 0xFFFFFFFF, 32, 0, 0xFFFFFFFF
)
CAPABLE = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


@is_root
def test_attributes_acls_and_capabilities(bring_back, target):
    """In the order that keeps them: chown would take the capability away, chmod the ACL's mask."""
    plain = ((b"security.a", b"\0\xff"), (b"trusted.b", b""), (b"user.c", b"x" * 1000))
    tree = Dir(
        {
            b"capable": File(b"program", mode=0o4755, uid=12, gid=34, xattrs=((b"security.capability", CAPABLE),)),
            b"acl": File(b"1", mode=0o670, uid=12, xattrs=((b"system.posix_acl_access", ACL),)),
            b"all": File(noise(20_000), mode=0o400, xattrs=plain),
            b"link": Link(b"nowhere", xattrs=((b"trusted.of", b"a link"),)),
            b"dir": Dir(
                {b"inside": File(b"1"), b"below": Dir()},
                mode=0o2670,
                xattrs=((b"system.posix_acl_access", ACL), (b"system.posix_acl_default", ACL), *plain),
            ),
        }
    )
    report = bring_back(Archive(tree))
    assert (report.refusals, report.troubles) == ((), ())
    assert seen(target) == expected(tree)
    found = look(target)
    for path, node in {b"%s" % name: node for name, node in tree.children.items()}.items():
        assert found[path].xattrs == {os.fsdecode(name): value for name, value in node.xattrs}
    # They were not there yet when the default ACL of their directory was set, and had none.
    assert found[b"dir/inside"].xattrs == found[b"dir/below"].xattrs == {}
    shown = subprocess.run(["getfacl", "-cnp", target / "acl"], capture_output=True, text=True, check=True).stdout
    assert "user:1234:rwx" in shown
    assert "cap_net_raw" in subprocess.run(["getcap", target / "capable"], capture_output=True, text=True).stdout


@is_root
def test_acls_of_the_target_are_not_inherited(bring_back, target):
    target.mkdir()
    subprocess.run(["setfacl", "-m", "d:u:1234:rwx", target], check=True)
    (target / "there").mkdir()
    tree = Dir({b"f": File(b"1"), b"e": File(), b"p": File(type=stat.S_IFIFO), b"there": Dir({b"g": File(b"2")})})
    tree.children[b"d"] = Dir({b"inner": Dir({b"h": File(b"3")})})
    bring_back(Archive(tree), overwrite=True)
    assert {path: found.xattrs for path, found in look(target).items() if path != b"." and found.xattrs} == {}
    assert {path: what[0] for path, what in seen(target).items()} == {
        path: what[0] for path, what in expected(tree).items()
    }


@is_root
def test_overwriting_gives_a_directory_the_attributes_recorded_and_no_others(bring_back, target):
    (target / "d").mkdir(parents=True)
    os.setxattr(target / "d", "user.mine", b"1")
    os.setxattr(target / "d", "user.both", b"1")
    archive = Archive(Dir({b"d": Dir(xattrs=((b"user.both", b"2"), (b"user.new", b"3")))}))
    report = bring_back(archive)
    assert report.failed == 1
    assert os.listxattr(target / "d") == ["user.mine", "user.both"]
    assert bring_back(archive, overwrite=True).is_complete
    assert look(target)[b"d"].xattrs == {"user.both": b"2", "user.new": b"3"}
    assert bring_back(archive).is_complete


HOSTILE = [
    (b"", b"1"),
    (b"nonsense", b"1"),
    (b"user.", b"1"),
    (b"user.a\0b", b"1"),
    (b"user." + b"x" * 300, b"1"),
    (b"user.big", b"x" * 70_000),
    (b"\xff.\xff", b"1"),
    (b"system.unknown", b"1"),
    (b"system.posix_acl_access", b"no ACL"),
    (b"system.posix_acl_default", ACL),
    (b"security.capability", b"no capability"),
]


@is_root
@pytest.mark.parametrize("pair", HOSTILE, ids=lambda pair: repr(pair[0][:20]))
def test_attributes_that_are_refused_cost_nothing_else(bring_back, target, pair):
    pairs = (pair, (b"user.good", b"1"))
    tree = Dir({b"file": File(noise(100), mode=0o670, xattrs=pairs), b"other": File(b"1", xattrs=(pair,))})
    noted = []
    report = bring_back(Archive(tree), note=noted.append)
    (refusal,) = report.refusals
    assert (refusal.count, refusal.is_expected) == (2, False)
    assert (report.files, report.failed, report.damaged) == (2, 0, 0)
    assert not report.is_complete
    assert {trouble.path for trouble in noted} == {b"file", b"other"}
    assert look(target)[b"file"].xattrs == {"user.good": b"1"}
    # Nobody gets more rights than the ACL gave: this one cannot be read, so the group has none.
    mode = 0o600 if pair[0] == b"system.posix_acl_access" else 0o670
    assert stat.S_IMODE((target / "file").stat().st_mode) == mode


@pytest.fixture
def ramfs(tmp_path: Path) -> Iterator[Path]:
    """A file system without extended attributes."""
    folder = tmp_path / "ramfs"
    folder.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@is_root
def test_a_file_system_without_attributes(bring_back, ramfs):
    """Each kind is said once and counted; without its ACL the group gets what its own entry allowed."""
    files = {b"%02d" % n: File(b"1", mode=0o670, xattrs=((b"system.posix_acl_access", ACL),)) for n in range(30)}
    files |= {b"u%d" % n: File(b"1", xattrs=((b"user.a", b"1"),)) for n in range(5)}
    tree = Dir(
        files | {b"d": Dir(xattrs=((b"user.a", b"1"),)), b"c": File(xattrs=((b"security.capability", CAPABLE),))}
    )
    noted = []
    report = bring_back(Archive(tree), target=ramfs, note=noted.append)
    assert {(each.what, each.count, each.path) for each in report.refusals} == {
        ("ACLs", 30, b"00"),
        ("attributes user.*", 6, b"u0"),
        ("capabilities", 1, b"c"),
    }
    assert len(noted) == 37
    assert not report.is_complete
    assert stat.S_IMODE((ramfs / "00").stat().st_mode) == 0o640
    assert seen(ramfs).keys() == expected(tree).keys()
