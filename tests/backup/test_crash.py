"""Kill the process at every crash point of a backup; afterwards only whole sets count, and the next backup works."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

import tapefs.backup.run  # registers the crash points
from catalog.crash import known_points
from catalog.ids import SegmentId, SetId
from catalog.index.reader import IndexReader
from catalog.records import JobState, SetState, VolumeState
from sidecar.jobs.going_on import finish
from tapefs.sets.finish import finish_all
from tests.backup.rig import Rig
from tests.backup.trees import entries, extract, odd_tree, random_files, snapshot
from tests.forking.client import run

#: Points of the tape, of a set's completion and of the ledger's writes during a backup.
_PREFIXES = ("segment.", "set_index.", "tape.label", "index.", "names.", "ledger.")
_BACKUP_OPERATIONS = (
    "begin_set",
    "claim_volume",
    "commit_segment",
    "complete_set",
    "label_volume",
    "open_intent",
    "queue_job",
    "seal_set",
)

EARLY_END = '[{"kind": "early_end", "block": 60, "barcode": "TP0001L9", "warning_blocks": 0}]'


def points() -> list[str]:
    """Return all crash points that a plain backup passes, with the second passing of those in every segment."""
    assert tapefs.backup.run is not None
    found = []
    for name in sorted(known_points()):
        if name.startswith("ledger.") and name.split(".")[1] not in _BACKUP_OPERATIONS:
            continue
        if name.startswith(_PREFIXES):
            found.append(name)
            if name.startswith(("segment.", "ledger.commit_segment", "ledger.open_intent")):
                found.append(f"{name}:3")
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree of six segments."""
    return _tree(tmp_path_factory.mktemp("source"), 300_000)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fresh state folder to copy."""
    folder = tmp_path_factory.mktemp("prepared")
    Rig(
        folder,
        tapes=2,
        tape_bytes=200 * 1024**2,
        backup_settings="segment_bytes = 1048576\nframe_bytes = 1048576",
    ).close()
    return folder / "home"


@pytest.fixture(scope="module")
def long_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree for which a tape that ends as EARLY_END has it is too short."""
    return _tree(tmp_path_factory.mktemp("long"), 1_500_000)


def _tree(folder: Path, each_bytes: int) -> Path:
    tree = odd_tree(folder)
    random_files(tree / "files", 20, each_bytes)
    return tree


@pytest.fixture(scope="module")
def prepared_long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with segments of the usual size, of which the tree has about ten."""
    folder = tmp_path_factory.mktemp("prepared-long")
    Rig(folder, tapes=2, tape_bytes=200 * 1024**2).close()
    return folder / "home"


@pytest.mark.parametrize("point", points())
def test_killed_at(point: str, source: Path, prepared: Path, tmp_path: Path) -> None:
    """After a kill at the point a restart shows whole sets only; the backup run again is complete and identical."""
    kill_and_go_on(point, source, prepared, tmp_path)


@pytest.mark.parametrize(
    "point",
    [
        "set_index.before",
        "set_index.after",
        "set_index.sync.after",
        "ledger.commit_index.before",
        "segment.frame.after:9",
    ],
)
def test_killed_while_a_tape_ends(point: str, long_source: Path, prepared_long: Path, tmp_path: Path) -> None:
    """The tape ended within a segment, whose place the SET INDEX was taking: the tape is understood afterwards."""
    kill_and_go_on(point, long_source, prepared_long, tmp_path, EARLY_END)


def kill_and_go_on(point: str, source: Path, prepared: Path, tmp_path: Path, faults: str = "[]") -> None:
    """Run a backup that dies at the point; look at what is there, and back up again."""
    more = ["spool"] if point.startswith("segment.copy.") else ["way"] if ".give_way." in point else []
    rig = kill(point, source, prepared, tmp_path, faults, *more)
    try:
        set_id = rig.backup(source)
        assert rig.ledger.backup_set(set_id).state is SetState.COMPLETE
        states = {each.state for each in rig.ledger.backup_sets()}
        assert states <= {SetState.FAILED, SetState.COMPLETE}
        assert all(volume.state is not VolumeState.SUSPECT for volume in rig.ledger.volumes())
        assert all(not rig.ledger.intents(volume.volume_id) for volume in rig.ledger.volumes())
        assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{source}")) == snapshot(source)
    finally:
        rig.close()


def kill(point: str, source: Path, prepared: Path, tmp_path: Path, faults: str, *more: str) -> Rig:
    """Run a backup that dies at the point, do what a restart does, and look at what is there."""
    shutil.copytree(prepared, tmp_path / "home")
    return die(point, source, tmp_path / "home", faults, *more)


def die(point: str, source: Path, home: Path, faults: str = "[]", *more: str) -> Rig:
    """The same in that very state folder."""
    environment = {**os.environ, "TAPEFS_CRASH_AT": point, "TAPEFS_FAULTS": faults}
    child = run("-m", "tests.backup.crash_child", home, source, *more, env=environment)
    assert child.returncode == -signal.SIGKILL, f"{point} was not passed: {child.stderr}"
    rig = Rig.existing(home)
    for job in rig.ledger.jobs():
        if job.state is JobState.RUNNING:
            finish(rig.home, rig.ledger, job.number, JobState.FAILED, "interrupted", time.time_ns())
    finish_all(rig.home, rig.ledger, time.time_ns())
    for interrupted in rig.ledger.backup_sets():
        if interrupted.state is SetState.COMPLETE:
            assert len(entries(IndexReader(rig.home.index(interrupted.set_id)))) > 40
    return rig


#: Points at which a set with segments stays behind, and those around its first one and its end.
RESUMED = [
    "ledger.begin_set.after",
    "segment.intent.after",
    "segment.frame.after:3",
    "segment.local_trailer.after:3",
    "segment.trailer.after:3",
    "segment.sync.after:3",
    "ledger.commit_segment.before:3",
    "ledger.commit_segment.after:3",
    "segment.commit.after",
    "segment.commit.after:3",
    "set_index.before",
    "set_index.sync.after",
    "ledger.seal_set.before",
]


@pytest.mark.parametrize("point", RESUMED)
def test_killed_and_resumed(point: str, source: Path, prepared: Path, tmp_path: Path) -> None:
    """The run goes on with the segments it had, and the tape holds one whole archive."""
    kill_and_resume(point, source, prepared, tmp_path, "[]")


@pytest.mark.parametrize("point", ["set_index.after", "segment.frame.after:9"])
def test_killed_while_a_tape_ends_and_resumed(
    point: str, long_source: Path, prepared_long: Path, tmp_path: Path
) -> None:
    """The same where the tape ended early."""
    kill_and_resume(point, long_source, prepared_long, tmp_path, EARLY_END)


@pytest.mark.parametrize("point", ["backup.give_way.before:2", "backup.give_way.after:2"])
def test_killed_while_it_gives_way_and_resumed(point: str, source: Path, prepared: Path, tmp_path: Path) -> None:
    """The same where it had left its drive to others."""
    kill_and_resume(point, source, prepared, tmp_path, "[]", "way")


def kill_and_resume(point: str, source: Path, prepared: Path, tmp_path: Path, faults: str, *more: str) -> None:
    """Run a backup that dies at the point, resume it, and compare."""
    rig = kill(point, source, prepared, tmp_path, faults, *more)
    try:
        (failed,) = rig.ledger.backup_sets()
        assert failed.state is SetState.FAILED
        before = [segment.segment_id for segment in rig.ledger.segments(failed.set_id)]
        job = rig.ledger.queue_job(failed.job_number, time.time_ns(), resume=True)
        assert rig.run(job) == failed.set_id
        (resumed,) = rig.ledger.backup_sets()
        assert resumed.state is SetState.COMPLETE
        segments = [segment.segment_id for segment in rig.ledger.segments(failed.set_id)]
        assert segments[: len(before)] == before
        assert all(not rig.ledger.intents(volume.volume_id) for volume in rig.ledger.volumes())
        assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{source}")) == snapshot(source)
    finally:
        rig.close()


@pytest.mark.parametrize(
    "point",
    ["ledger.complete_set.after", "ledger.mark_copy.before", "ledger.mark_copy.after:3", "ledger.finish_job.before"],
)
def test_killed_while_it_is_read_back(point: str, source: Path, prepared: Path, tmp_path: Path) -> None:
    """The set is complete, the job is not done; resumed, only what was not read back is read."""
    rig = kill(point, source, prepared, tmp_path, "[]", "verify")
    try:
        (backup_set,) = rig.ledger.backup_sets()
        assert backup_set.state is SetState.COMPLETE
        (job,) = rig.ledger.jobs()
        assert job.state is JobState.FAILED
        before = _read_back(rig, backup_set.set_id)
        assert rig.run(rig.ledger.queue_job(job.number, time.time_ns(), resume=True)) == backup_set.set_id
        assert rig.ledger.job(job.number).state is JobState.COMPLETED
        after = _read_back(rig, backup_set.set_id)
        assert all(after.values())
        assert all(after[segment_id] == at_ns for segment_id, at_ns in before.items() if at_ns)
    finally:
        rig.close()


def _read_back(rig: Rig, set_id: SetId) -> dict[SegmentId, int]:
    """When each segment was read back."""
    segments = rig.ledger.segments(set_id)
    return {each.segment_id: rig.ledger.copies(each.segment_id)[0].verified_at_ns for each in segments}


def test_killed_twice_before_anything_new_is_written(source: Path, prepared: Path, tmp_path: Path) -> None:
    """The second run has looked at the torn segment of the first, and dies before it overwrites it."""
    kill("segment.frame.after:3", source, prepared, tmp_path, "[]").close()
    rig = die("segment.intent.before", source, tmp_path / "home")
    try:
        rig.backup(source)
        (volume,) = [each for each in rig.ledger.volumes() if each.end_block]
        assert (volume.state, volume.reason) == (VolumeState.APPENDABLE, "")
        assert rig.ledger.intents(volume.volume_id) == []
    finally:
        rig.close()
