"""Sets that go: ledger, files, mount's view, and crashes in between."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from catalog.index.reader import IndexReader
from catalog.ledger_store.tables import job_key, text_key
from catalog.records import CopyState, JobState, SetState
from tapefs.errors import NoSuchThing
from tapefs.report.files import troubles_path
from tapefs.retention.expire import expire, remove_leftovers, verdicts_of
from tapefs.retention.policy import Why, Wish
from tapefs.verify.damage import Damage, write_damage
from tapefs.vfs.archive import Archive
from tests.backup.rig import Rig
from tests.backup.trees import entries
from tests.catalog.builders import set_of
from tests.catalog.lmdb_tools import dump, store
from tests.forking.client import run

LATER_NS = 40 * 86_400 * 10**9


@pytest.fixture
def rig(tmp_path: Path):
    rig = Rig(tmp_path)
    yield rig
    rig.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("a", "b"):
        (tree / name).write_text(name)
    return tree


def chain(rig: Rig, tree: Path) -> list[str]:
    """Full, incremental on it, full: each with 30 days."""
    job = rig.queued(tree, type="full", retention_days=30)
    made = [rig.run(job)]
    (tree / "c").write_text("c")
    made.append(rig.again(job, type="incremental"))
    made.append(rig.again(job, type="full"))
    assert rig.ledger.backup_set(made[1]).parent_id == made[0]
    for set_id in made:
        troubles_path(rig.home, set_id).touch()
        note_damage(rig, set_id)
    return made


def note_damage(rig: Rig, set_id: str) -> None:
    """Leave what reading back the set's copies could have found."""
    for segment in rig.ledger.segments(set_id):
        for copy in rig.ledger.copies(segment.segment_id):
            damage = Damage(
                segment=copy.segment_id,
                set=set_id,
                volume=copy.volume_id,
                tape="TP",
                found_at_ns=1,
                problems=["some"],
                frames=[],
            )
            write_damage(rig.home, damage, [b"a"])


def files_of(rig: Rig, set_id: str) -> list[Path]:
    segments = rig.ledger.segments(set_id)
    trailers = [rig.home.trailer(segment.segment_id) for segment in segments]
    named = (set_id, *(segment.segment_id for segment in segments))
    reports = [path for path in rig.home.reports.iterdir() if path.name.startswith(named)]
    return [rig.home.index(set_id), rig.home.names(set_id), *trailers, *reports]


def states(rig: Rig) -> list[SetState]:
    return [each.state for each in rig.ledger.backup_sets()]


def test_a_chain_goes_with_its_files_and_stays_on_tape(rig: Rig, tree: Path) -> None:
    first, second, third = chain(rig, tree)
    kept, gone = files_of(rig, third), files_of(rig, first) + files_of(rig, second)
    assert {"".join(path.suffixes) for path in gone} == {
        ".lmdb",
        ".names",
        ".zst",
        ".json",
        ".troubles.jsonl",
        f".{rig.ledger.volumes()[0].volume_id}.damage.jsonl",
    }
    tapes = rig.ledger.backup_set(first).tapes
    assert expire(rig.home, rig.ledger, time.time_ns()).expired == []
    assert all(path.exists() for path in kept + gone)
    outcome = expire(rig.home, rig.ledger, time.time_ns() + LATER_NS)
    assert outcome.expired == [second, first]
    assert outcome.freed_bytes > 0
    assert [path for path in kept + gone if path.exists()] == kept
    assert states(rig) == [SetState.EXPIRED, SetState.EXPIRED, SetState.COMPLETE]
    assert rig.ledger.backup_set(first).tapes == tapes
    assert all(rig.ledger.copies(segment.segment_id) for segment in rig.ledger.segments(first))
    assert expire(rig.home, rig.ledger, time.time_ns() + LATER_NS).expired == []


def test_who_has_it_open_reads_on_and_others_see_it_no_more(rig: Rig, tree: Path) -> None:
    first, second, third = chain(rig, tree)
    archive = Archive(rig.home, rig.ledger)
    name = f"job/{archive.time_name(rig.ledger.backup_set(third))}"
    reader = archive.index(second)
    before = set(entries(reader))
    expire(rig.home, rig.ledger, time.time_ns() + LATER_NS)
    time.sleep(0.02)  # The archive looks for news at most every 10 ms.
    assert set(entries(reader)) == before
    assert [each.set_id for each in archive.complete_sets()] == [third]
    for text in (first, second):
        with pytest.raises(NoSuchThing, match="is expired"):
            archive.find_set(text)
    assert archive.find_set(name).set_id == third, "the others keep their names"
    archive.close()


def test_what_is_staged_of_it_is_dropped(rig: Rig, tree: Path) -> None:
    """Also what a crash has left there: files are removed for every expired set, not only for those that go now."""
    first, second, _ = chain(rig, tree)
    segment = rig.ledger.segments(first)[0].segment_id
    rig.ledger.expire_set(second, time.time_ns())
    rig.ledger.expire_set(first, time.time_ns())
    rig.home.staging.mkdir(exist_ok=True)
    staged = rig.home.staging / f"{segment}.plain"
    staged.write_bytes(b"x" * 100_000)
    remove_leftovers(rig.home, rig.ledger)
    assert not staged.exists()
    assert not any(path.exists() for path in files_of(rig, first) + files_of(rig, second))


def test_trailers_of_segments_that_never_came_to_be_go_when_nobody_writes(rig: Rig, tree: Path) -> None:
    done = rig.backup(tree)
    left = [rig.home.trailers / f"00000000-0000-4000-8000-00000000000{n}" for n in range(2)]
    left = [left[0].with_suffix(".zst"), left[1].with_suffix(".part")]
    for path in left:
        path.write_bytes(b"of a segment that is being written, or was")
    job = rig.queued(tree)
    running = rig.ledger.begin_set(set_of("running", job, job_number=job.number, job_id=job.job_id))
    expire(rig.home, rig.ledger, time.time_ns())
    assert all(path.exists() for path in left)
    rig.ledger.fail_set(running.set_id, "killed", time.time_ns())
    assert expire(rig.home, rig.ledger, time.time_ns()).freed_bytes > 0
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in files_of(rig, done))


def test_a_failed_run_leaves_nothing_in_the_end(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path / "small", backup_settings="segment_bytes = 1048576\nframe_bytes = 65536")
    monkeypatch.setattr("tapefs.backup.engine._PROGRESS_EVERY_S", 0.0)
    for number in range(1500):
        (tree / f"f{number}").write_bytes(os.urandom(10_000))
    job = rig.queued(tree)

    def interrupt() -> None:
        if rig.ledger.backup_sets()[0].segments:
            raise NoSuchThing("enough")

    rig.watcher.interrupt = interrupt
    with pytest.raises(NoSuchThing):
        rig.run(job)
    rig.ledger.finish_job(job.number, JobState.FAILED, "enough", time.time_ns())
    failed = rig.ledger.backup_sets()[0]
    assert failed.segments
    assert all(path.exists() for path in files_of(rig, failed.set_id)[2:])
    now = time.time_ns()
    for alone in (0, 1_000_000):  # Its job is read alone, or all are.
        monkeypatch.setattr("tapefs.retention.expire.ALONE", alone)
        assert [each.why for each in verdicts_of(rig.ledger, now)] == [Why.RESUMABLE]
    assert expire(rig.home, rig.ledger, now, Wish(failed=True)).expired == [failed.set_id]
    assert not any(path.exists() for path in files_of(rig, failed.set_id))
    rig.close()


def test_what_was_found_damaged_keeps_the_one_before(rig: Rig, tree: Path) -> None:
    first = rig.queued(tree, retention_days=30)
    made = [rig.run(first), rig.again(first)]
    segment = rig.ledger.segments(made[1])[0]
    (copy,) = rig.ledger.copies(segment.segment_id)
    rig.ledger.mark_copy(segment.segment_id, copy.volume_id, CopyState.DAMAGED, time.time_ns())
    assert expire(rig.home, rig.ledger, time.time_ns() + LATER_NS).expired == []
    rig.ledger.mark_copy(segment.segment_id, copy.volume_id, CopyState.GOOD, time.time_ns())
    assert expire(rig.home, rig.ledger, time.time_ns() + LATER_NS).expired == [made[0]]


def test_an_index_that_does_not_know_of_damage_lets_nothing_go(rig: Rig, tree: Path) -> None:
    """An earlier program has marked the copy: what is shown may be behind, what is done is not."""
    first = rig.queued(tree, retention_days=30)
    made = [rig.run(first), rig.again(first)]
    segment = rig.ledger.segments(made[1])[0]
    (copy,) = rig.ledger.copies(segment.segment_id)
    rig.ledger.mark_copy(segment.segment_id, copy.volume_id, CopyState.DAMAGED, time.time_ns())
    rig.close()
    store(rig.home.ledger, "damaged_segments", text_key(segment.segment_id), None)
    rig.open()
    assert [each.goes for each in verdicts_of(rig.ledger, time.time_ns() + LATER_NS)] == [True, False]
    assert expire(rig.home, rig.ledger, time.time_ns() + LATER_NS).expired == []


@pytest.mark.parametrize("failed", [True, False])
def test_sets_of_a_job_that_cannot_be_read_stay(rig: Rig, tree: Path, failed: bool) -> None:
    """It may be about to go on with one of them. Sets of others go."""
    damaged, sound = (rig.queued(tree, name=name, retention_days=30) for name in ("damaged", "sound"))
    for job in (damaged, sound):
        rig.run(job)
        if failed:
            now = time.time_ns()
            begun = rig.ledger.begin_set(set_of(job.name, rig.ledger.queue_job(job.number, now), started_at_ns=now))
            rig.ledger.fail_set(begun.set_id, "broken", now)
            rig.ledger.finish_job(job.number, JobState.FAILED, "broken", now)
        else:
            rig.again(job)
    rig.close()
    key = job_key(damaged.number)
    value = dict(dump(rig.home.ledger)["jobs"])[key]
    store(rig.home.ledger, "jobs", key, value[:-1] + bytes([value[-1] ^ 1]))
    rig.open()
    now, wish = time.time_ns() + LATER_NS, Wish(failed=True)
    verdicts = {each.backup_set.name: each for each in verdicts_of(rig.ledger, now, wish) if each.why is not Why.NEWEST}
    assert verdicts["damaged"].why is Why.UNREADABLE
    assert "the record of its job" in verdicts["damaged"].reason
    outcome = expire(rig.home, rig.ledger, now, wish)
    assert [rig.ledger.backup_set(each).name for each in outcome.expired] == ["sound"]


CHILD = """
import sys, time
from pathlib import Path
from catalog.lmdb_ledger import LmdbLedger
from tapefs.home import open_home
from tapefs.retention.expire import expire
home = open_home(Path(sys.argv[1]))
with LmdbLedger.open(home.ledger) as ledger:
    expire(home, ledger, time.time_ns() + int(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("point", "expired"),
    [
        ("ledger.expire_set.before", 0),
        ("ledger.expire_set.after", 1),
        ("ledger.expire_set.after:2", 2),
        ("expire.files.before", 2),
        ("expire.index.after", 2),
        ("expire.reports.after", 2),
    ],
)
def test_a_crash_leaves_only_what_the_next_run_removes(rig: Rig, tree: Path, point: str, expired: int) -> None:
    first, second, third = chain(rig, tree)
    gone = files_of(rig, first) + files_of(rig, second)
    command = ["-c", CHILD, rig.home.path, LATER_NS]
    killed = run(*command, env=os.environ | {"TAPEFS_CRASH_AT": point})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert states(rig).count(SetState.EXPIRED) == expired
    for set_id in (first, second, third):
        if rig.ledger.backup_set(set_id).state is SetState.COMPLETE:
            with IndexReader(rig.home.index(set_id)) as reader:
                assert entries(reader)
    assert run(*command).returncode == 0
    assert states(rig) == [SetState.EXPIRED, SetState.EXPIRED, SetState.COMPLETE]
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in files_of(rig, third))
