"""What stays of an archive's sources, and why."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog.index.reader import IndexReader
from catalog.records import JobState, SetState
from tapefs.backup import base, removal
from tapefs.backup.removal import Removal, Remover
from tapefs.errors import Cancelled
from tests.backup.rig import Rig
from tests.backup.test_archive import FIELDS, names


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c", "sub/d"):
        (tree / name).write_text(name * 1000)
    return tree


def kept(rig: Rig) -> dict[str, str]:
    """What stayed, by its last name, with the reason."""
    return {os.fsdecode(path.rpartition(b"/")[2]): reason for path, reason in rig.watcher.troubles}


def remove(rig: Rig, set_id: str, tree: Path, look_around: Callable[[bytes], None] = lambda _: None) -> Removal:
    with IndexReader(rig.home.index(set_id)) as reader:
        return Remover(reader, rig.watcher.trouble, look_around).remove([bytes(tree)])


def changed(path: Path) -> None:
    path.write_text("changed")


def same_times(path: Path) -> None:
    """Other content with the same size and mtime: the ctime tells."""
    status = path.stat()
    path.write_text("z" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def other_file(path: Path) -> None:
    shutil.copy2(path, path.with_name("new"))
    path.with_name("new").replace(path)


def other_kind(path: Path) -> None:
    path.unlink()
    os.symlink("/etc/passwd", path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed, "it has changed since it was read"),
        (same_times, "it has changed since it was read"),
        (other_file, "another file is in its place"),
        (other_kind, "another file is in its place"),
    ],
)
def test_what_is_not_as_it_was_stays(rig: Rig, tree: Path, change: Callable[[Path], None], reason: str) -> None:
    """Changed while the tape is read back, when all of it has been written."""
    this_volume = rig.watcher.this_volume
    time.sleep(0.02)

    def meanwhile(volume_id: object) -> None:
        this_volume(volume_id)  # type: ignore[arg-type]
        change(tree / "sub/c")
        (tree / "sub/later").write_text("came later")

    rig.watcher.this_volume = meanwhile  # type: ignore[method-assign]
    rig.backup(tree, **FIELDS)
    assert names(tree) == {"sub", "sub/c", "sub/later"}
    assert kept(rig) == {"c": f"not removed: {reason}", "sub": "not removed: it is not empty"}


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tree has was written just now, however long a busy machine takes to come to it."""
    monkeypatch.setattr(base, "FRESH_NS", 3600 * 10**9)


@pytest.mark.usefixtures("fresh")
def test_a_change_within_the_clock_of_the_ctime_is_seen(rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was read right after it was written is compared by content: its times may lie."""
    set_id = rig.backup(tree, keep_sources=True, **FIELDS)
    (tree / "a").write_text("z" * 1000)
    monkeypatch.setattr(Remover, "_check", lambda *_: None)
    remove(rig, set_id, tree)
    assert names(tree) == {"a"}
    assert kept(rig) == {"a": "not removed: its content has changed since it was read"}


def test_what_somebody_writes_to_stays(rig: Rig, tree: Path) -> None:
    with (tree / "a").open("r+b"), (tree / "b").open("rb"):
        rig.backup(tree, **FIELDS)
    assert names(tree) == {"a"}
    assert kept(rig) == {"a": "not removed: somebody has it open for writing"}


def wait_for_lease_breaker(inode: int) -> None:
    """Until somebody waits in `open` for the lease on that file."""
    deadline_s = time.monotonic() + 60
    while not re.search(rf"LEASE +BREAKING .*:{inode} ", Path("/proc/locks").read_text()):
        assert time.monotonic() < deadline_s, "nobody opens the file for writing"
        time.sleep(0.01)


def test_a_writer_that_comes_meanwhile_waits_and_ends_nothing(
    rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal that tells of him must not end the mover; what he gets has no name any more."""
    set_id = rig.backup(tree, keep_sources=True, **FIELDS)
    script = f"import os; fd = os.open({str(tree / 'a')!r}, os.O_WRONLY); print(os.fstat(fd).st_nlink)"
    writers: list[subprocess.Popen[bytes]] = []
    unlink = os.unlink

    def slow(name: bytes, *, dir_fd: int) -> None:
        if name == b"a":
            writers.append(subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE))
            wait_for_lease_breaker(os.stat(name, dir_fd=dir_fd).st_ino)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", slow)
    assert remove(rig, set_id, tree).kept == 0
    monkeypatch.undo()
    out, _ = writers[0].communicate(timeout=60)
    assert out.strip() == b"0"
    assert names(tree) == set()


def test_a_change_just_before_the_lease_is_seen(rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compared before the lease is compared again under it."""
    set_id = rig.backup(tree, keep_sources=True, **FIELDS)
    take = removal.take_read_lease

    def late(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/a"):
            (tree / "a").write_text("changed")
        take(fd)

    monkeypatch.setattr(removal, "take_read_lease", late)
    monkeypatch.setattr(removal, "_FRESH", 0)
    remove(rig, set_id, tree)
    assert (tree / "a").read_text() == "changed"
    assert names(tree) == {"a"}


def test_a_change_that_the_ctime_does_not_tell_is_seen(rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has mapped a page and written to it goes on writing: until the kernel writes it back the times stay."""
    monkeypatch.setattr("tapefs.backup.base.FRESH_NS", 0)
    this_volume = rig.watcher.this_volume
    with (tree / "a").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:1] = b"z"
        time.sleep(0.02)

        def meanwhile(volume_id: object) -> None:
            this_volume(volume_id)  # type: ignore[arg-type]
            mapped[:7] = b"changed"
            mapped.close()
            file.close()

        rig.watcher.this_volume = meanwhile  # type: ignore[method-assign]
        rig.backup(tree, **FIELDS)
    assert (tree / "a").read_bytes()[:7] == b"changed"
    assert names(tree) == {"a"}


def test_a_file_whose_attributes_are_not_all_in_the_set_stays(
    rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One could not be read, and can be now; one cannot be read now either; the others are as they are on tape."""
    for name in ("a", "b", "sub/c"):
        os.setxattr(tree / name, "user.kept", b"1")
    for name in ("a", "b"):
        os.setxattr(tree / name, f"user.lost.{name}", b"1")
    get, is_over = os.getxattr, False

    def failing(place: Any, name: Any, **more: Any) -> bytes:
        if name == b"user.lost.b" or (name == b"user.lost.a" and not is_over):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return get(place, name, **more)

    monkeypatch.setattr(os, "getxattr", failing)
    set_id = rig.backup(tree, keep_sources=True, **FIELDS)
    is_over = True
    rig.watcher.troubles.clear()
    remove(rig, set_id, tree)
    assert names(tree) == {"a", "b"}
    assert kept(rig)["a"] == "not removed: its extended attributes are not as in the set"
    assert "user.lost.b cannot be read" in kept(rig)["b"]


@pytest.mark.usefixtures("fresh")
def test_another_file_put_in_its_place_under_the_lease_stays(
    rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease holds off writers, not those who rename."""
    set_id = rig.backup(tree, keep_sources=True, **FIELDS)
    same = removal.has_same_content

    def swapping(*arguments: Any) -> bool:
        if arguments[2].name == b"a":
            (tree / "new").write_text("another")
            (tree / "new").replace(tree / "a")
        return same(*arguments)

    monkeypatch.setattr(removal, "has_same_content", swapping)
    remove(rig, set_id, tree)
    assert (tree / "a").read_text() == "another"
    assert kept(rig) == {"a": "not removed: another file is in its place"}


def test_a_file_that_changed_while_it_was_read_stays(rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a mark in the set, whatever it looks like now."""
    with (tree / "growing").open("ab") as growing:
        growing.write(b"x" * 20_000_000)
        growing.flush()

        def grow() -> None:
            if not growing.closed and rig.ledger.backup_sets()[-1].state is SetState.RUNNING:
                growing.write(b"y" * 1000)
                growing.flush()

        monkeypatch.setattr("tapefs.backup.engine._PROGRESS_EVERY_S", 0.0)
        rig.watcher.interrupt = grow
        set_id = rig.backup(tree, keep_sources=True, **FIELDS)
    rig.watcher.troubles.clear()
    remove(rig, set_id, tree)
    assert names(tree) == {"growing"}
    assert kept(rig) == {"growing": "not removed: it could not be backed up as it was"}


def test_hardlinks_and_special_files_go(rig: Rig, tree: Path) -> None:
    """Removing one name changes the ctime of the others: that is no change of somebody else's."""
    for name in ("h1", "sub/h2", "sub/h3"):
        os.link(tree / "a", tree / name)
    os.mkfifo(tree / "fifo")
    os.link(tree / "fifo", tree / "fifo 2")
    rig.backup(tree, **FIELDS)
    assert rig.watcher.troubles == []
    assert names(tree) == set()


def test_what_is_not_in_the_set_stays(rig: Rig, tree: Path) -> None:
    (tree / "sub/x.o").write_text("left out")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "s"))
        rig.backup(tree, excludes=("*.o",), **FIELDS)
    assert names(tree) == {"s", "sub", "sub/x.o"}
    assert kept(rig)["sub"] == "not removed: it is not empty"


def test_another_directory_in_its_place_is_not_entered(rig: Rig, tree: Path, tmp_path: Path) -> None:
    set_id = rig.backup(tree, keep_sources=True, **FIELDS)
    (tree / "sub").rename(tmp_path / "sub")
    os.symlink(tmp_path / "sub", tree / "sub")
    remove(rig, set_id, tree)
    assert names(tmp_path / "sub") == {"c", "d"}
    assert names(tree) == {"sub"}
    (tree / "sub").unlink()
    shutil.copytree(tmp_path / "sub", tree / "sub")
    assert remove(rig, set_id, tree).missing == 2
    assert names(tree) == {"sub", "sub/c", "sub/d"}
    assert kept(rig) == {"sub": "not removed: another directory is in its place"}


def test_deep_trees(rig: Rig, tmp_path: Path) -> None:
    """Deeper than Python's stack and longer than PATH_MAX."""
    top = tmp_path / "deep"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d" * 20, dir_fd=fd)
        child = os.open("d" * 20, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    rig.backup(top, **FIELDS)
    assert rig.watcher.troubles == []
    assert os.listdir(top) == []


def test_leases_are_to_be_had_here(tree: Path) -> None:
    """If not, what is said above about writers says nothing."""
    with (tree / "a").open("rb") as file:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)


def test_a_cancelled_removal_stops_and_goes_on_later(rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gone is on tape; the job is cancelled, and goes on with the rest."""
    monkeypatch.setattr("tapefs.backup.afterwards._PROGRESS_EVERY_S", 0.0)

    def interrupt() -> None:
        if not (tree / "a").exists():
            raise Cancelled("an operator stopped it")

    rig.watcher.interrupt = interrupt
    job = rig.queued(tree, **FIELDS)
    with pytest.raises(Cancelled, match="while the sources were removed: of its files 1 are on tape only"):
        rig.run(job)
    assert names(tree) == {"b", "sub", "sub/c", "sub/d"}
    rig.ledger.finish_job(job.number, JobState.CANCELLED, "stopped", time.time_ns())
    rig.watcher.interrupt = lambda: None
    rig.run(rig.ledger.queue_job(job.number, time.time_ns(), resume=True))
    assert names(tree) == set()
    assert "remove" in {each.stage for each in rig.watcher.progresses}
