"""The index that is built while the backup runs is the one that would be built at the end, or it is not used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.crash import VARIABLE
from catalog.ids import SetId
from catalog.index.reader import IndexReader
from drivers.virtual.faults import EarlyEnd
from tapefs.backup import early_index
from tapefs.backup.early_index import EarlyIndex
from tapefs.errors import Cancelled
from tapefs.sets import finish
from tapefs.sets.build import build_index
from tapefs.sets.follower import NOT_WANTED, SPOILT
from tests.backup.rig import Rig
from tests.backup.test_resume import to_resume
from tests.backup.test_trouble import with_faults
from tests.backup.trees import odd_tree, random_files

SEGMENTS = f"segment_bytes = {2 * 1024**2}\nframe_bytes = 65536"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_index, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr("tapefs.backup.engine._PROGRESS_EVERY_S", 0.0)  # It looks often whether it is cancelled.


@pytest.fixture
def built_late(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Tell which indexes were built at the end."""
    found: list[Path] = []

    def build(path: Path, *arguments: object, **named: object) -> object:
        found.append(path)
        return build_index(path, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(finish, "build_index", build)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = random_files(tmp_path / "tree", 60, 150_000)
    (tree / "odd").mkdir()
    odd_tree(tree / "odd")
    (tree / "large").write_bytes(os.urandom(5_000_000))
    os.link(tree / "file-00007", tree / "zz")
    return tree


def is_as_built_at_the_end(rig: Rig, set_id: SetId, base: SetId | None = None) -> bool:
    """Compare it, byte by byte, with the index that its trailers give."""
    other = rig.home.indexes / "other.lmdb"
    trailers = [rig.home.trailer(segment.segment_id) for segment in rig.ledger.segments(set_id)]
    below = None if base is None else IndexReader(rig.home.index(base))
    try:
        build_index(other, set_id, trailers, below)
    finally:
        if below is not None:
            below.close()
    try:
        return rig.home.index(set_id).read_bytes() == other.read_bytes() and rig.home.names(set_id).exists()
    finally:
        other.unlink()


@pytest.mark.parametrize("settings", ["", SEGMENTS, f"{SEGMENTS}\nspool = true"])
def test_it_is_the_same(make_rig: Callable[..., Rig], tree: Path, built_late: list[Path], settings: str) -> None:
    rig = make_rig(backup_settings=settings)
    set_id = rig.backup(tree)
    assert built_late == []
    assert len(rig.ledger.segments(set_id)) > (3 if settings else 0)
    assert is_as_built_at_the_end(rig, set_id)


def test_on_a_base(rig: Rig, tree: Path, built_late: list[Path]) -> None:
    job = rig.queued(tree)
    first = rig.run(job)
    (tree / "file-00003").unlink()
    (tree / "new").write_text("new")
    second = rig.again(job, type="incremental")
    assert rig.ledger.backup_set(second).parent_id == first
    assert built_late == []
    assert is_as_built_at_the_end(rig, second, first)


def test_a_run_that_goes_on(make_rig: Callable[..., Rig], tree: Path, built_late: list[Path]) -> None:
    """The segments of the run that was interrupted are in it."""
    rig = make_rig(backup_settings=SEGMENTS)
    job = rig.queued(tree)

    def interrupt() -> None:
        if len(rig.ledger.segments(rig.ledger.backup_sets()[-1].set_id)) >= 2:
            raise Cancelled("interrupted")

    rig.watcher.interrupt = interrupt
    with pytest.raises(Cancelled):
        rig.run(job)
    assert leftovers(rig) == []
    rig.watcher.interrupt = lambda: None
    set_id = rig.run(to_resume(rig, job))
    assert built_late == []
    assert is_as_built_at_the_end(rig, set_id)


def test_a_segment_that_is_written_anew(make_rig: Callable[..., Rig], tree: Path, built_late: list[Path]) -> None:
    """The tape ends within it: what was taken in of it is wrong, and the index is built at the end."""
    rig = make_rig(backup_settings=SEGMENTS)
    with_faults(rig, EarlyEnd(block=20, barcode="TP0001L9", warning_blocks=0))
    set_id = rig.backup(tree)
    assert rig.ledger.backup_set(set_id).tapes == ("TP0001L9", "TP0002L9")
    assert built_late == [rig.home.index(set_id)]
    assert is_as_built_at_the_end(rig, set_id)
    assert leftovers(rig) == []


@pytest.mark.log_warnings
def test_a_process_that_is_killed(
    rig: Rig, tree: Path, built_late: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = EarlyIndex._start

    def start_and_kill(self: EarlyIndex) -> None:
        start(self)
        assert self._process is not None
        self._process.kill()

    monkeypatch.setattr(EarlyIndex, "_start", start_and_kill)
    set_id = rig.backup(tree)
    assert built_late == [rig.home.index(set_id)]
    assert is_as_built_at_the_end(rig, set_id)


@pytest.mark.log_warnings
@pytest.mark.parametrize("point", ["index.rename.before", "index.rename.after"])
def test_a_process_that_dies_at_the_end(
    rig: Rig, tree: Path, built_late: list[Path], monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Behind the rename the index is there, and is used."""
    monkeypatch.setenv(VARIABLE, point)
    set_id = rig.backup(tree)
    assert built_late == ([] if point.endswith("after") else [rig.home.index(set_id)])
    assert is_as_built_at_the_end(rig, set_id)


def test_nothing_is_left_of_a_backup_that_fails(
    make_rig: Callable[..., Rig], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig(backup_settings=SEGMENTS)

    seen: list[Path] = []

    def interrupt() -> None:
        deadline_s = time.monotonic() + 60
        while not seen and time.monotonic() < deadline_s:
            seen.extend(rig.home.indexes.glob("*.new"))
        raise Cancelled("interrupted")

    begin = EarlyIndex.begin

    def begin_two(self: EarlyIndex, growing: Path, whole: Path) -> None:
        begin(self, growing, whole)
        if self._process is not None:
            rig.watcher.interrupt = interrupt

    monkeypatch.setattr(EarlyIndex, "begin", begin_two)
    with pytest.raises(Cancelled):
        rig.backup(tree)
    assert len(seen) == 1
    assert leftovers(rig) == []


def leftovers(rig: Rig) -> list[str]:
    return [path.name for path in rig.home.indexes.iterdir() if ".new" in path.name or path.name.startswith(".")]


# -- the process -----------------------------------------------------------------------------------------------------


class Follower:
    """The process, and what it is told."""

    def __init__(self, rig: Rig, set_id: SetId) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "tapefs.sets.follower"], stdin=subprocess.PIPE)
        self.say(type="task", home=str(rig.home.path), set_id=set_id)

    def say(self, **word: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(word).encode() + b"\n")
        self.process.stdin.flush()

    def end(self) -> int:
        """Close its input and return its exit code."""
        self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture
def copied(make_rig: Callable[..., Rig], tree: Path, tmp_path: Path) -> tuple[Rig, SetId, Path]:
    """A set of one segment without its index and names, and its trailer, which is not in its place."""
    rig = make_rig(backup_settings=f"segment_bytes = {64 * 1024**2}")
    set_id = rig.backup(tree)
    rig.home.index(set_id).unlink()
    rig.home.names(set_id).unlink()
    [segment] = rig.ledger.segments(set_id)
    trailer = rig.home.trailer(segment.segment_id)
    return rig, set_id, trailer.rename(tmp_path / "trailer")


def sealed(rig: Rig, set_id: SetId) -> dict[str, object]:
    done = rig.ledger.backup_set(set_id)
    segments = [segment.segment_id for segment in rig.ledger.segments(set_id)]
    return {"type": "sealed", "promised": [done.files, done.directories, done.bytes], "segments": segments}


def test_it_follows_what_grows(copied: tuple[Rig, SetId, Path]) -> None:
    """Byte after byte; there is nothing to be seen of the index before the set is sealed."""
    rig, set_id, source = copied
    whole = rig.home.trailer(rig.ledger.segments(set_id)[0].segment_id)
    follower = Follower(rig, set_id)
    with whole.with_suffix(".part").open("wb", buffering=0) as part:
        follower.say(type="begun", growing=part.name, whole=str(whole))
        content = source.read_bytes()
        for start in range(0, len(content), 500):
            part.write(content[start : start + 500])
            time.sleep(0.005)
        Path(part.name).rename(whole)
    time.sleep(0.2)
    assert not rig.home.index(set_id).exists()
    follower.say(**sealed(rig, set_id))
    assert follower.process.wait(60) == 0
    follower.end()
    assert is_as_built_at_the_end(rig, set_id)


def test_a_trailer_that_is_given_up(copied: tuple[Rig, SetId, Path]) -> None:
    rig, set_id, source = copied
    whole = rig.home.trailer(rig.ledger.segments(set_id)[0].segment_id)
    follower = Follower(rig, set_id)
    part = whole.with_suffix(".part")
    part.write_bytes(source.read_bytes()[:1000])
    follower.say(type="begun", growing=str(part), whole=str(whole))
    time.sleep(0.5)
    part.unlink()
    assert follower.process.wait(60) == SPOILT
    follower.end()
    assert leftovers(rig) == []


@pytest.mark.parametrize("changes", [{"segments": []}, {"promised": [1, 2, 3]}])
def test_another_set_than_promised(copied: tuple[Rig, SetId, Path], changes: dict[str, object]) -> None:
    rig, set_id, source = copied
    whole = rig.home.trailer(rig.ledger.segments(set_id)[0].segment_id)
    source.rename(whole)
    follower = Follower(rig, set_id)
    follower.say(type="begun", growing=str(whole), whole=str(whole))
    follower.say(**sealed(rig, set_id) | changes)
    assert follower.process.wait(60) == (SPOILT if "segments" in changes else 1)
    follower.end()
    assert not rig.home.index(set_id).exists()
    assert leftovers(rig) == []


def test_a_mover_that_is_gone(copied: tuple[Rig, SetId, Path]) -> None:
    rig, set_id, source = copied
    whole = rig.home.trailer(rig.ledger.segments(set_id)[0].segment_id)
    part = whole.with_suffix(".part")
    part.write_bytes(source.read_bytes()[:1000])
    follower = Follower(rig, set_id)
    follower.say(type="begun", growing=str(part), whole=str(whole))
    assert follower.end() == NOT_WANTED
    assert leftovers(rig) == []
