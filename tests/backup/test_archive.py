"""Archives: on N tapes, read back from each; only then the sources go, and of them only what is as it lies on tape."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

import pytest

import tapefs.backup.run  # noqa: F401 -- registers the crash points
from catalog.crash import known_points
from catalog.ids import VolumeId
from catalog.records import CopyState, JobState, SetState
from drivers.virtual.faults import FaultyDrive, ReadError
from tapefs.errors import Cancelled, NotVerified, SetDamaged
from tapefs.format.lines import read_lines
from tapefs.format.records import IndexLine, IndexSegment
from tests.backup.rig import Rig
from tests.backup.trees import extract, payloads, random_files, snapshot
from tests.forking.client import run

FIELDS = {"type": "archive", "verify": True}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "sub/empty").mkdir(parents=True)
    for name in ("a", "b", "sub/c", "sub/d"):
        (tree / name).write_text(name * 1000)
    (tree / "zero").touch()
    os.symlink("a", tree / "link")
    return tree


def names(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


def tapes_of(rig: Rig) -> list[set[str]]:
    """For each segment the tapes from which it was read back whole."""
    (backup_set,) = rig.ledger.backup_sets()
    return [
        {
            rig.ledger.volume(copy.volume_id).label
            for copy in rig.ledger.copies(segment.segment_id)
            if copy.verified_at_ns > backup_set.finished_at_ns
        }
        for segment in rig.ledger.segments(backup_set.set_id)
    ]


def final_tables(rig: Rig) -> dict[str, dict[str, str]]:
    """Of each tape with a SET INDEX that is a last one: the segments that it names, and the tape it names for each."""
    (backup_set,) = rig.ledger.backup_sets()
    tables = {}
    for index in rig.ledger.index_copies(backup_set.set_id):
        label = rig.ledger.volume(index.volume_id).label
        with (rig.home.library / "cartridges" / label / f"{index.file:05}").open("rb") as file:
            head, *lines = read_lines(file, IndexLine)
        if head.final:
            tables[label] = {line.segment: line.label for line in lines if isinstance(line, IndexSegment)}
    return tables


def test_the_sources_go_when_they_are_on_tape(rig: Rig, tree: Path, tmp_path: Path) -> None:
    before = snapshot(tree)
    job = rig.queued(tree, **FIELDS)
    rig.run(job)
    assert names(tree) == set()
    assert tree.is_dir(), "the source itself was not inside the source"
    assert rig.watcher.troubles == []
    assert rig.ledger.job(job.number).state is JobState.COMPLETED
    out = extract(rig, tmp_path / "out", "tar -p")
    restored = snapshot(Path(f"{out}{tree}"))
    assert restored == before


def test_a_source_that_is_a_file_or_lies_in_another(rig: Rig, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "single").write_text("x")
    (tmp_path / "left").write_text("x")
    os.symlink(tmp_path, tmp_path / "way")
    rig.backup(tree / "sub", tree, tmp_path / "way/single", **FIELDS)
    assert rig.watcher.troubles == []
    assert names(tree) == set()
    assert not (tmp_path / "single").exists()
    assert (tmp_path / "left").exists()


def test_sources_are_kept_when_asked(rig: Rig, tree: Path) -> None:
    before = names(tree)
    rig.backup(tree, keep_sources=True, **FIELDS)
    assert names(tree) == before


def test_two_copies_on_different_tapes(tmp_path: Path) -> None:
    """The set needs two tapes; so does its copy, which alone is the whole set for GNU tar."""
    rig = Rig(tmp_path, tapes=6, tape_bytes=32 * 1024**2, backup_settings="segment_bytes = 4194304")
    tree = random_files(tmp_path / "tree", 25, 2_000_000)
    before = snapshot(tree)
    set_id = rig.backup(tree, copies=2, **FIELDS)
    backup_set = rig.ledger.backup_set(set_id)
    assert len(backup_set.tapes) >= 4
    assert all(len(each) == 2 for each in tapes_of(rig))
    assert names(tree) == set()
    assert {rig.ledger.volume(each.volume_id).label for each in rig.ledger.index_copies(set_id)} == set(
        backup_set.tapes
    )
    tables = final_tables(rig)
    assert len(tables) == 2
    segments = {segment.segment_id for segment in rig.ledger.segments(set_id)}
    assert all(set(table) == segments for table in tables.values())
    used = [set(table.values()) for table in tables.values()]
    assert used[0].isdisjoint(used[1]), "each copy's index names its own tapes"
    out = tmp_path / "out"
    out.mkdir()
    firsts, seconds = set(), set()
    for segment in rig.ledger.segments(set_id):
        labels = {rig.ledger.volume(copy.volume_id).label: copy for copy in rig.ledger.copies(segment.segment_id)}
        first, second = sorted(labels, key=backup_set.tapes.index)
        firsts.add(first)
        seconds.add(second)
        payload = rig.home.library / "cartridges" / second / f"{labels[second].header_file + 1:05}"
        subprocess.run(f"zstd -dqc {payload} | tar -xpf - -C {out}", shell=True, check=True)
    assert firsts.isdisjoint(seconds)
    assert snapshot(Path(f"{out}{tree}")) == before
    rig.close()


def test_copies_are_made_with_little_room_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One segment at a time when there is room for no more; the copy is on one tape all the same."""
    rig = Rig(tmp_path, tapes=4, backup_settings="segment_bytes = 4194304")
    tree = random_files(tmp_path / "tree", 10, 2_000_000)
    monkeypatch.setattr("tapefs.backup.payloads_on_disk.free_bytes", lambda _: 5_000_000)
    rig.backup(tree, copies=2, **FIELDS)
    assert len(tapes_of(rig)) > 2
    assert all(len(each) == 2 for each in tapes_of(rig))
    assert len(rig.ledger.backup_sets()[0].tapes) == 2
    assert names(tree) == set()
    rig.close()


def test_no_room_for_a_segment_removes_nothing(rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = names(tree)
    monkeypatch.setattr("tapefs.backup.payloads_on_disk.free_bytes", lambda _: 10)
    with pytest.raises(NotVerified, match="make room there"):
        rig.backup(tree, copies=2, **FIELDS)
    assert names(tree) == before


@pytest.mark.parametrize("n", [1, 3, 6])
def test_a_disk_that_is_full_after_all_removes_nothing(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    """Whichever write to the spool fails; when there is room again the job goes on."""
    rig = Rig(tmp_path, backup_settings="segment_bytes = 1048576\nblock_size = 65536")
    for number in range(4):
        (tree / f"large {number}").write_bytes(os.urandom(500_000))
    before, writes = names(tree), [0]

    class Full:
        def __init__(self, file: IO[bytes]) -> None:
            self._file = file

        def write(self, data: bytes) -> int:
            writes[0] += 1
            if writes[0] == n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._file.write(data)

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

    make = tempfile.TemporaryFile
    monkeypatch.setattr("tapefs.backup.payloads_on_disk.tempfile.TemporaryFile", lambda **more: Full(make(**more)))
    job = rig.queued(tree, copies=2, **FIELDS)
    with pytest.raises(NotVerified, match="No space left on device"):
        rig.run(job)
    assert writes[0] == n
    assert names(tree) == before
    rig.ledger.finish_job(job.number, JobState.FAILED, "full", time.time_ns())
    rig.run(rig.ledger.queue_job(job.number, time.time_ns(), resume=True))
    assert names(tree) == set()
    assert all(len(each) == 2 for each in tapes_of(rig))
    rig.close()


def test_too_few_tapes_remove_nothing(tmp_path: Path, tree: Path) -> None:
    rig = Rig(tmp_path, tapes=1)
    before = names(tree)
    with pytest.raises(NotVerified, match="copy 2 of 2 could not be made: no tape"):
        rig.backup(tree, copies=2, **FIELDS)
    assert names(tree) == before
    (backup_set,) = rig.ledger.backup_sets()
    assert backup_set.state is SetState.COMPLETE
    rig.close()


def always_damaged(rig: Rig, *labels: str) -> None:
    """What is written to these tapes cannot be read."""
    faults = [ReadError(block=6, barcode=label, times=0) for label in labels]
    rig.drive = FaultyDrive(rig.drive, faults)  # type: ignore[arg-type]


def test_a_first_copy_that_is_damaged_removes_nothing(rig: Rig, tree: Path) -> None:
    """There is nothing to copy it from but the sources: the next run does that."""
    before = names(tree)
    always_damaged(rig, "TP0001L9")
    with pytest.raises(SetDamaged, match=r"nothing was removed: run the job again"):
        rig.backup(tree, copies=2, **FIELDS)
    assert names(tree) == before


@pytest.mark.log_warnings
def test_a_further_copy_that_is_damaged_is_made_again_on_another_tape(rig: Rig, tree: Path) -> None:
    always_damaged(rig, "TP0002L9")
    job = rig.queued(tree, copies=2, **FIELDS)
    rig.run(job)
    assert names(tree) == set()
    assert rig.ledger.job(job.number).state is JobState.COMPLETED
    (segment,) = rig.ledger.segments(rig.ledger.backup_sets()[0].set_id)
    states = {rig.ledger.volume(each.volume_id).label: each.state for each in rig.ledger.copies(segment.segment_id)}
    assert states == {"TP0001L9": CopyState.GOOD, "TP0002L9": CopyState.DAMAGED, "TP0003L9": CopyState.GOOD}
    assert "TP0003L9" in final_tables(rig)


@pytest.mark.log_warnings
def test_when_tape_after_tape_is_damaged_nothing_is_removed(rig: Rig, tree: Path) -> None:
    before = names(tree)
    always_damaged(rig, "TP0002L9", "TP0003L9", "TP0004L9")
    with pytest.raises(SetDamaged, match=r"nothing was removed: clean the drive, and `tapefs job resume 1`"):
        rig.backup(tree, copies=2, **FIELDS)
    assert names(tree) == before


@pytest.mark.parametrize("commits", [1, 2])
def test_an_interrupted_copy_goes_on_on_its_tape(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    """It is whole on one tape, as it would have been; the last SET INDEX there names all of it there."""
    rig = Rig(tmp_path, backup_settings="segment_bytes = 1048576")
    for number in range(6):
        (tree / f"large {number}").write_bytes(os.urandom(500_000))
    commit, made = rig.ledger.commit_segment, [0]

    def committing(*arguments: object) -> None:
        commit(*arguments)  # type: ignore[arg-type]
        made[0] += 1
        segments = rig.ledger.backup_sets()[0].segments
        if rig.ledger.backup_sets()[0].state is SetState.COMPLETE and made[0] == segments + commits:
            raise Cancelled("it was cancelled")

    monkeypatch.setattr(rig.ledger, "commit_segment", committing)
    job = rig.queued(tree, copies=2, **FIELDS)
    with pytest.raises(Cancelled):
        rig.run(job)
    rig.ledger.finish_job(job.number, JobState.CANCELLED, "cancelled", time.time_ns())
    rig.run(rig.ledger.queue_job(job.number, time.time_ns(), resume=True))
    assert names(tree) == set()
    assert len(tapes_of(rig)) > 2
    assert rig.ledger.backup_sets()[0].tapes == ("TP0001L9", "TP0002L9")
    assert set(final_tables(rig)["TP0002L9"].values()) == {"TP0002L9"}
    rig.close()


POINTS = sorted(point for point in known_points() if point.startswith(("copy.", "archive.")))


def test_a_tape_that_goes_bad_after_it_was_verified_is_not_copied(rig: Rig, tree: Path) -> None:
    before = names(tree)
    this_volume = rig.watcher.this_volume
    asked: list[object] = []

    def damaging(volume_id: VolumeId) -> None:
        this_volume(volume_id)
        asked.append(volume_id)
        if len(asked) == 2:  # Once to be read back, now to be copied.
            (payload,) = payloads(rig)
            payload.write_bytes(bytes(byte ^ 1 for byte in payload.read_bytes()))

    rig.watcher.this_volume = damaging  # type: ignore[method-assign]
    with pytest.raises(NotVerified, match="is not as it was written"):
        rig.backup(tree, copies=2, **FIELDS)
    assert names(tree) == before
    assert len(rig.ledger.backup_sets()[0].tapes) == 1


FURTHER = ["archive.unlink.after:3", "copy.commit.after:2", "ledger.mark_copy.after", "ledger.mark_copy.before:4"]
FURTHER += ["ledger.commit_segment.before:4", "ledger.commit_index.before", "ledger.finish_job.before"]
FURTHER += ["set_index.after:2", "segment.commit.after:2", "ledger.seal_set.after", "ledger.complete_set.before"]


@pytest.mark.parametrize("point", [*POINTS, *FURTHER])
def test_after_a_crash_every_file_is_there_or_on_two_tapes(tmp_path: Path, tree: Path, point: str) -> None:
    rig = Rig(tmp_path, backup_settings="segment_bytes = 1048576")
    home = rig.home.path
    rig.close()
    for number in range(4):
        (tree / f"large {number}").write_bytes(os.urandom(500_000))
    before = names(tree)
    command = ["-m", "tests.backup.archive_child", home]
    killed = run(*command, tree, env=os.environ | {"TAPEFS_CRASH_AT": point})
    assert killed.returncode == -signal.SIGKILL, (point, killed.stderr)
    rig = Rig.existing(home)
    if names(tree) != before:
        assert all(len(each) == 2 for each in tapes_of(rig)), "something is gone that is not on two verified tapes"
    rig.close()
    assert run(*command).returncode == 0
    rig = Rig.existing(home)
    assert all(len(each) == 2 for each in tapes_of(rig))
    assert rig.ledger.jobs()[0].state is JobState.COMPLETED
    assert names(tree) == set()
    (backup_set,) = rig.ledger.backup_sets()
    indexed = {rig.ledger.volume(each.volume_id).label for each in rig.ledger.index_copies(backup_set.set_id)}
    assert indexed == set(backup_set.tapes)
    segments = {segment.segment_id for segment in rig.ledger.segments(backup_set.set_id)}
    assert all(set(table) == segments for table in final_tables(rig).values())
    rig.close()
