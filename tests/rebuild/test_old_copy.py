"""An old copy of the catalog was brought back: our own tapes tell it what was written since."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from catalog.ids import SetId
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import Adoption, BackupSet, JobState, Segment, SetState, VolumeState
from catalog.recovery_records import Recovery, RecoveryState
from sidecar.recovery import recover
from tapefs.errors import NoTape
from tapefs.home import Home, open_home
from tapefs.keys.policy import TapeKeys
from tapefs.rebuild.records import Method
from tapefs.rebuild.run import Report
from tapefs.safekeeping.pack import back_up_catalog
from tapefs.safekeeping.unpack import bring_catalog_back
from tapefs.tape.anew import begin_anew
from tests.backup.rig import Rig
from tests.backup.trees import random_files
from tests.forking.client import run
from tests.keys.rig import encrypt
from tests.rebuild.same import index_rows, now_indexes, records, reopened
from tests.rebuild.test_import import imported
from tests.rebuild.test_rebuild import rebuilt

SMALL = "segment_bytes = 2097152\nthreads = 2"


def old_copy(rig: Rig, path: Path) -> Path:
    back_up_catalog(rig.home, rig.ledger, path, time.time_ns())
    return path


def brought_back(rig: Rig, copy: Path) -> None:
    rig.close()
    bring_catalog_back(rig.home.path, copy, time.time_ns())
    with LmdbLedger.open(rig.home.ledger) as ledger:
        recover(rig.home, ledger, time.time_ns())


@dataclass(frozen=True)
class Lost:
    """A state folder with an old catalog, and what the newest one said."""

    home: Path
    tree: Path
    records: dict[str, object]
    indexes: dict[str, object]
    #: Expired since, and its tape was begun anew.
    gone: SetId
    newest: SetId


def mark(rig: Rig, label: str, state: VolumeState) -> None:
    rig.ledger.mark_volume(rig.ledger.volume_by_label(label).volume_id, state)


def life(folder: Path) -> Lost:
    """Back up, copy the catalog, go on: a set that goes on on another tape, increments, a set that expires and whose
    tape is begun anew. Then bring the copy back."""
    rig = Rig(folder, tapes=4, tape_bytes=24 * 1024**2, backup_settings=SMALL)
    tree = random_files(folder / "tree", 9, 20_000)
    rig.backup(tree, name="nightly", type="incremental")
    nightly = rig.ledger.jobs()[0]
    mark(rig, "TP0001L9", VolumeState.FULL)
    gone = rig.backup(random_files(folder / "gone", 4, 20_000, seed=2), name="gone")
    mark(rig, "TP0001L9", VolumeState.APPENDABLE)
    mark(rig, "TP0002L9", VolumeState.FULL)
    copy = old_copy(rig, folder / "copy")

    (tree / "second").write_text("second")
    rig.again(nightly)
    rig.backup(random_files(folder / "large", 26, 700_000, seed=3), name="large")
    (tree / "third").write_text("third")
    newest = rig.again(nightly)
    rig.ledger.expire_set(gone, time.time_ns())
    rig.watcher.put_in("TP0002L9")
    rig.drive.load()
    old = rig.ledger.volume_by_label("TP0002L9").volume_id
    begin_anew(rig.drive, rig.ledger, old, time.time_ns(), TapeKeys(rig.home, None))
    mark(rig, "TP0003L9", VolumeState.FULL)
    rig.backup(random_files(folder / "anew", 4, 20_000, seed=4), name="anew")
    mark(rig, "TP0003L9", VolumeState.APPENDABLE)
    assert [each.tapes for each in rig.ledger.backup_sets()] == [
        ("TP0001L9",), (), ("TP0001L9",), ("TP0001L9", "TP0003L9"), ("TP0003L9",), ("TP0002L9",),
    ]  # fmt: skip
    lost = Lost(rig.home.path, tree, records(rig.ledger), dict(now_indexes(rig.home)), gone, newest)
    brought_back(rig, copy)
    return lost


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Lost:
    return life(tmp_path_factory.mktemp("lost"))


@pytest.fixture
def home(lost: Lost, tmp_path: Path) -> Home:
    shutil.copytree(lost.home, tmp_path / "home", symlinks=True)
    return open_home(tmp_path / "home")


def rig_of(home: Home) -> Rig:
    rig = Rig.__new__(Rig)
    rig.home = home
    reopened(rig)
    return rig


def assert_as_it_was(rig: Rig, lost: Lost) -> None:
    """All but what no tape knows: that a set has expired; nothing is left of that."""
    now = records(rig.ledger)
    gone = {f"set {rig.ledger.backup_set(lost.gone).number}"}
    gone |= {f"segment {each.segment_id}" for each in rig.ledger.segments(lost.gone)}
    assert {name: record for name, record in now.items() if name not in gone} == lost.records
    assert all(rig.ledger.copies(each.segment_id) == [] for each in rig.ledger.segments(lost.gone))
    indexes = dict(now_indexes(rig.home))
    indexes.pop(f"{lost.gone}.lmdb")
    known = {name: rows for name, rows in lost.indexes.items() if name != f"{lost.gone}.lmdb"}
    assert indexes == known
    assert rig.ledger.verify() == []


@pytest.mark.log_warnings
@pytest.mark.parametrize(
    ("take", "method"),
    [(imported, Method.INDEX), (imported, Method.TRAILERS), (rebuilt, Method.INDEX)],
)
def test_what_is_new_is_taken_in(lost: Lost, home: Home, take: Callable[..., Report], method: Method) -> None:
    """By either command; twice is once. The next backup builds on the newest set and goes to the tape where it ends."""
    tapes = ("TP0001L9", "TP0002L9", "TP0003L9")
    for _ in range(2):
        report = take(home, *tapes, method=method) if take is imported else take(home, method, *tapes)
        assert report.outcome.incomplete == []
        assert report.ignored == []
        if len(report.outcome.complete):
            assert sorted(each.number for each in report.outcome.complete) == [3, 4, 5, 6]
            losses = [
                sentence for sentence in report.outcome.remarks if "begun anew" in sentence or "expire" in sentence
            ]
            assert f"`tapefs expire {lost.gone[:8]}`" in losses[1]
    assert report.outcome.complete == []
    assert [note.partition(",")[0] for note in report.notes.values()] == ["nothing new"] * 3
    rig = rig_of(home)
    try:
        assert_as_it_was(rig, lost)
        assert not (home.path / "import").exists()
        nightly = rig.ledger.jobs()[0]
        assert (nightly.state, nightly.set_id) == (JobState.COMPLETED, lost.newest)
        (lost.tree / "fourth").write_text("fourth")
        mark(rig, "TP0002L9", VolumeState.FULL)
        again = rig.ledger.backup_set(rig.again(nightly))
        assert (again.number, again.parent_id, again.tapes) == (7, lost.newest, ("TP0003L9",))
    finally:
        (lost.tree / "fourth").unlink(missing_ok=True)
        rig.close()


CHILD = """
import sys
from pathlib import Path
from tapefs.home import open_home
from tests.rebuild.test_import import imported
imported(open_home(Path(sys.argv[1])), "TP0001L9", "TP0002L9", "TP0003L9")
"""


@pytest.mark.log_warnings
@pytest.mark.parametrize(
    "point",
    [
        "rebuild.trailer.after:2",
        "rebuild.adopt.after",
        "rebuild.index.after",
        "rebuild.set.after:3",
        "ledger.adopt.after:2",
    ],
)
def test_killed_at(lost: Lost, home: Home, point: str) -> None:
    environment = os.environ | {"TAPEFS_CRASH_AT": point}
    child = run("-c", CHILD, home.path, env=environment, timeout=120)
    assert child.returncode == -signal.SIGKILL, child.stderr
    imported(home, "TP0001L9", "TP0002L9", "TP0003L9")
    rig = rig_of(home)
    try:
        assert_as_it_was(rig, lost)
    finally:
        rig.close()


@pytest.mark.log_warnings
@pytest.mark.parametrize("order", [(3, 1, 2), (2, 1, 3)])
def test_one_tape_after_the_other(lost: Lost, home: Home, order: tuple[int, ...]) -> None:
    """A set that goes on on another tape, or builds on what is there, waits for it; what was read is remembered."""
    reports = [imported(home, f"TP000{number}L9") for number in order]
    assert any(report.is_open for report in reports)
    assert reports[-1].outcome.incomplete == []
    assert not reports[-1].is_open
    assert [len(report.surveys) for report in reports] == [1, 1, 1]
    assert not (home.path / "import").exists()
    rig = rig_of(home)
    try:
        assert_as_it_was(rig, lost)
    finally:
        rig.close()


@pytest.mark.log_warnings
def test_a_sealed_set_that_lacks_a_tape_keeps_nothing_from_coming(lost: Lost, home: Home) -> None:
    """It is told, and comes with the other tape."""
    (waiting,) = [each for each, _ in imported(home, "TP0001L9").outcome.incomplete]
    assert waiting.name == "large"
    whole = lost.records[f"set {waiting.number}"]
    assert isinstance(whole, BackupSet)
    sealed = msgspec.structs.replace(waiting, state=SetState.SEALED, files=whole.files, bytes=whole.bytes)
    sealed = msgspec.structs.replace(sealed, directories=whole.directories)
    with LmdbLedger.open(home.ledger) as ledger:
        ledger.adopt(Adoption(sets=(sealed,)), time.time_ns())
    report = imported(home, "TP0001L9")
    assert [each.set_id for each, _ in report.outcome.incomplete] == [sealed.set_id]
    assert report.is_open
    report = imported(home, "TP0003L9")
    assert sealed.set_id in {each.set_id for each in report.outcome.complete}


@pytest.mark.log_warnings
def test_a_tape_that_was_begun_anew_and_is_met_before(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig(tapes=1)
    tree = random_files(tmp_path / "a", 3, 5_000)
    first = rig.backup(tree, name="a")
    copy = old_copy(rig, tmp_path / "copy")
    rig.ledger.expire_set(first, time.time_ns())
    old = rig.ledger.volume_by_label("TP0001L9").volume_id
    begin_anew(rig.drive, rig.ledger, old, time.time_ns(), TapeKeys(rig.home, None))
    second = rig.backup(tree, name="b")
    brought_back(rig, copy)
    reopened(rig)
    with pytest.raises(NoTape):
        rig.backup(tree, name="c")
    assert "`tapefs import TP0001L9`" in rig.ledger.volume(old).reason
    rig.close()
    report = imported(rig.home, "TP0001L9")
    assert [each.set_id for each in report.outcome.complete] == [second]
    reopened(rig)
    (volume,) = rig.ledger.volumes()
    assert (volume.volume_id != old, volume.state) == (True, VolumeState.APPENDABLE)
    assert rig.ledger.backup_set(rig.backup(tree, name="d")).tapes == ("TP0001L9",)


@pytest.mark.log_warnings
def test_written_to_in_between(lost: Lost, home: Home) -> None:
    """A backup comes before anybody has imported: no tape with unknown data is written to, each says what helps.

    Numbers that were given to others meanwhile are not taken away again, and the job goes on from the newest set."""
    rig = rig_of(home)
    nightly = rig.ledger.jobs()[0]
    between = rig.ledger.backup_set(rig.again(nightly))
    assert (between.number, between.tapes) == (3, ("TP0004L9",))
    for label in ("TP0001L9", "TP0003L9"):
        volume = rig.ledger.volume_by_label(label)
        assert volume.state is VolumeState.SUSPECT
        assert f"`tapefs import {label}`" in volume.reason
    marked = rig.ledger.volume_by_label("TP0002L9")
    rig.ledger.mark_volume(marked.volume_id, VolumeState.SUSPECT, "the tape tore")
    rig.close()

    report = imported(home, "TP0003L9", "TP0001L9")
    assert report.outcome.incomplete == []
    reopened(rig)
    try:
        numbers = {each.set_id: each.number for each in rig.ledger.backup_sets()}
        assert numbers[between.set_id] == 3
        assert len(set(numbers.values())) == len(numbers) == 6
        assert rig.ledger.backup_set(between.set_id) == between
        assert rig.ledger.volume_by_label("TP0001L9").state is VolumeState.FULL
        assert rig.ledger.volume_by_label("TP0003L9").state is VolumeState.APPENDABLE
        assert rig.ledger.volume_by_label("TP0003L9").reason == ""
        job = rig.ledger.job(nightly.number)
        assert job.set_id == between.set_id
        again = rig.ledger.backup_set(rig.again(job))
        assert again.tapes == ("TP0003L9",)
        assert again.parent_id == between.set_id
        assert rig.ledger.verify() == []
    finally:
        rig.close()


@pytest.mark.log_warnings
def test_another_doubt_stays(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """What is new is taken in, but a tape on which writing failed is not written to because of that."""
    rig = make_rig(tapes=1)
    first = rig.backup(random_files(tmp_path / "a", 3, 5_000), name="a")
    copy = old_copy(rig, tmp_path / "copy")
    second = rig.backup(tmp_path / "a", name="b")
    end_block = rig.ledger.volume_by_label("TP0001L9").end_block
    brought_back(rig, copy)
    reopened(rig)
    volume_id = rig.ledger.volume_by_label("TP0001L9").volume_id
    rig.ledger.mark_volume(volume_id, VolumeState.SUSPECT, "write error at block 9")
    rig.ledger.expire_set(first, time.time_ns())
    expired = rig.ledger.backup_set(first)
    rig.close()
    imported(rig.home, "TP0001L9")
    reopened(rig)
    volume = rig.ledger.volume(volume_id)
    assert (volume.state, volume.reason) == (VolumeState.SUSPECT, "write error at block 9")
    assert volume.end_block == end_block
    assert rig.ledger.backup_set(first) == expired
    assert not any(rig.home.trailer(each.segment_id).exists() for each in rig.ledger.segments(first))
    assert rig.ledger.backup_set(second).state is SetState.COMPLETE


@pytest.mark.log_warnings
def test_a_copy_that_was_made_while_a_set_was_written(
    make_rig: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set is RUNNING in it, and whole on tape: it becomes what it was."""
    rig = make_rig(tapes=1, backup_settings="segment_bytes = 1048576\nthreads = 2")
    made: list[Path] = []

    commit_segment = LmdbLedger.commit_segment

    def commit(ledger: LmdbLedger, segment: Segment, *rest: Any) -> None:
        if segment.number == 2:
            made.append(old_copy(rig, tmp_path / "copy"))
        commit_segment(ledger, segment, *rest)

    monkeypatch.setattr(LmdbLedger, "commit_segment", commit)
    set_id = rig.backup(random_files(tmp_path / "a", 60, 300_000), name="a")
    assert made
    before, rows = records(rig.ledger), index_rows(rig.home.index(set_id))
    brought_back(rig, made[0])
    reopened(rig)
    was = rig.ledger.backup_set(set_id)
    assert was.state is SetState.FAILED
    assert 0 < was.segments < len([name for name in before if name.startswith("segment")])
    assert rig.ledger.intents(rig.ledger.volumes()[0].volume_id) == []
    rig.close()
    report = imported(rig.home, "TP0001L9")
    reopened(rig)
    assert report.outcome.incomplete == []
    assert [each.set_id for each in report.outcome.complete] == [set_id]
    assert records(rig.ledger) == before
    assert index_rows(rig.home.index(set_id)) == rows
    assert rig.ledger.verify() == []


@pytest.mark.log_warnings
def test_an_encrypted_tape_and_a_job_that_was_changed(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """What the job is asked for stays as the catalog has it, and is told."""
    rig = make_rig(tapes=1)
    encrypt(rig)
    rig.close()
    rig.open()
    tree = random_files(tmp_path / "a", 3, 5_000)
    rig.backup(tree, name="a", retention_days=10)
    copy = old_copy(rig, tmp_path / "copy")
    rig.again(rig.ledger.jobs()[0], retention_days=20)
    before = records(rig.ledger)
    brought_back(rig, copy)
    report = imported(rig.home, "TP0001L9")
    reopened(rig)
    (sentence,) = report.ignored
    assert "another retention_days" in sentence
    job = rig.ledger.jobs()[0]
    assert job.retention_days == 10
    now = records(rig.ledger)
    assert now.pop("job 1") == msgspec.structs.replace(before.pop("job 1"), retention_days=10)  # type: ignore[type-var]
    assert now == before
    assert rig.ledger.backup_set(rig.again(job)).tapes == ("TP0001L9",)


@pytest.mark.log_warnings
def test_a_tape_is_not_begun_anew_for_what_an_old_copy_says(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """All that it knows there has expired, but not what was written since."""
    rig = make_rig(tapes=1)
    first = rig.backup(random_files(tmp_path / "a", 3, 5_000), name="a")
    copy = old_copy(rig, tmp_path / "copy")
    second = rig.backup(tmp_path / "a", name="b")
    brought_back(rig, copy)
    reopened(rig)
    volume_id = rig.ledger.volume_by_label("TP0001L9").volume_id
    rig.ledger.expire_set(first, time.time_ns())
    rig.ledger.mark_volume(volume_id, VolumeState.FULL)
    rig.watcher.anew = {volume_id}
    with pytest.raises(NoTape):
        rig.backup(tmp_path / "a", name="c")
    volume = rig.ledger.volume(volume_id)
    assert (volume.state, "`tapefs import TP0001L9`" in volume.reason) == (VolumeState.SUSPECT, True)
    rig.close()
    imported(rig.home, "TP0001L9")
    reopened(rig)
    assert rig.ledger.backup_set(second).state is SetState.COMPLETE
    assert rig.ledger.volume(volume_id).state is VolumeState.APPENDABLE


@pytest.mark.log_warnings
def test_the_same_and_the_job_is_resumed_before_the_tape_is_read(
    make_rig: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ends of one set: the one that the catalog knows stays as it is, the other stays on its tape and is told."""
    rig = make_rig(tapes=2, backup_settings="segment_bytes = 1048576\nthreads = 2")
    tree = random_files(tmp_path / "large", 8, 700_000)
    commit = LmdbLedger.commit_segment

    def commit_and_copy(self: LmdbLedger, segment: Segment, *more: Any) -> None:
        commit(self, segment, *more)
        if segment.number == 2:
            old_copy(rig, tmp_path / "copy")

    monkeypatch.setattr(LmdbLedger, "commit_segment", commit_and_copy)
    rig.backup(tree, name="large")
    monkeypatch.undo()
    brought_back(rig, tmp_path / "copy")
    reopened(rig)
    (job,) = rig.ledger.jobs()
    assert "may be over since" in job.error
    set_id = rig.run(rig.ledger.queue_job(job.number, time.time_ns(), resume=True))
    assert rig.ledger.backup_set(set_id).tapes == ("TP0001L9", "TP0002L9")
    rows, known = index_rows(rig.home.index(set_id)), rig.ledger.segments(set_id)
    rig.close()
    report = imported(rig.home, "TP0001L9")
    reopened(rig)
    assert [sentence.partition(",")[0].split()[1] for sentence in report.ignored] == ["3", "4", "5", "6", "7"]
    assert report.outcome.incomplete == []
    assert (index_rows(rig.home.index(set_id)), rig.ledger.segments(set_id)) == (rows, known)
    assert rig.ledger.volume_by_label("TP0001L9").state is VolumeState.SUSPECT, "it has what nobody knows"
    assert rig.ledger.verify() == []


def test_a_restore_of_a_copy_does_not_begin_by_itself(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig(tapes=1)
    rig.backup(random_files(tmp_path / "a", 3, 5_000), name="a")
    waiting = Recovery(
        recovery_id="recovery_waiting", set_id=rig.ledger.backup_sets()[0].set_id, paths=(), target=b"/x",
        created_by="ada", created_at_ns=1,
    )  # fmt: skip
    rig.ledger.put_recovery(waiting)
    copy = old_copy(rig, tmp_path / "copy")
    brought_back(rig, copy)
    reopened(rig)
    (found,) = rig.ledger.recoveries()
    assert (found.state, "ask again" in found.error) == (RecoveryState.FAILED, True)
    rig.close()
