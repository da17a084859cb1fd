import errno
import os
import stat

import pytest

from catalog.errors import CatalogError
from catalog.index.model import EntryFlag, Extent
from tapefs.errors import NoSuchThing, RecallTimedOut, Unreachable, UsageError
from tapefs.home import Home
from tapefs.restore import restore
from tapefs.restore.plan import Directories, roomy
from tapefs.restore.words import missing_of
from tapefs.settings.backup import StagingSettings
from tapefs.settings.whole import Settings
from tapefs.staging.area import StagingArea
from tests.restore.archive import (
    MTIME_NS,
    Archive,
    Dir,
    File,
    Link,
    UnlistableArchive,
    expected,
    noise,
    seen,
    segment_id,
)

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

ODD = bytes(value for value in range(1, 256) if value != ord("/"))

TREE = Dir(
    {
        b"readme": File(b"hello\n", mode=0o600),
        b"empty": File(mode=0o444),
        b"usr": Dir(
            {
                b"bin": Link(b"../elsewhere/bin", mtime_ns=MTIME_NS + 5),
                b"share": Dir(
                    {
                        b"a": File(noise(9_999), mtime_ns=1),
                        b"big": File(noise(123_457), mtime_ns=-1_000_000_001),
                        b"closed": Dir({b"inside": File(b"secret")}, mode=0o0),
                        b"sticky": Dir(mode=0o1777, mtime_ns=7),
                    },
                    mode=0o750,
                ),
            }
        ),
        b"odd": Dir(
            {
                ODD[:127]: File(b"low"),
                ODD[127:]: File(b"high"),
                b"\xff\xfe": Dir({b" ": File(b"blank"), b"\n": Link(b"\xff\n")}),
                b"x" * 255: File(b"long"),
                b"-rf": File(noise(512)),
                b"...": File(b"dots"),
            }
        ),
    }
)


@pytest.mark.parametrize("real", [False, True])
def test_a_tree_comes_back_as_it_was(bring_back, target, real):
    report = bring_back(Archive(TREE), real=real)
    assert report.troubles == ()
    assert report.is_complete
    assert seen(target) == expected(TREE)
    assert (report.files, report.directories, report.symlinks) == (11, 6, 2)
    assert report.bytes == sum(len(node) for node in _contents(TREE))


def _contents(node):
    for child in node.children.values():
        if isinstance(child, Dir):
            yield from _contents(child)
        elif isinstance(child, File):
            yield child.content


@is_root
def test_owners_and_set_id_bits(bring_back, target):
    tree = Dir(
        {
            b"suid": File(b"program", mode=0o4755, uid=1234, gid=5678),
            b"link": Link(b"nowhere", uid=1234, gid=5678),
            b"group": Dir({b"file": File(b"x", uid=1, gid=2)}, mode=0o2770, uid=33, gid=44),
        }
    )
    report = bring_back(Archive(tree))
    assert report.is_complete
    assert report.refusals == ()
    assert seen(target) == expected(tree)


def test_owners_that_do_not_exist_are_left_and_the_set_id_bits_go(bring_back, target):
    """An id of -1 would mean "leave it" to chown: the file would keep its bits under the restoring user."""
    tree = Dir({b"suid": File(b"program", mode=0o6755, uid=(1 << 32) - 1), b"huge": File(b"x", gid=1 << 40)})
    report = bring_back(Archive(tree))
    assert [(refusal.what, refusal.count) for refusal in report.refusals] == [("owners", 2), ("set-id bits", 1)]
    assert report.troubles == ()
    assert stat.S_IMODE((target / "suid").stat().st_mode) == 0o755
    assert (target / "suid").stat().st_uid == os.geteuid()


def test_a_big_file_in_many_frames_through_a_small_window(bring_back, target, home, mover):
    tree = Dir({b"big": File(noise(3_000_000)), b"small": File(noise(50))})
    archive = Archive(tree, frame_bytes=10_007)
    asked = mover(archive)
    report = bring_back(archive, mover=asked, window_bytes=200_000)
    assert report.is_complete
    assert seen(target) == expected(tree)
    assert all(wish.last - wish.first < 20 for wish in asked.asked)
    # Not a message for each of the 300 frames.
    assert len(asked.asked) < 100


def test_files_over_many_segments_and_more_than_are_open_at_once(bring_back, target):
    tree = Dir({b"%03d" % number: File(noise(30_000, number)) for number in range(60)})
    archive = Archive(tree, segment_bytes=100_000)
    assert len(archive.streams) > 10
    report = bring_back(archive, real=True, window_bytes=250_000)
    assert report.is_complete
    assert seen(target) == expected(tree)


@pytest.mark.parametrize("real", [False, True])
def test_a_split_file(bring_back, target, real):
    tree = Dir(
        {
            b"a": File(noise(20_000)),
            b"split": File(noise(100_000), split_at=(33_333, 70_000)),
            b"z": File(noise(20_000, 1)),
        }
    )
    report = bring_back(Archive(tree), real=real)
    assert report.is_complete
    assert seen(target) == expected(tree)


def test_many_small_files_share_frames_and_ask_seldom(bring_back, target, home, mover):
    tree = Dir({b"%04d" % number: File(noise(100, number)) for number in range(2000)})
    archive = Archive(tree, frame_bytes=100_000)
    asked = mover(archive)
    assert bring_back(archive, mover=asked).is_complete
    assert seen(target) == expected(tree)
    assert len(asked.asked) == 1


def test_content_that_is_staged_already_is_not_asked_for(bring_back, target, tmp_path, home, mover):
    archive = Archive(TREE)
    assert bring_back(archive, target=tmp_path / "first").is_complete
    asked = mover(archive)
    assert bring_back(archive, mover=asked).is_complete
    assert asked.asked == []


def test_progress_runs_from_plan_to_finish(bring_back, progress):
    bring_back(Archive(TREE))
    stages = [told.stage for told in progress]
    assert sorted(set(stages), key=stages.index) == ["plan", "write", "finish"]
    assert progress[-1].files == progress[-1].files_total == 11
    assert progress[-1].bytes == progress[-1].bytes_total


# -- which part --------------------------------------------------------------------------------------------------------


def only(*paths: bytes) -> dict[bytes, tuple[object, ...]]:
    return {path: what for path, what in expected(TREE).items() if path in paths}


def test_a_chosen_path_keeps_its_whole_path(bring_back, target):
    report = bring_back(Archive(TREE), b"/usr/share/a")
    assert report.is_complete
    assert seen(target) == only(b"usr", b"usr/share", b"usr/share/a")


def test_several_paths_nested_and_twice(bring_back, target):
    report = bring_back(
        Archive(TREE), b"usr/share/closed/", b"usr//share", b"usr/bin", b"readme", b"readme", b"usr/bin"
    )
    assert report.is_complete
    assert seen(target) == {
        path: what for path, what in expected(TREE).items() if path.split(b"/")[0] in (b"usr", b"readme")
    }
    assert report.directories == 4


def test_the_root_as_a_path_is_everything(bring_back, target):
    assert bring_back(Archive(TREE), b"/").is_complete
    assert seen(target) == expected(TREE)


@pytest.mark.parametrize("path", [b"nothing", b"usr/nothing", b"readme/x", b"usr/bin/x"])
def test_a_path_that_is_not_there_is_refused_before_anything_is_made(bring_back, target, path):
    with pytest.raises(NoSuchThing):
        bring_back(Archive(TREE), b"usr", path)
    assert seen(target) == {}


@pytest.mark.parametrize("path", [b"..", b"usr/../..", b"./usr"])
def test_dots_in_a_chosen_path_are_refused(bring_back, target, path):
    with pytest.raises(UsageError):
        bring_back(Archive(TREE), path)
    assert seen(target) == {}


# -- what exists -------------------------------------------------------------------------------------------------------


def test_existing_files_are_left_alone_and_reported(bring_back, target, mover):
    (target / "usr/share").mkdir(parents=True)
    (target / "usr/share/a").write_bytes(b"mine")
    (target / "usr/bin").write_bytes(b"mine, too")
    (target / "usr/share/big").symlink_to("/etc/passwd")
    (target / "empty").mkdir()
    archive = Archive(TREE)
    asked = mover(archive)
    report = bring_back(archive, mover=asked)
    assert report.skipped == 4
    assert not report.is_complete
    assert {trouble.path for trouble in report.troubles} >= {b"usr/share/a", b"usr/bin", b"usr/share/big", b"empty"}
    assert (target / "usr/share/a").read_bytes() == b"mine"
    assert (target / "usr/bin").read_bytes() == b"mine, too"
    assert os.readlink(target / "usr/share/big") == "/etc/passwd"
    assert (target / "readme").read_bytes() == b"hello\n"


def test_overwriting_replaces_files_and_links_and_never_follows_them(bring_back, target, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (target / "usr/share").mkdir(parents=True, mode=0o700)
    (target / "usr/share/a").write_bytes(b"mine")
    (target / "usr/share/big").symlink_to(outside)
    (target / "usr/bin").write_bytes(b"mine")
    report = bring_back(Archive(TREE), overwrite=True)
    assert report.is_complete
    assert seen(target) == expected(TREE)
    assert outside.read_bytes() == b"precious"


def test_overwriting_does_not_remove_a_directory(bring_back, target):
    (target / "readme/inner").mkdir(parents=True)
    report = bring_back(Archive(TREE), overwrite=True)
    assert (report.failed, report.trouble_count) == (1, 1)
    assert report.troubles[0].path == b"readme"
    assert (target / "readme/inner").is_dir()


def test_existing_directories_keep_their_mode_and_that_is_reported(bring_back, target):
    (target / "usr").mkdir(parents=True)
    (target / "usr").chmod(0o700)
    report = bring_back(Archive(TREE))
    assert (target / "usr").stat().st_mode & 0o7777 == 0o700
    assert [trouble.path for trouble in report.troubles] == [b"usr"]
    assert not report.is_complete


def test_a_second_restore_beside_the_first(bring_back, target):
    archive = Archive(TREE)
    assert bring_back(archive, b"usr/share/a").is_complete
    assert bring_back(archive, b"usr/share/big").is_complete
    assert seen(target).keys() == only(b"usr", b"usr/share", b"usr/share/a", b"usr/share/big").keys()


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_frame_that_the_tape_does_not_give_costs_its_files_only(bring_back, target, mover):
    tree = Dir({b"%d" % number: File(noise(25_000, number)) for number in range(8)})
    archive = Archive(tree)
    asked = mover(archive)
    # Frame 8 holds the end of `3` and the beginning of nothing else.
    asked.unreadable = {(segment_id(0), 9)}
    report = bring_back(archive, mover=asked)
    assert report.damaged == 1
    assert "cannot be read" in report.troubles[0].reason
    lost = report.troubles[0].path
    assert seen(target) == {path: what for path, what in expected(tree).items() if path != lost}


def test_files_whose_key_is_locked_are_not_damaged(bring_back, mover):
    archive = Archive(Dir({b"%d" % number: File(noise(25_000, number)) for number in range(8)}))
    asked = mover(archive)
    asked.unreadable, asked.refusal = {(segment_id(0), 9)}, "locked"
    report = bring_back(archive, mover=asked)
    assert (report.locked, report.damaged, report.failed) == (1, 0, 0)
    assert not report.is_complete


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ("offline", "offline", "put them in"),
        ("damaged", "damaged", "another copy"),
        ("no_copy", "damaged", "another copy"),
        ("read_failed", "unread", "try again"),
        ("mover_died", "unread", "try again"),
    ],
)
def test_what_a_person_can_do_about_it_is_counted_apart(bring_back, mover, error, kind, words):
    """A tape to be put in, content that is lost here, a drive that failed: no two of them are one."""
    archive = Archive(Dir({b"%d" % number: File(noise(25_000, number)) for number in range(8)}))
    asked = mover(archive)
    asked.unreadable, asked.refusal = {(segment_id(0), 9)}, error
    report = bring_back(archive, mover=asked)
    counts = {name: getattr(report, name) for name in ("offline", "damaged", "locked", "unread", "failed")}
    assert counts == dict.fromkeys(counts, 0) | {kind: 1}
    assert not report.is_complete
    assert missing_of(report).startswith("1 ")
    assert words in missing_of(report)


def test_wrong_bytes_are_read_again_and_then_right(bring_back, target, mover):
    tree = Dir({b"a": File(noise(45_000)), b"b": File(noise(45_000, 1))})
    archive = Archive(tree)
    asked = mover(archive)
    asked.damaged = {(segment_id(0), 2): 1}
    report = bring_back(archive, mover=asked)
    assert report.is_complete
    assert seen(target) == expected(tree)


def test_wrong_bytes_never_get_the_name(bring_back, target):
    tree = Dir({b"a": File(noise(45_000)), b"b": File(noise(45_000, 1), sha256=bytes(32)), b"c": File(noise(10))})
    report = bring_back(Archive(tree))
    assert (report.damaged, report.files) == (1, 2)
    assert report.troubles[0].path == b"b"
    assert "SHA-256" in report.troubles[0].reason
    assert seen(target).keys() == {b"a", b"c"}


def test_a_wrong_part_of_a_split_file(bring_back, target, mover):
    tree = Dir({b"split": File(noise(100_000), split_at=(50_000,))})
    archive = Archive(tree)
    asked = mover(archive)
    asked.damaged = {(segment_id(1), 1): 1}
    assert bring_back(archive, mover=asked).is_complete
    assert seen(target) == expected(tree)


def test_content_without_a_checksum_in_the_index_is_not_trusted(bring_back, target):
    archive = Archive(Dir({b"a": File(noise(100))}))
    archive.hashes.clear()
    assert bring_back(archive).damaged == 1
    assert seen(target) == {}


def test_frames_evicted_before_they_were_used_are_asked_for_again(bring_back, target, mover, monkeypatch):
    monkeypatch.setattr("tapefs.restore.window.ASK_AGAIN_S", 0.05)
    tree = Dir({b"a": File(noise(100_000)), b"b": File(noise(100_000, 1))})
    archive = Archive(tree)
    asked = mover(archive)
    asked.lost_once = {(segment_id(0), frame) for frame in (0, 5, 11)}
    assert bring_back(archive, mover=asked).is_complete
    assert seen(target) == expected(tree)


def test_staging_files_that_are_removed_meanwhile(bring_back, target, mover, home):
    """Its set expires while it is restored: what comes then is staged in other files, and is found there."""
    tree = Dir({b"a": File(noise(100_000)), b"b": File(noise(100_000, 1))})
    archive = Archive(tree)
    at_work = mover(archive)

    def fetch(wishes):
        if not at_work.asked:
            StagingArea(home.staging).remove([segment_id(0)])
        at_work.fetch(wishes)

    assert bring_back(archive, mover=at_work, fetch=fetch, deadline_s=60.0).is_complete
    assert seen(target) == expected(tree)


def test_no_tape_at_all_gives_up_at_the_deadline(bring_back, target):
    with pytest.raises(RecallTimedOut):
        bring_back(Archive(TREE), fetch=lambda wishes: None, deadline_s=0.2)
    # What did not need a tape is there, directories are finished.
    found = seen(target)
    assert found[b"usr/bin"] == expected(TREE)[b"usr/bin"]
    assert found[b"usr"] == expected(TREE)[b"usr"]


def test_what_fetch_raises_comes_through(bring_back, target):
    def unreachable(wishes):
        raise Unreachable("the sidecar does not answer")

    with pytest.raises(Unreachable):
        bring_back(Archive(TREE), fetch=unreachable)
    assert seen(target)[b"usr/share"] == expected(TREE)[b"usr/share"]


def test_marked_files(bring_back, target):
    tree = Dir(
        {
            b"changed": File(b"as read", flags=EntryFlag.CHANGED),
            b"unreadable": File(b"?", flags=EntryFlag.UNREADABLE),
            b"socket": File(type=stat.S_IFSOCK),
            b"odd": File(type=0),
        }
    )
    report = bring_back(Archive(tree))
    assert (report.changed, report.failed, report.files) == (1, 3, 1)
    assert {trouble.path for trouble in report.troubles} == {b"unreadable", b"socket", b"odd"}
    assert seen(target).keys() == {b"changed"}


def test_a_damaged_listing_costs_that_directory_only(bring_back, target):
    tree = Dir({b"good": File(b"1"), b"inner": Dir({b"a": File(b"2"), b"unlistable": File(b"3"), b"z": File(b"4")})})
    report = bring_back(UnlistableArchive(tree))
    assert report.failed == 1
    assert report.troubles[0].path == b"inner"
    assert seen(target).keys() == {b"good", b"inner", b"inner/a"}


@pytest.mark.parametrize(
    "extents",
    [
        [Extent(0, 1000, 0, 512)],
        [Extent(0, 40_000, 0, 512), Extent(50_000, 50_000, 1, 512)],
        [Extent(0, 50_000, 0, 512), Extent(50_000, 1 << 50, 1, 512)],
        [Extent(0, 100_000, 0, 512)],
        [Extent(0, 50_000, 0, 512), Extent(50_000, 50_000, 1, 1 << 60)],
    ],
)
def test_extents_that_are_not_the_file(bring_back, target, extents):
    archive = Archive(Dir({b"split": File(noise(100_000), split_at=(50_000,)), b"good": File(b"1")}))
    archive.change_extents(extents)
    report = bring_back(archive)
    assert report.damaged == 1
    assert seen(target).keys() == {b"good"}


def test_an_offset_beyond_the_segment(bring_back, target):
    archive = Archive(Dir({b"a": File(noise(100)), b"b": File(noise(100, 1))}))
    archive.change_entry(b"a", offset=1 << 40)
    report = bring_back(archive)
    assert report.damaged == 1
    assert seen(target).keys() == {b"b"}


def test_an_absurd_time_is_reported(bring_back, target):
    report = bring_back(Archive(Dir({b"a": File(b"1", mtime_ns=1 << 100), b"b": Link(b"x", mtime_ns=-(1 << 100))})))
    assert report.failed == 2
    assert seen(target) == {}


def test_only_the_first_thousand_troubles_are_kept(bring_back):
    tree = Dir({b"%04d" % number: File(type=stat.S_IFSOCK) for number in range(1500)})
    report = bring_back(Archive(tree))
    assert report.trouble_count == report.failed == 1500
    assert len(report.troubles) == 1000


def test_the_window_is_smaller_than_the_staging_limit(home, target, mover):
    archive = Archive(Dir({b"big": File(noise(400_000))}))
    small = Home(home.path, Settings(format=1, staging=StagingSettings(limit_bytes=200_000)))
    with mover(archive) as asked:
        report = restore(small, archive, [], target, fetch=asked.fetch, progress=lambda told: None)
    assert report.is_complete
    assert max(wish.last - wish.first for wish in asked.asked) < 5


def test_an_index_without_a_root_is_an_error(bring_back):
    archive = Archive(TREE)
    archive._directories.clear()
    with pytest.raises(CatalogError):
        bring_back(archive)


def test_a_full_state_folder_ends_the_restore_with_a_report(bring_back, monkeypatch):
    """Also at its very end, where the lists are read once more; what was restored is told."""
    archive = Archive(Dir({b"a": Dir({b"b": File(noise(100))})}))
    monkeypatch.setattr(Directories, "newest_first", lambda _: fails())

    def fails():
        with roomy():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    report = bring_back(archive)
    assert report.files == 1
    assert "state folder" in report.stopped
    assert not report.is_complete


def test_a_link_where_a_directory_belongs_is_named(bring_back, target, tmp_path):
    """It is not followed, and what is behind it stays as it is."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target.mkdir(exist_ok=True)
    (target / "a").symlink_to(elsewhere)
    report = bring_back(Archive(Dir({b"a": Dir({b"b": File(noise(100))})})))
    (reason,) = [each.reason for each in report.troubles if each.path == b"a"]
    assert "links at the target are not followed" in reason
    assert list(elsewhere.iterdir()) == []
