"""A copy is read back: what is wrong with it is found and named, what is not is not."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from catalog.ids import SetId
from catalog.records import CopyState, SegmentCopy
from drivers.errors import PositionLost
from drivers.virtual.faults import FaultyDrive, ReadError, Reset
from tapefs.codecs import CODECS
from tapefs.errors import Cancelled
from tapefs.format.lines import read_lines
from tapefs.format.records import FrameLine, TrailerLine
from tapefs.verify.damage import read_damage
from tests.backup.trees import odd_tree, random_files
from tests.compare.every_kind import every_kind
from tests.verify.conftest import Bench


@pytest.fixture
def made(bench: Bench, tmp_path: Path) -> tuple[SetId, SegmentCopy]:
    """A set of several segments with small files, odd names, and files over many frames; its first segment."""
    tree = odd_tree(tmp_path)
    random_files(tree / "a-small", 300, 3000)
    random_files(tree / "b-large", 6, 700_000)
    set_id = bench.rig.backup(tree)
    copies = bench.copies(set_id)
    assert len(copies) > 1
    return set_id, copies[0]


def named(bench: Bench, copy: SegmentCopy) -> list[bytes]:
    """The paths in the damage file."""
    read = read_damage(bench.rig.home.damage(copy.segment_id, copy.volume_id))
    assert read is not None
    assert read[0].problems
    assert read[0].tape == bench.rig.ledger.volume(copy.volume_id).label
    return list(read[1])


def state(bench: Bench, copy: SegmentCopy) -> tuple[CopyState, bool]:
    (now,) = bench.rig.ledger.copies(copy.segment_id)
    return now.state, now.verified_at_ns > 0


def test_what_is_good_is_found_good(bench: Bench, made: tuple[SetId, SegmentCopy]) -> None:
    """All segments, in any order, without any reason to go back on the tape."""
    copies = bench.copies(made[0])
    for copy in copies:
        finding = bench.verify(copy)
        assert finding.problems == []
        assert state(bench, copy) == (CopyState.GOOD, True)
        assert read_damage(bench.rig.home.damage(copy.segment_id, copy.volume_id)) is None
    read = bench.rig.drive.status().counters
    assert bench.follower.lost == []
    # One locate each to begin with; HEADER, PAYLOAD and TRAILER then follow each other.
    assert read.locates <= len(copies)
    assert bench.verify(copies[0]).is_good


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.95])
def test_a_flipped_byte_costs_the_files_of_its_frame(
    bench: Bench, made: tuple[SetId, SegmentCopy], share: float
) -> None:
    """Exactly those are named that the catalog has in the frame; the copy is marked, and other copies are not."""
    set_id, copy = made
    place = int(share * bench.rig.ledger.segment(copy.segment_id).stored_bytes)
    bench.flip(copy, place)
    finding = bench.verify(copy)
    expected = bench.files_at(set_id, copy, place, place + 1)
    assert expected
    assert set(named(bench, copy)) == expected
    assert set(bench.follower.lost) == expected
    assert (finding.files, len(finding.frames)) == (len(expected), 1)
    assert state(bench, copy) == (CopyState.DAMAGED, True)
    assert all(state(bench, other) == (CopyState.GOOD, False) for other in bench.copies(set_id)[1:])


def test_several_damaged_places(bench: Bench, made: tuple[SetId, SegmentCopy]) -> None:
    set_id, copy = made
    places = random.Random(1).sample(range(bench.rig.ledger.segment(copy.segment_id).stored_bytes - 2000), 5)
    for place in places:
        bench.flip(copy, place)
    expected = set().union(*(bench.files_at(set_id, copy, place, place + 1) for place in places))
    bench.verify(copy)
    assert set(named(bench, copy)) == expected


@pytest.mark.parametrize("times", [1, 0])
def test_an_unreadable_block(bench: Bench, made: tuple[SetId, SegmentCopy], times: int) -> None:
    """What lies behind it is located and read; a block that was unreadable once and could be read again, too."""
    set_id, copy = made
    block = 40
    drive = FaultyDrive(bench.rig.drive, [ReadError(block=copy.payload_block + block, times=times)])
    finding = bench.verify(copy, drive)
    expected = bench.files_at(set_id, copy, block * 4096, (block + 1) * 4096)
    found = set(named(bench, copy))
    assert found == expected if times == 0 else found <= expected
    assert found
    assert "unreadable" in finding.problems[0]
    assert state(bench, copy) == (CopyState.DAMAGED, True)


def test_a_stretch_of_unreadable_blocks(bench: Bench, made: tuple[SetId, SegmentCopy]) -> None:
    """All that lies in it is named, what lies far behind it is not; and not every block of it is tried."""
    set_id, copy = made
    first, last = 20, 500
    faults = [ReadError(block=copy.payload_block + block, times=0) for block in range(first, last)]
    drive = FaultyDrive(bench.rig.drive, faults)
    bench.verify(copy, drive)
    found = set(named(bench, copy))
    assert found >= bench.files_at(set_id, copy, first * 4096, last * 4096)
    everything = bench.files_at(set_id, copy, 0, 2**40)
    assert found < everything
    assert bench.files_at(set_id, copy, 0, 4096) <= everything - found


def test_a_payload_that_ends_too_early(bench: Bench, made: tuple[SetId, SegmentCopy]) -> None:
    """Bytes are missing at its end: the frames there are lost, those before are not."""
    set_id, copy = made
    payload = bench.tape_file(copy, 1)
    size = payload.stat().st_size
    with payload.open("r+b") as file:
        file.truncate(size // 2)
    bench.verify(copy)
    assert set(named(bench, copy)) == bench.files_at(set_id, copy, size // 2, size)


@pytest.mark.parametrize(("part", "word"), [(0, "HEADER"), (2, "TRAILER")])
def test_a_damaged_structure_costs_no_file(bench: Bench, made: tuple[SetId, SegmentCopy], part: int, word: str) -> None:
    """The copy is marked all the same: a catalog that is rebuilt from tape needs it."""
    _, copy = made
    bench.flip(copy, bench.tape_file(copy, part).stat().st_size // 2, part)
    finding = bench.verify(copy)
    assert [problem.partition(":")[0] for problem in finding.problems] == [word]
    assert named(bench, copy) == []
    assert state(bench, copy) == (CopyState.DAMAGED, True)


def test_the_end_of_the_payload_costs_no_file(bench: Bench, made: tuple[SetId, SegmentCopy]) -> None:
    """The seek table is behind the last frame: only the SHA-256 of the payload knows."""
    _, copy = made
    bench.flip(copy, bench.tape_file(copy, 1).stat().st_size - 1)
    finding = bench.verify(copy)
    assert finding.problems == ["PAYLOAD: its SHA-256 is another"]
    assert named(bench, copy) == []


def test_without_a_local_trailer_that_on_tape_serves(bench: Bench, made: tuple[SetId, SegmentCopy]) -> None:
    set_id, copy = made
    bench.rig.home.trailer(copy.segment_id).unlink()
    assert bench.verify(copy).is_good
    bench.flip(copy, 1000)
    bench.verify(copy)
    assert set(named(bench, copy)) == bench.files_at(set_id, copy, 1000, 1001)


@pytest.mark.log_warnings
def test_a_damaged_local_trailer_is_not_the_tape_s_fault(
    bench: Bench, made: tuple[SetId, SegmentCopy], caplog: pytest.LogCaptureFixture
) -> None:
    _, copy = made
    local = bench.rig.home.trailer(copy.segment_id)
    local.write_bytes(local.read_bytes()[:-5])
    assert bench.verify(copy).is_good


def test_without_any_trailer_the_payload_s_sum_decides(bench: Bench, made: tuple[SetId, SegmentCopy]) -> None:
    _, copy = made
    bench.rig.home.trailer(copy.segment_id).unlink()
    bench.flip(copy, 500, 2)
    (problem,) = bench.verify(copy).problems
    assert problem.startswith("TRAILER: ")
    bench.flip(copy, 5000)
    assert [problem.partition(":")[0] for problem in bench.verify(copy).problems] == ["TRAILER", "PAYLOAD"]


def test_a_copy_that_reads_well_again_is_good(bench: Bench, made: tuple[SetId, SegmentCopy]) -> None:
    """The newest reading counts, and its damage file goes."""
    _, copy = made
    for expected in (CopyState.DAMAGED, CopyState.GOOD):
        bench.flip(copy, 1000)
        bench.verify(copy)
        assert state(bench, copy) == (expected, True)
    assert read_damage(bench.rig.home.damage(copy.segment_id, copy.volume_id)) is None


def test_a_drive_that_fails_says_nothing_about_the_tape(bench: Bench, made: tuple[SetId, SegmentCopy]) -> None:
    _, copy = made
    drive = FaultyDrive(bench.rig.drive, [Reset(block=copy.payload_block + 7)])
    with pytest.raises(PositionLost):
        bench.verify(copy, drive)
    assert state(bench, copy) == (CopyState.GOOD, False)


def test_cancelled_in_the_middle(bench: Bench, made: tuple[SetId, SegmentCopy]) -> None:
    """Nothing is recorded, and no thread stays."""
    _, copy = made

    def stop() -> None:
        if bench.follower.payload_bytes > 500_000:
            raise Cancelled("it was cancelled")

    bench.follower.interrupt = stop
    with pytest.raises(Cancelled):
        bench.verify(copy)
    assert state(bench, copy) == (CopyState.GOOD, False)


def test_a_file_split_over_segments(bench: Bench, tmp_path: Path) -> None:
    """A part is checked as what it is; damage in one names the file, in that copy only."""
    tree = random_files(tmp_path / "tree", 1, 10_000_000)
    copies = bench.copies(bench.rig.backup(tree))
    assert len(copies) >= 3
    assert all(bench.verify(copy).is_good for copy in copies)
    bench.flip(copies[1], 1_000_000)
    assert [bench.verify(copy).is_good for copy in copies] == [True, False, *[True] * (len(copies) - 2)]
    assert named(bench, copies[1]) == [bytes(tree / "file-00000")]


@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes and owners need root")
def test_every_kind_of_file_reads_back(bench: Bench, tmp_path: Path) -> None:
    """Holes, links, attributes, device nodes, and what an incremental set only states again: nothing is damaged."""
    tree = every_kind(tmp_path / "tree")
    job = bench.rig.queued(tree)
    first = bench.rig.run(job)
    os.utime(tree / "names" / " ", ns=(5, 5))
    os.link(tree / "names" / "...", tree / "names" / "another")
    second = bench.rig.again(job, type="incremental", checksum=True)
    for copy in bench.copies(first) + bench.copies(second):
        assert bench.verify(copy).problems == []


@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes and owners need root")
def test_every_frame_of_every_kind_counts(bench: Bench, tmp_path: Path) -> None:
    """A flipped byte in any frame is found; all names of a linked file are named."""
    tree = random_files(tmp_path / "tree", 4, 3000)
    os.link(tree / "file-00001", tree / "z-link")
    with (tree / "holes").open("wb") as file:
        file.truncate(1_000_000)
        file.seek(400_000)
        file.write(b"data" * 20_000)
    set_id = bench.rig.backup(tree)
    (copy,) = bench.copies(set_id)
    frames = [line for line in _lines(bench, copy) if isinstance(line, FrameLine)]
    lost: set[bytes] = set()
    for frame in frames:
        bench.flip(copy, frame.at + frame.stored // 2)
        assert not bench.verify(copy).is_good
        lost |= set(named(bench, copy))
        bench.flip(copy, frame.at + frame.stored // 2)
    assert bench.verify(copy).is_good
    assert lost == {bytes(path) for path in tree.iterdir()}


def _lines(bench: Bench, copy: SegmentCopy) -> list[object]:
    with bench.rig.home.trailer(copy.segment_id).open("rb") as file:
        return list(read_lines(file, TrailerLine))


@pytest.mark.log_warnings
def test_nothing_is_built_on_what_is_lost(bench: Bench, tmp_path: Path) -> None:
    """An incremental set would show files that nobody can read: it becomes a full one, and has them all again."""
    rig = bench.rig
    tree = random_files(tmp_path / "tree", 6, 400_000)
    job = rig.queued(tree)
    first = rig.run(job)
    second = rig.again(job, type="incremental")
    assert rig.ledger.backup_set(second).type == "incremental"
    copy = bench.copies(first)[0]
    # The TRAILER alone costs no file.
    bench.flip(copy, 100, 2)
    bench.verify(copy)
    third = rig.again(job, type="incremental")
    assert rig.ledger.backup_set(third).parent_id == second
    bench.flip(copy, 100_000)
    bench.verify(copy)
    fourth = rig.again(job, type="incremental")
    assert rig.ledger.backup_set(fourth).parent_id is None
    assert bench.files_at(fourth, bench.copies(fourth)[0], 0, 2**40)
    assert rig.ledger.backup_set(rig.again(job, type="incremental")).parent_id == fourth


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_reads_back(bench: Bench, tmp_path: Path, codec: str) -> None:
    """Good is good, and a flipped byte is found and named, whatever the payload is."""
    tree = random_files(tmp_path / "tree", 5, 300_000)
    set_id = bench.rig.backup(tree, codec=codec, level=CODECS[codec].default_level)
    (copy,) = bench.copies(set_id)
    assert bench.verify(copy).problems == []
    bench.flip(copy, 500_000)
    assert not bench.verify(copy).is_good
    assert set(named(bench, copy)) == bench.files_at(set_id, copy, 500_000, 500_001)
