"""Tapes that are missing, damaged, torn, foreign, or there twice; and rebuilds that are cut off."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from catalog.crash import known_points
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import SegmentCopy, SetState, VolumeState
from drivers.interface import ElementKind
from drivers.registry import open_changer, open_drive
from tapefs.errors import NotNow
from tapefs.rebuild.records import Method
from tests.backup.rig import Rig
from tests.backup.test_stream import PART, Fed, stored
from tests.backup.trees import random_files
from tests.forking.client import run
from tests.rebuild.same import Before, now_indexes, now_trailers, records, reopened, shown
from tests.rebuild.test_import import hand_over
from tests.rebuild.test_rebuild import chain, rebuilt

SMALL = "segment_bytes = 1048576\nthreads = 2"


def taken_away(rig: Rig, tmp_path: Path) -> Before:
    rig.close()
    return Before(rig.home, LmdbLedger.open(rig.home.ledger), tmp_path / "aside")


def tape_file(rig: Rig, copy: SegmentCopy, behind_header: int) -> Path:
    """HEADER 0, PAYLOAD 1, TRAILER 2."""
    label = rig.ledger.volume(copy.volume_id).label
    return rig.home.library / "cartridges" / label / f"{copy.header_file + behind_header:05}"


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x40]))


def indexes_of(rig: Rig, label: str) -> list[Path]:
    volume = rig.ledger.volume_by_label(label)
    places = [
        index.file
        for each in rig.ledger.backup_sets()
        for index in rig.ledger.index_copies(each.set_id)
        if index.volume_id == volume.volume_id
    ]
    return [rig.home.library / "cartridges" / label / f"{place:05}" for place in places]


@pytest.mark.log_warnings
def test_a_damaged_index_costs_nothing(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Wherever the bit is: the trailers of its segments are read instead, by itself; only the index is lost."""
    rig = make_rig(backup_settings=SMALL)
    rig.backup(random_files(tmp_path / "a", 60, 50_000), name="a")
    rig.backup(random_files(tmp_path / "b", 60, 50_000), name="b")
    first, second = indexes_of(rig, "TP0001L9")
    flip(first, 30)
    flip(second, -5)
    before = taken_away(rig, tmp_path)
    report = rebuilt(rig.home)
    reopened(rig)
    assert len(report.outcome.complete) == 2
    assert sum("SET INDEX" in sentence for sentence in report.ignored) == 2
    assert now_indexes(rig.home) == before.indexes()
    assert now_trailers(rig.home) == before.trailers()
    assert rig.ledger.verify() == []
    volume = rig.ledger.volume_by_label("TP0001L9")
    known = before.records["volume TP0001L9"]
    assert (volume.end_block, volume.state) == (getattr(known, "end_block", None), VolumeState.APPENDABLE)


@pytest.mark.log_warnings
@pytest.mark.parametrize("damaged", [(0,), (1,), (1, 2), (3,)])
def test_a_damaged_trailer_is_made_up_for_by_its_payload(
    make_rig: Callable[..., Rig], tmp_path: Path, damaged: tuple[int, ...]
) -> None:
    """First, middle or last: the directories that go on over segments fit, and everything is shown as before."""
    rig = make_rig(backup_settings=SMALL)
    tree = tmp_path / "a"
    for name in ("one", "two/deep", "two/deeper", "zz"):
        random_files(tree / name, 20, 60_000)
    set_id = rig.backup(tree, name="a")
    segments = rig.ledger.segments(set_id)
    assert len(segments) == 5
    for number in damaged:
        (copy,) = rig.ledger.copies(segments[number].segment_id)
        flip(tape_file(rig, copy, 2), 20)
    before = taken_away(rig, tmp_path)
    report = rebuilt(rig.home, Method.TRAILERS)
    reopened(rig)
    assert sum("TRAILER cannot be read" in sentence for sentence in report.ignored) == len(damaged)
    assert [each.set_id for each in report.outcome.complete] == [set_id]
    was, now = (shown(folder / f"{set_id}.lmdb") for folder in (before.aside / "index", rig.home.indexes))
    assert now == was
    assert rig.ledger.segments(set_id) == [
        msgspec.structs.replace(segment, committed_at_ns=now_known.committed_at_ns)
        for segment, now_known in zip(segments, rig.ledger.segments(set_id), strict=True)
    ]
    # What was read from a payload can be read from tape again.
    assert rig.ledger.verify() == []


@pytest.mark.log_warnings
@pytest.mark.parametrize("damaged", [(0,), (1,), (2,), (3,), (0, 2), (1, 2), (0, 3)])
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_damaged_trailer_in_the_middle_of_a_file(
    make_rig: Callable[..., Rig], tmp_path: Path, damaged: tuple[int, ...], is_stream: bool
) -> None:
    """A file that is larger than a segment, or of unknown length while it was written, is whole again."""
    rig = make_rig(backup_settings="segment_bytes = 1048576\nthreads = 2")
    if is_stream:
        set_id = stored(rig, Fed(tmp_path, random.Random(1).randbytes(3 * PART + 9)))
    else:
        set_id = rig.backup(random_files(tmp_path / "a", 1, 3_300_000), name="a")
    segments = rig.ledger.segments(set_id)
    assert len(segments) == 4
    for number in damaged:
        (copy,) = rig.ledger.copies(segments[number].segment_id)
        flip(tape_file(rig, copy, 2), 20)
    before = taken_away(rig, tmp_path)
    report = rebuilt(rig.home, Method.TRAILERS)
    reopened(rig)
    assert [each.set_id for each in report.outcome.complete] == [set_id]
    was, now = (shown(folder / f"{set_id}.lmdb") for folder in (before.aside / "index", rig.home.indexes))
    assert now == was


@pytest.mark.log_warnings
@pytest.mark.parametrize("place", [2, 300, -10])
def test_a_damaged_label(make_rig: Callable[..., Rig], tmp_path: Path, place: int) -> None:
    """SET LABEL and HEADERs tell whose tape it is, even if the LABEL does not look like one any more."""
    rig = make_rig(tapes=1)
    rig.backup(random_files(tmp_path / "a", 9, 5_000), name="a")
    flip(rig.home.library / "cartridges" / "TP0001L9" / "00000", place)
    before = taken_away(rig, tmp_path)
    report = rebuilt(rig.home)
    reopened(rig)
    assert any("LABEL cannot be read" in sentence for sentence in report.ignored)
    assert records(rig.ledger) == before.records
    assert now_indexes(rig.home) == before.indexes()


@pytest.mark.log_warnings
@pytest.mark.parametrize("has_index", [True, False])
def test_a_damaged_header(make_rig: Callable[..., Rig], tmp_path: Path, has_index: bool) -> None:
    """An index tells where its segment lies; without one the set is told, and nobody writes to the tape before somebody
    has looked."""
    rig = make_rig(backup_settings=SMALL)
    set_id = rig.backup(random_files(tmp_path / "a", 60, 50_000), name="a")
    other = rig.backup(random_files(tmp_path / "b", 3, 5_000), name="b")
    segments = rig.ledger.segments(set_id)
    (copy,) = rig.ledger.copies(segments[1].segment_id)
    flip(tape_file(rig, copy, 0), 100)
    if not has_index:
        flip(indexes_of(rig, "TP0001L9")[0], 300)
    before = taken_away(rig, tmp_path)
    report = rebuilt(rig.home)
    reopened(rig)
    assert rig.ledger.verify() == []
    volume = rig.ledger.volume_by_label("TP0001L9")
    if has_index:
        assert len(report.outcome.complete) == 2
        assert records(rig.ledger) == before.records
        assert volume.state is VolumeState.APPENDABLE
        return
    ((incomplete, why),) = report.outcome.incomplete
    assert (incomplete.set_id, incomplete.state) == (set_id, SetState.FAILED)
    assert f"1 of {len(segments)} segments are missing" in why
    assert [each.set_id for each in report.outcome.complete] == [other]
    assert volume.state is VolumeState.SUSPECT
    assert "cannot be read" in volume.reason


@pytest.mark.log_warnings
def test_a_missing_tape_is_named_and_comes_later(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Sets that need it are told with its name, all others are back; with the tape the same command goes on."""
    rig = make_rig(tapes=5, tape_bytes=16 * 1024**2, backup_settings="segment_bytes = 2097152\nthreads = 2")
    tree = random_files(tmp_path / "small", 4, 50_000)
    rig.backup(tree, name="small", type="incremental")
    job = rig.ledger.jobs()[0]
    rig.backup(random_files(tmp_path / "large", 30, 700_000), name="large")
    assert rig.ledger.backup_sets()[1].tapes[:2] == ("TP0001L9", "TP0002L9")
    (tree / "more").write_text("more")
    rig.again(job)
    before = taken_away(rig, tmp_path)

    report = rebuilt(rig.home, Method.INDEX, "TP0001L9")
    assert [each.name for each in report.outcome.complete] == ["small"]
    ((incomplete, why),) = report.outcome.incomplete
    assert (incomplete.name, incomplete.state) == ("large", SetState.FAILED)
    assert "on another tape" in why
    assert report.is_open

    report = rebuilt(rig.home)
    reopened(rig)
    assert len(report.outcome.complete) == 3
    assert records(rig.ledger) == before.records
    assert now_indexes(rig.home) == before.indexes()
    assert rig.ledger.verify() == []
    assert not rig.home.rebuild.exists()


@pytest.mark.log_warnings
def test_the_last_tape_alone_names_the_first(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig(tapes=3, tape_bytes=16 * 1024**2, backup_settings="segment_bytes = 2097152\nthreads = 2")
    rig.backup(random_files(tmp_path / "large", 30, 700_000), name="large")
    before = taken_away(rig, tmp_path)
    report = rebuilt(rig.home, Method.INDEX, "TP0002L9")
    ((_, why),) = report.outcome.incomplete
    assert "segments are missing, on tape TP0001L9" in why
    assert report.is_open
    report = rebuilt(rig.home)
    reopened(rig)
    assert not report.is_open
    assert records(rig.ledger) == before.records


def test_a_tape_that_lies_in_another_drive(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Threaded there, as a sidecar leaves it; only the first drive reads."""
    rig = make_rig(drives=2)
    rig.backup(random_files(tmp_path / "a", 5, 1000), name="a")
    config = rig.home.library_config
    before = taken_away(rig, tmp_path)
    with closing(open_changer(config)) as changer, closing(open_drive(config, 0)) as first:
        first.unload()
        elements = changer.inventory()
        slot = next(each.number for each in elements if each.kind is ElementKind.SLOT and not each.full)
        changer.unload(0, slot)
        changer.load(slot, 1)
        with closing(open_drive(config, 1)) as second:
            second.load()
    report = rebuilt(rig.home)
    assert [each.name for each in report.outcome.complete] == ["a"]
    assert now_indexes(rig.home) == before.indexes()


@pytest.mark.log_warnings
def test_a_torn_segment_at_the_end_is_overwritten_by_the_next(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """What was never finished does not count, and does not keep the tape from being written on."""
    rig = make_rig(backup_settings=SMALL)
    rig.backup(random_files(tmp_path / "a", 20, 50_000), name="a")
    rig.close()
    code = (
        "import sys; from pathlib import Path; from tests.backup.rig import Rig\n"
        "Rig.existing(Path(sys.argv[1])).backup(Path(sys.argv[2]), name='torn')"
    )
    source = random_files(tmp_path / "torn", 60, 50_000)
    child = subprocess.run(
        [sys.executable, "-c", code, str(rig.home.path), str(source)],
        env=os.environ | {"TAPEFS_CRASH_AT": "segment.payload.after:2"},
        check=False,
        timeout=120,
    )
    assert child.returncode == -signal.SIGKILL
    ledger = LmdbLedger.open(rig.home.ledger)
    end_block = ledger.volume_by_label("TP0001L9").end_block
    before = Before(rig.home, ledger, tmp_path / "aside")
    report = rebuilt(rig.home)
    reopened(rig)
    assert any("never finished" in sentence for sentence in report.ignored)
    assert rig.ledger.volume_by_label("TP0001L9").end_block == end_block
    assert [each.name for each in report.outcome.complete] == ["a"]
    assert [each.name for each, _ in report.outcome.incomplete] == ["torn"]
    assert now_indexes(rig.home) == before.indexes()
    again = rig.backup(source, name="again")
    assert rig.ledger.backup_set(again).tapes == ("TP0001L9",)
    assert rig.ledger.verify() == []


@pytest.mark.log_warnings
def test_foreign_tapes_are_left_alone(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig(tapes=3)
    rig.backup(random_files(tmp_path / "a", 3, 5_000), name="a")
    before = taken_away(rig, tmp_path)
    changer = open_changer(rig.home.library_config)
    from drivers.registry import open_drive

    drive = open_drive(rig.home.library_config, 0)
    slot = next(each.number for each in changer.inventory() if each.barcode == "TP0003L9")
    if drive.status().barcode is not None:
        drive.unload()
        free = next(each.number for each in changer.inventory() if not each.full and each.kind.value == "slot")
        changer.unload(0, free)
    changer.load(slot, 0)
    drive.load()
    drive.write_block(b"AMANDA: TAPESTART DATE 20260101 TAPE T1".ljust(32768, b"\0"))
    drive.write_filemarks(1, sync=True)
    drive.unload()
    drive.close()
    changer.close()
    report = rebuilt(rig.home)
    reopened(rig)
    assert "AMANDA" in report.passed_over["TP0003L9"]
    assert "blank" in report.passed_over["TP0002L9"]
    assert records(rig.ledger) == before.records


@pytest.mark.log_warnings
def test_a_tape_that_is_there_twice_counts_once(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """A cartridge that was copied block by block has the id of the first; and one that nobody has is told."""
    rig = make_rig(tapes=1)
    rig.backup(random_files(tmp_path / "a", 3, 5_000), name="a")
    hand_over(rig.home, rig.home, "TP0001L9", "TP0009L9")
    before = taken_away(rig, tmp_path)
    report = rebuilt(rig.home, Method.INDEX, "TP0001L9", "TP0009L9", "TP0777L9")
    reopened(rig)
    assert "as TP0001L9 does" in report.passed_over["TP0009L9"]
    assert "nobody could put tape TP0777L9" in report.passed_over["TP0777L9"]
    assert report.is_open
    assert records(rig.ledger) == before.records


@pytest.mark.log_warnings
def test_a_copy_takes_the_place_of_a_missing_tape(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig(tapes=2)
    kept = rig.backup(
        random_files(tmp_path / "a", 9, 30_000), name="a", type="archive", copies=2, keep_sources=True, verify=True
    )
    taken_away(rig, tmp_path)
    report = rebuilt(rig.home, Method.INDEX, "TP0002L9")
    assert [each.set_id for each in report.outcome.complete] == [kept]
    assert not report.is_open
    reopened(rig)
    assert rig.ledger.backup_set(kept).tapes == ("TP0002L9",)
    assert rig.ledger.verify() == []


def test_a_catalog_with_sets_is_not_rebuilt(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig()
    rig.backup(random_files(tmp_path / "a", 3, 5_000), name="a")
    rig.close()
    with pytest.raises(NotNow, match="has sets already"):
        rebuilt(rig.home)


CHILD = """
import sys
from pathlib import Path
from tapefs.home import open_home
from tests.rebuild.test_rebuild import rebuilt
rebuilt(open_home(Path(sys.argv[1])))
"""


def crash_points() -> list[str]:
    own = sorted(name for name in known_points() if name.startswith(("rebuild.", "ledger.adopt.", "ledger.take_")))
    return [*own, "rebuild.trailer.after:3", "rebuild.set.after:2", "index.rename.before", "ledger.complete_set.after"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Before]:
    """Return a state folder without a catalog, and what that was."""
    folder = tmp_path_factory.mktemp("bare")
    rig = Rig(folder, tapes=2, backup_settings="segment_bytes = 1048576")
    chain(rig, folder)
    return rig.home.path, taken_away(rig, folder)


@pytest.mark.log_warnings
@pytest.mark.parametrize("point", crash_points())
def test_killed_at(point: str, bare: tuple[Path, Before], tmp_path: Path) -> None:
    """Killed anywhere, the same command goes on, and the catalog is as it was."""
    path, before = bare
    home = tmp_path / "home"
    shutil.copytree(path, home, symlinks=True)
    environment = os.environ | {"TAPEFS_CRASH_AT": point}
    child = run("-c", CHILD, home, env=environment, timeout=120)
    assert child.returncode == -signal.SIGKILL, child.stderr
    again = Rig.__new__(Rig)
    from tapefs.home import open_home

    again.home = open_home(home)
    rebuilt(again.home)
    reopened(again)
    try:
        assert records(again.ledger) == before.records
        assert now_indexes(again.home) == before.indexes()
        assert now_trailers(again.home) == before.trailers()
        assert again.ledger.verify() == []
        assert not again.home.rebuild.exists()
    finally:
        again.close()
