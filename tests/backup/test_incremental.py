"""Sets that build on others: what they show is what was there, and what they store is what has changed."""

from __future__ import annotations

import errno
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from catalog.ids import SetId
from catalog.index.model import Entry, EntryFlag
from catalog.index.reader import IndexReader
from catalog.records import Job, JobState, SetState
from sidecar.jobs.going_on import finish
from tapefs.backup import base, intake, scout, scouts
from tapefs.backup.scan import OpenDirectory
from tapefs.backup.scout import Scout
from tapefs.backup.small import SmallFiles
from tapefs.backup.source import Source
from tapefs.sets.finish import finish_all
from tests.backup.edits import Editor, looks, shown
from tests.backup.rig import Rig
from tests.backup.trees import entries, extract, odd_tree, random_files, snapshot
from tests.forking.client import run

#: The first tape ends within a segment.
EARLY_END = '[{"kind": "early_end", "block": 120, "barcode": "TP0001L9", "warning_blocks": 0}]'


def first(rig: Rig, *sources: Path) -> tuple[Job, SetId]:
    """Run a full backup; return its job too."""
    job = rig.queued(*sources)
    return job, rig.run(job)


def shown_by(rig: Rig, set_id: SetId, tree: Path) -> dict[bytes, object]:
    with IndexReader(rig.home.index(set_id)) as reader:
        return dict(shown(reader, tree))


def check_totals(rig: Rig, set_id: SetId) -> None:
    backup_set = rig.ledger.backup_set(set_id)
    assert backup_set.state is SetState.COMPLETE
    with IndexReader(rig.home.index(set_id)) as reader:
        assert reader.totals[1:] == (backup_set.directories, backup_set.files, backup_set.bytes)


@pytest.mark.parametrize("seed", range(6))
def test_every_set_of_a_chain_shows_its_own_time(rig: Rig, tmp_path: Path, seed: int) -> None:
    """After each of many random changes an incremental or differential set shows the tree as it is then, for ever."""
    tree = tmp_path / "tree"
    editor = Editor(tree, seed)
    job, set_id = first(rig, tree)
    expected = {set_id: looks(tree)}
    for number in range(8):
        editor.edit(1 + 2 * number)
        set_id = rig.again(job, type="differential" if number in (3, 6) else "incremental")
        expected[set_id] = looks(tree)
        check_totals(rig, set_id)
        assert shown_by(rig, set_id, tree) == expected[set_id], f"step {number}"
    for set_id, look in expected.items():
        assert shown_by(rig, set_id, tree) == look


def test_the_same_with_processes_that_look_ahead(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small trees are looked at by one process; with more it is the same."""
    monkeypatch.setattr(scouts, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(scouts, "LEAST_RANGE", 1)
    test_every_set_of_a_chain_shows_its_own_time(rig, tmp_path, 7)


@pytest.mark.log_warnings
def test_a_process_that_fails_hides_nothing(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has looked at is looked at by the walk."""
    monkeypatch.setattr(scouts, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr("tapefs.backup.scouts.sys", SimpleNamespace(executable="/bin/false"))
    monkeypatch.setattr(Scout, "step", lambda _: False)
    test_every_set_of_a_chain_shows_its_own_time(rig, tmp_path, 8)


def test_a_long_chain(rig: Rig, tmp_path: Path) -> None:
    """Twenty sets deep, each shows its own time."""
    tree = tmp_path / "tree"
    editor = Editor(tree, 20)
    job, set_id = first(rig, tree)
    expected = {set_id: looks(tree)}
    for _ in range(20):
        editor.edit(2)
        expected[rig.again(job, type="incremental")] = looks(tree)
    for set_id, look in expected.items():
        assert shown_by(rig, set_id, tree) == look


def test_nothing_changed(rig: Rig, tmp_path: Path) -> None:
    """A set in which nothing changed stores nothing, has a trailer of a few lines, and shows everything."""
    tree = tmp_path / "tree"
    Editor(tree, 1)
    job, full = first(rig, tree)
    again = rig.again(job, type="incremental")
    backup_set = rig.ledger.backup_set(again)
    assert (backup_set.type, backup_set.parent_id) == ("incremental", full)
    (segment,) = rig.ledger.segments(again)
    assert segment.members == 0
    assert shown_by(rig, again, tree) == looks(tree)
    assert backup_set.files == rig.ledger.backup_set(full).files


def test_what_has_settled_is_said_again_and_not_stored(
    rig: Rig, settled: Path, later: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was fresh is compared by content once; what is found equal is then taken by its times."""
    monkeypatch.setattr(base, "FRESH_NS", 3600 * 10**9)  # A busy machine takes more than two seconds.
    job, set_id = first(rig, settled)
    assert entry_of(rig, set_id, settled / "keep").flags & EntryFlag.FRESH
    still_fresh = rig.again(job, type="incremental")
    assert stored(rig, still_fresh) == (0, 0)
    assert entry_of(rig, still_fresh, settled / "keep").flags & EntryFlag.FRESH
    later()
    second = rig.again(job, type="incremental")
    assert stored(rig, second) == (3, 0)
    assert not entry_of(rig, second, settled / "keep").flags & EntryFlag.FRESH
    assert shown_by(rig, second, settled) == looks(settled)
    third = rig.again(job, type="incremental")
    assert stored(rig, third) == (0, 0)
    assert shown_by(rig, third, settled) == looks(settled)


@pytest.fixture
def settled(tmp_path: Path) -> Path:
    """Return a tree of three files."""
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    for path in ("keep", "deep/one", "deep/two"):
        (tree / path).write_bytes(os.urandom(10_000))
    return tree


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what puts the clock forward that tells what is fresh."""
    clock = SimpleNamespace(time_ns=lambda: time.time_ns() + 7200 * 10**9)
    return lambda: monkeypatch.setattr(base, "time", clock)


def entry_of(rig: Rig, set_id: SetId, path: Path) -> Entry:
    with IndexReader(rig.home.index(set_id)) as reader:
        return entries(reader)[bytes(path)[1:]]


def stored(rig: Rig, set_id: SetId) -> tuple[int, int]:
    """Return how many files a set says something of, and how much content it has."""
    with IndexReader(rig.home.index(set_id)) as reader:
        segments = rig.ledger.segments(set_id)
        own = [
            entry.size
            for entry in entries(reader).values()
            if stat.S_ISREG(entry.mode) and entry.segment >= reader.segments_first
        ]
    return sum(segment.members for segment in segments), sum(own)


def test_checksum_stores_only_other_content(rig: Rig, settled: Path, later: Callable[[], None]) -> None:
    """Content decides what is stored; what else has changed is said without it."""
    job, _ = first(rig, settled)
    later()
    os.utime(settled / "keep", ns=(5, 5))
    (settled / "deep/one").chmod(0o600)
    status = (settled / "deep/two").stat()
    (settled / "deep/two").write_bytes(os.urandom(10_000))
    os.utime(settled / "deep/two", ns=(status.st_atime_ns, status.st_mtime_ns))
    second = rig.again(job, type="incremental", checksum=True)
    assert stored(rig, second) == (3, 10_000)
    assert shown_by(rig, second, settled) == looks(settled)
    third = rig.again(job, type="incremental", checksum=True)
    assert stored(rig, third) == (0, 0)
    assert shown_by(rig, third, settled) == looks(settled)


def test_what_could_not_be_read_is_read_again(rig: Rig, settled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is in the base without its content, or with a mark, is stored although it has not changed."""
    real = os.open

    def broken(path: object, *arguments: object, **names: object) -> int:
        if path == b"one":
            raise OSError(errno.EIO, "broken")
        return real(path, *arguments, **names)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", broken)
        patch.setattr(Source, "has_changed", lambda source: source.name == b"two")
        patch.setattr(SmallFiles, "take", lambda *_: None)
        job, set_id = first(rig, settled)
    assert entry_of(rig, set_id, settled / "deep/one").flags & EntryFlag.UNREADABLE
    assert entry_of(rig, set_id, settled / "deep/two").flags & EntryFlag.CHANGED
    second = rig.again(job, type="incremental")
    assert stored(rig, second)[1] == 20_000
    assert shown_by(rig, second, settled) == looks(settled)


def test_what_vanishes_before_it_is_read_is_gone(rig: Rig, settled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed file that is gone when its turn comes is not shown as it was before."""
    job, _ = first(rig, settled)
    (settled / "deep/one").write_text("changed")
    real = Source.open

    def gone(directory: OpenDirectory, name: bytes, *arguments: Any, **options: Any) -> Source:
        if name == b"one":
            (settled / "deep/one").unlink(missing_ok=True)
        return real(directory, name, *arguments, **options)

    monkeypatch.setattr(Source, "open", gone)
    second = rig.again(job, type="incremental")
    assert shown_by(rig, second, settled).keys() == looks(settled).keys()
    assert bytes(settled / "deep/one")[1:] not in shown_by(rig, second, settled)


def test_large_directories(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listings longer than a batch, a block and a line."""
    monkeypatch.setattr(intake, "_LONGEST_LISTING", 100)
    monkeypatch.setattr(scout, "_LONGEST_LISTING", 1000)
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(3000):
        (tree / f"{number:05}").touch()
    for number in range(300):
        (tree / f"d{number:05}").mkdir()
    job, _ = first(rig, tree)
    for number in range(0, 3000, 3):
        (tree / f"{number:05}").unlink()
    for number in range(0, 300, 2):
        (tree / f"d{number:05}").rmdir()
    (tree / "00001").write_text("x")
    (tree / "02999x").write_text("x")
    second = rig.again(job, type="incremental")
    assert shown_by(rig, second, tree) == looks(tree)


@pytest.mark.parametrize("faults", ["[]", EARLY_END])
def test_a_run_over_several_tapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: str) -> None:
    """A lost segment is written again on another tape, and the set shows everything once."""
    monkeypatch.setenv("TAPEFS_FAULTS", faults)
    rig = Rig(tmp_path, tapes=5, tape_bytes=96 * 1024**2, backup_settings="segment_bytes = 8388608")
    try:
        tree = random_files(tmp_path / "tree", 10, 1_000_000)
        job, _ = first(rig, tree)
        for number in range(30):
            random_files(tree / f"more-{number:02}", 2, 2_000_000, seed=number)
        for number in range(0, 10, 2):
            (tree / f"file-{number:05}").write_bytes(os.urandom(50_000))
        (tree / "file-00001").unlink()
        second = rig.again(job, type="incremental")
        assert len(rig.ledger.backup_set(second).tapes) > 1
        check_totals(rig, second)
        assert shown_by(rig, second, tree) == looks(tree)
    finally:
        rig.close()


@pytest.mark.log_warnings
def test_a_base_that_cannot_be_read_makes_the_next_set_full(rig: Rig, settled: Path) -> None:
    """Better too much on tape than no backup."""
    job, set_id = first(rig, settled)
    rig.home.index(set_id).write_bytes(b"no index")
    second = rig.again(job, type="incremental")
    backup_set = rig.ledger.backup_set(second)
    assert (backup_set.type, backup_set.parent_id, backup_set.files) == ("full", None, 3)
    assert shown_by(rig, second, settled) == looks(settled)


def test_what_is_excluded_from_now_on_is_gone(rig: Rig, settled: Path) -> None:
    """A pattern that is added later removes what the base has; one that is dropped brings it back."""
    job, _ = first(rig, settled)
    second = rig.again(job, type="incremental", excludes=("one",))
    assert bytes(settled / "deep/one")[1:] not in shown_by(rig, second, settled)
    third = rig.again(job, type="incremental", excludes=())
    assert shown_by(rig, third, settled) == looks(settled)


def test_the_job_is_another_after_its_sources_changed(rig: Rig, settled: Path, tmp_path: Path) -> None:
    """Sources that are added or dropped come and go in the tree of the next set."""
    other = random_files(tmp_path / "other", 3, 100)
    job, _ = first(rig, settled / "deep")
    second = rig.again(job, type="incremental", sources=(bytes(settled), bytes(other)))
    assert shown_by(rig, second, settled) == looks(settled)
    assert shown_by(rig, second, other) == looks(other)
    third = rig.again(job, type="incremental", sources=(bytes(other),))
    assert not shown_by(rig, third, settled)
    assert shown_by(rig, third, other) == looks(other)


def test_foreign_tar_restores_the_chain(rig: Rig, tmp_path: Path) -> None:
    """All payloads unpacked in order give the newest tree; only what was deleted comes back, as the docs say."""
    tree = odd_tree(tmp_path)
    job, _ = first(rig, tree)
    (tree / "plain").write_text("another")
    (tree / "level-00" / "new").write_text("new")
    (tree / "level-00").chmod(0o700)
    rig.again(job, type="incremental")
    out = extract(rig, tmp_path / "out", "tar -p")
    assert snapshot(Path(f"{out}{tree}")) == snapshot(tree)


KILLED = [
    "ledger.begin_set.after",
    "segment.intent.after",
    "segment.frame.after",
    "segment.trailer.after",
    "segment.commit.after",
    "set_index.after",
    "ledger.seal_set.after",
    "index.rename.before",
    "index.rename.after",
    "ledger.complete_set.before",
]


@pytest.mark.parametrize("point", KILLED)
def test_killed_at(tmp_path: Path, point: str) -> None:
    """After a kill and a restart there are whole sets only, and the next incremental one shows the tree."""
    rig = Rig(tmp_path)
    tree = tmp_path / "tree"
    editor = Editor(tree, 3)
    _, full = first(rig, tree)
    before = looks(tree)
    rig.close()
    editor.edit(10)
    environment = {**os.environ, "TAPEFS_CRASH_AT": point}
    child = run("-m", "tests.backup.incremental_child", rig.home.path, env=environment)
    assert child.returncode == -signal.SIGKILL, child.stderr
    rig = Rig.existing(rig.home.path)
    try:
        (job,) = rig.ledger.jobs()
        after = looks(tree)
        finish(rig.home, rig.ledger, job.number, JobState.FAILED, "interrupted", time.time_ns())
        finish_all(rig.home, rig.ledger, time.time_ns())
        for each in rig.ledger.backup_sets():
            assert each.state in (SetState.COMPLETE, SetState.FAILED)
            if each.state is SetState.COMPLETE:
                assert shown_by(rig, each.set_id, tree) == (before if each.set_id == full else after)
        again = rig.again(job, type="incremental")
        assert rig.ledger.backup_set(again).type == "incremental"
        assert shown_by(rig, again, tree) == after
    finally:
        rig.close()
