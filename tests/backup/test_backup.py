"""Backups of real trees, read back with GNU tar and bsdtar, and compared with the index."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.index.model import EntryFlag
from catalog.index.reader import IndexReader
from catalog.records import SetState, VolumeState
from tapefs.errors import SourceError
from tests.backup.rig import Rig
from tests.backup.trees import entries, extract, lstat_fields, odd_tree, payloads, random_files, snapshot


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_foreign_tar_restores_the_tree(rig: Rig, tmp_path: Path, program: str) -> None:
    """What is on tape is an ordinary archive: another program restores names, content, modes, owners, times, links."""
    tree = odd_tree(tmp_path)
    rig.backup(tree)
    out = extract(rig, tmp_path / "out", f"{program} -p" if os.geteuid() == 0 else program)
    assert snapshot(Path(f"{out}{tree}")) == snapshot(tree)


def test_index_shows_what_lstat_showed(rig: Rig, tmp_path: Path) -> None:
    """Every name, and each of its attributes, is in the index; the set is complete."""
    tree = odd_tree(tmp_path)
    expected = {
        os.path.relpath(path, b"/"): lstat_fields(path)
        for folder, directories, files in os.walk(bytes(tree))
        for path in [os.path.join(folder, name) for name in directories + files]
    }
    set_id = rig.backup(tree)
    found = entries(IndexReader(rig.home.index(set_id)))
    shown = {
        path: (e.mode, e.uid, e.gid, 0 if stat.S_ISDIR(e.mode) else e.size, e.mtime_ns, e.target)
        for path, e in found.items()
        if path.startswith(bytes(tree)[1:] + b"/")
    }
    assert shown == expected
    done = rig.ledger.backup_set(set_id)
    assert done.state is SetState.COMPLETE
    assert (done.files, done.segments, done.troubled_files) == (len(expected) - 13, 1, 0)


def test_ancestors_keep_owner_and_mode(rig: Rig, tmp_path: Path) -> None:
    """A 0644 file under a 0700 directory stays private, although only the file was named."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "file").write_text("x")
    (private / "other").write_text("not wanted")
    set_id = rig.backup(private / "file")
    found = entries(IndexReader(rig.home.index(set_id)))
    assert stat.S_IMODE(found[bytes(private)[1:]].mode) == 0o700
    assert bytes(private / "file")[1:] in found
    assert bytes(private / "other")[1:] not in found


def test_several_sources_share_their_ancestors(rig: Rig, tmp_path: Path) -> None:
    """Sources beside, above and below each other give one tree without doubles."""
    for name in ("a/x", "a/y/deep", "b", "c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text(name)
    set_id = rig.backup(tmp_path / "a/y/deep", tmp_path / "b", tmp_path / "a/y", tmp_path / "b/file")
    top = bytes(tmp_path)[1:] + b"/"
    names = {path[len(top) :] for path in entries(IndexReader(rig.home.index(set_id))) if path.startswith(top)}
    assert names == {b"a", b"a/y", b"a/y/deep", b"a/y/deep/file", b"b", b"b/file"}


def test_excludes_by_name_and_by_path(rig: Rig, tmp_path: Path) -> None:
    """Patterns match a last name or a whole path; an excluded directory is not entered."""
    tree = tmp_path / "tree"
    for name in ("keep/a.txt", "keep/b.tmp", "cache/c.txt", "sub/cache2/d.txt"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    set_id = rig.backup(tree, excludes=("*.tmp", f"{tree}/cache", "cache?"))
    top = bytes(tree)[1:] + b"/"
    names = {path[len(top) :] for path in entries(IndexReader(rig.home.index(set_id))) if path.startswith(top)}
    assert names == {b"keep", b"keep/a.txt", b"sub"}


def test_special_files_are_stored_not_opened(rig: Rig, tmp_path: Path) -> None:
    """A fifo would block and a device could do harm: both are only looked at. A socket is left out with a reason."""
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tree / "socket"))
    (tree / "zfile").write_text("here")
    set_id = rig.backup(tree)
    assert rig.watcher.troubles == [(bytes(tree / "socket"), "left out: a socket")]
    found = entries(IndexReader(rig.home.index(set_id)))
    assert stat.S_ISFIFO(found[bytes(tree / "fifo")[1:]].mode)
    assert bytes(tree / "zfile")[1:] in found
    assert bytes(tree / "socket")[1:] not in found


@pytest.mark.parametrize(
    ("name", "sentence"), [("missing", "No such file"), ("loop", "absolute"), ("", "absolute")], ids=str
)
def test_bad_source_touches_no_tape(rig: Rig, tmp_path: Path, name: str, sentence: str) -> None:
    """A source that is not there fails the job before a set or a tape is touched."""
    source = tmp_path / name if name == "missing" else name.encode()
    with pytest.raises(SourceError, match=sentence):
        rig.backup(source)
    assert rig.ledger.backup_sets() == []
    assert rig.watcher.asked == 0


def test_segments_stand_alone_and_join(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """A tree over many segments and several tapes: each payload is a whole archive, together they are the tree."""
    tree = random_files(tmp_path / "tree/one", 30, 1_000_000)
    random_files(tmp_path / "tree/two", 40, 2_000_000, seed=2)
    rig = make_rig(tapes=4, tape_bytes=64 * 1024**2)
    set_id = rig.backup(tree.parent)
    done = rig.ledger.backup_set(set_id)
    assert len(done.tapes) >= 2
    assert done.segments == len(payloads(rig)) > 20
    for payload in payloads(rig):
        subprocess.run(f"zstd -qdc {payload} | tar -tf - >/dev/null", shell=True, check=True)
    out = extract(rig, tmp_path / "out")
    assert snapshot(Path(f"{out}{tree.parent}")) == snapshot(tree.parent)
    full = [volume for volume in rig.ledger.volumes() if volume.state is VolumeState.FULL]
    assert [volume.label for volume in full] == list(done.tapes[:-1])


def test_a_file_larger_than_a_segment_is_split(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Its parts are members that `cat` joins; the index shows one file with extents that cover it."""
    tree = random_files(tmp_path / "tree", 1, 30_000_001)
    (tree / "zz-small").write_text("after it")
    rig = make_rig(tapes=2, tape_bytes=128 * 1024**2)
    set_id = rig.backup(tree)
    out = extract(rig, tmp_path / "out")
    parts = sorted(Path(f"{out}{tree}").glob("file-00000.tapefs-part-*"))
    assert len(parts) > 3
    assert b"".join(part.read_bytes() for part in parts) == (tree / "file-00000").read_bytes()
    reader = IndexReader(rig.home.index(set_id))
    found = entries(reader)
    entry = found[bytes(tree / "file-00000")[1:]]
    assert entry.flags & ~EntryFlag.FRESH == EntryFlag.SPLIT
    assert entry.size == 30_000_001
    assert bytes(tree / "zz-small")[1:] in found


def test_a_large_directory_runs_over_segments(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """A listing of more names in earlier segments than a line of a trailer holds is whole in the index."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(25_000):
        (tree / f"{number:06}").touch()
    rig = make_rig(backup_settings="segment_members = 6000")
    set_id = rig.backup(tree)
    assert rig.ledger.backup_set(set_id).segments >= 5
    found = entries(IndexReader(rig.home.index(set_id)))
    assert len([path for path in found if path.startswith(bytes(tree)[1:] + b"/")]) == 25_000


def test_second_backup_appends(rig: Rig, tmp_path: Path) -> None:
    """The next set goes behind the first on the same tape, and the first stays readable."""
    tree = odd_tree(tmp_path)
    first = rig.backup(tree)
    (tree / "new").write_text("new")
    second = rig.backup(tree)
    tapes = [rig.ledger.backup_set(each).tapes for each in (first, second)]
    assert tapes[0] == tapes[1]
    assert len(payloads(rig)) == 2
    out = extract(rig, tmp_path / "out")
    assert snapshot(Path(f"{out}{tree}")) == snapshot(tree)
    assert [each.number for each in rig.ledger.backup_sets()] == [1, 2]


def test_an_unreadable_file_is_kept_as_a_name(rig: Rig, tmp_path: Path) -> None:
    """A file that cannot be opened has its attributes in the set, a flag, and a reason; the backup goes on."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_text("a")
    source = Path("/proc/self/mem")
    # An immutable-by-kernel example that even root cannot open for reading: a file of another's dead process is none,
    # so take one that exists in every kernel and refuses O_RDONLY.
    if os.geteuid() != 0:
        os.chmod(tree / "a", 0)
    else:
        source = Path("/proc/sys/vm/compact_memory")
        if not source.exists():
            pytest.skip("this kernel has no write-only file to try")
        subprocess.run(["mount", "--bind", str(source), str(tree / "a")], check=True)
    try:
        set_id = rig.backup(tree)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(tree / "a")], check=True)
    entry = entries(IndexReader(rig.home.index(set_id)))[bytes(tree / "a")[1:]]
    assert entry.flags & EntryFlag.UNREADABLE
    assert rig.ledger.backup_set(set_id).troubled_files == 1
    assert "content is not in the backup" in rig.watcher.troubles[0][1]


def test_a_source_below_a_kernel_filesystem_is_taken(rig: Rig) -> None:
    """/dev is none that a backup enters, but a folder below it that was named is backed up."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / "file").write_text("x")
        set_id = rig.backup(Path(folder))
        assert bytes(Path(folder) / "file")[1:] in entries(IndexReader(rig.home.index(set_id)))


def test_a_kernel_filesystem_is_no_source(rig: Rig) -> None:
    """Backing up /proc is refused with a reason."""
    with pytest.raises(SourceError, match="kernel"):
        rig.backup(Path("/proc/self"))


def test_the_state_folder_is_left_out(rig: Rig, tmp_path: Path) -> None:
    """A backup of a folder that holds the virtual library does not swallow itself."""
    (tmp_path / "file").write_text("x")
    set_id = rig.backup(tmp_path)
    found = entries(IndexReader(rig.home.index(set_id)))
    assert bytes(tmp_path / "file")[1:] in found
    assert bytes(rig.home.path)[1:] not in found
    assert (bytes(rig.home.path), "left out: the state folder of this tapefs") in rig.watcher.troubles
