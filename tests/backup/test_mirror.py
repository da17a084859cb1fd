"""Mirrors: the newest state only, once that has been read back; a source that is gone takes nothing with it."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog.ids import SetId
from catalog.records import Job, SetState
from drivers.virtual.faults import FaultyDrive, ReadError
from tapefs.errors import SetDamaged, SourceError
from tests.backup.rig import Rig
from tests.backup.test_resume import SMALL, Interrupter, to_resume
from tests.backup.trees import payloads


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"file {number}").write_text(str(number))
    return tree


def mirror(rig: Rig, tree: Path) -> Job:
    return rig.queued(tree, type="mirror", codec="tar", level=0, verify=True)


def again(rig: Rig, job: Job) -> SetId:
    return rig.run(rig.ledger.queue_job(job.number, time.time_ns()))


def states(rig: Rig) -> list[SetState]:
    return [each.state for each in rig.ledger.backup_sets()]


def test_a_mirror_replaces_the_one_before(rig: Rig, tree: Path) -> None:
    job = mirror(rig, tree)
    first = rig.run(job)
    (tree / "new").write_text("new")
    second = again(rig, job)
    assert states(rig) == [SetState.EXPIRED, SetState.COMPLETE]
    assert not rig.home.index(first).exists()
    assert rig.ledger.backup_set(second).files == 21
    assert rig.ledger.job(job.number).set_id == second
    assert rig.watcher.troubles == []


def test_it_is_a_plain_tar(rig: Rig, tree: Path) -> None:
    rig.run(mirror(rig, tree))
    (payload,) = payloads(rig)
    listed = subprocess.run(["tar", "-tf", payload], capture_output=True, check=True).stdout.decode()
    assert f"{str(tree)[1:]}/file 7\n" in listed


@pytest.mark.parametrize(("left", "expected"), [(9, SetState.COMPLETE), (19, SetState.EXPIRED)])
def test_a_source_that_has_lost_over_half_replaces_nothing(rig: Rig, tree: Path, left: int, expected: SetState) -> None:
    job = mirror(rig, tree)
    rig.run(job)
    for number in range(left, 20):
        (tree / f"file {number}").unlink()
    if expected is SetState.COMPLETE:
        for number in range(left):
            (tree / f"file {number}").unlink()
    again(rig, job)
    assert states(rig) == [expected, SetState.COMPLETE]
    told = [reason for path, reason in rig.watcher.troubles if path == bytes(tree)]
    assert len(told) == (expected is SetState.COMPLETE)
    assert all("is kept: " in reason for reason in told)


def refusing(monkeypatch: pytest.MonkeyPatch, refused: bytes) -> None:
    """Have nobody open what is called so."""
    opened = os.open

    def refuse(path: Any, *arguments: Any, **more: Any) -> int:
        if path == refused:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refuse)


def test_a_source_that_could_not_all_be_read_replaces_nothing(
    rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when a file is unreadable nor when a directory cannot be listed; later, when it can, all is well.

    That the one before could not read as many does not help: it has what this one lacks.
    """
    (tree / "sub").mkdir()
    (tree / "sub/inner").write_text("x")
    job = mirror(rig, tree)
    rig.run(job)
    for name in (b"file 3", b"sub"):
        with monkeypatch.context() as patch:
            refusing(patch, name)
            again(rig, job)
    assert states(rig) == [SetState.COMPLETE] * 3
    assert [each.unread_files for each in rig.ledger.backup_sets()] == [0, 1, 1]
    again(rig, job)
    assert states(rig) == [SetState.EXPIRED] * 3 + [SetState.COMPLETE]


@pytest.mark.parametrize("name", [b"file 3", b"sub"])
def test_what_can_never_be_read_keeps_only_what_could(
    rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    (tree / "sub").mkdir()
    job = mirror(rig, tree)
    rig.run(job)
    refusing(monkeypatch, name)
    again(rig, job)
    again(rig, job)
    assert states(rig) == [SetState.COMPLETE, SetState.EXPIRED, SetState.COMPLETE]


@pytest.mark.parametrize("size", [40, 100_000, 9_000_000])
def test_a_disk_that_fails_while_files_are_read_replaces_nothing(
    rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """They can be opened, but what comes is an error: the set has zeros in their place, the one before has them."""
    (tree / "file 3").write_bytes(os.urandom(size))
    inode = (tree / "file 3").stat().st_ino
    job = mirror(rig, tree)
    rig.run(job)
    read = os.preadv

    def failing(fd: int, *arguments: Any) -> int:
        if os.fstat(fd).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(fd, *arguments)

    monkeypatch.setattr(os, "preadv", failing)
    again(rig, job)
    assert states(rig) == [SetState.COMPLETE] * 2
    assert [each.unread_files for each in rig.ledger.backup_sets()] == [0, 1]


def test_a_mirror_of_two_runs_replaces_nothing(
    make_rig: Callable[..., Rig], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its first run could not list, in a directory long left, the second does not know of."""
    rig = make_rig(backup_settings=SMALL)
    for name in ("a/lost", "b"):
        (tree / name).mkdir(parents=True)
    (tree / "a/lost/file").write_text("only in the first mirror")
    for number in range(20):
        (tree / f"b/{number}").write_text("x")
    job = mirror(rig, tree)
    rig.run(job)
    interrupter = Interrupter(rig, monkeypatch)
    with monkeypatch.context() as patch:
        refusing(patch, b"lost")
        assert interrupter.run(rig.ledger.queue_job(job.number, time.time_ns()), 6)
    assert [reason for path, reason in rig.watcher.troubles if path.endswith(b"/lost")]
    rig.run(to_resume(rig, job))
    assert rig.ledger.backup_sets()[-1].unread_files == 0
    assert states(rig) == [SetState.COMPLETE] * 2
    again(rig, job)
    assert states(rig) == [SetState.EXPIRED] * 2 + [SetState.COMPLETE]


def test_a_mirror_of_other_sources_replaces_nothing(rig: Rig, tree: Path) -> None:
    """A job that was split in two must not lose the other half before that has a mirror of its own."""
    other = tree.with_name("other")
    other.mkdir()
    (other / "only here").write_text("x")
    job = rig.queued(tree, other, type="mirror", codec="tar", level=0, verify=True)
    rig.run(job)
    rig.again(job, sources=(bytes(tree) + b"/",))
    assert states(rig) == [SetState.COMPLETE] * 2
    assert any("has nothing of" in reason for _, reason in rig.watcher.troubles)


def test_a_missing_source_replaces_nothing(rig: Rig, tree: Path) -> None:
    job = mirror(rig, tree)
    rig.run(job)
    tree.rename(tree.with_name("moved"))
    with pytest.raises(SourceError):
        again(rig, job)
    assert states(rig) == [SetState.COMPLETE]


def test_a_mirror_that_cannot_be_read_back_replaces_nothing(rig: Rig, tree: Path) -> None:
    """Nor does one of the same job that was made without being read."""
    job = mirror(rig, tree)
    rig.run(job)
    rig.again(job, verify=False)
    block = rig.ledger.volumes()[0].end_block + 2
    rig.drive = FaultyDrive(rig.drive, [ReadError(block=block, barcode="TP0001L9", times=0)])  # type: ignore[arg-type]
    with pytest.raises(SetDamaged):
        rig.again(job, verify=True)
    assert states(rig) == [SetState.COMPLETE] * 3


def test_other_jobs_and_types_are_left_alone(rig: Rig, tree: Path) -> None:
    rig.backup(tree, type="full")
    rig.run(mirror(rig, tree))
    job = mirror(rig, tree)
    rig.run(job)
    again(rig, job)
    assert states(rig) == [SetState.COMPLETE, SetState.COMPLETE, SetState.EXPIRED, SetState.COMPLETE]
