"""Frames back from tape: what was written is what is staged; damage costs its own frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from catalog.ids import FrameNo, SegmentId, SetId
from catalog.index.reader import IndexReader
from catalog.records import CopyState, SegmentCopy
from drivers.virtual.faults import FaultyDrive, ReadError
from tapefs.recall.stager import FIRST_READ_ON_BYTES, Loss, Stager
from tapefs.staging.area import StagingArea
from tapefs.staging.stage import SegmentStage
from tapefs.verify.chain import lost_segment
from tapefs.verify.copy import verify_copy
from tapefs.verify.damage import Damage, read_damage
from tests.backup.rig import Rig
from tests.backup.trees import entries, random_files
from tests.staging.content import as_of_an_earlier_boot, flip
from tests.test_trust_end_to_end import flip as flip_byte
from tests.verify.conftest import Follower


@dataclass
class Heard:
    """Remembers what a stager announces."""

    arrivals: list[int] = field(default_factory=list)
    failures: list[tuple[int, int, str]] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)

    def arrived(self, segment_id: SegmentId, first: FrameNo, last: FrameNo) -> None:
        self.arrivals.extend(range(first, last + 1))

    def failed(self, segment_id: SegmentId, first: FrameNo, last: FrameNo, message: str, error: Loss) -> None:
        self.failures.append((first, last, message))
        self.losses.append(error)


@dataclass
class Archived:
    """A set of one segment with some forty frames."""

    rig: Rig
    tree: Path
    set_id: SetId
    copy: SegmentCopy
    heard: Heard

    def stager(self) -> Stager:
        return Stager(self.rig.home, self.rig.ledger, self.rig.drive, self.copy.volume_id, self.heard)

    def stage(self) -> SegmentStage:
        stage = SegmentStage.open(self.rig.home.staging, self.copy.segment_id)
        assert stage is not None
        return stage

    def locates(self) -> int:
        return self.rig.drive.status().counters.locates


@pytest.fixture
def archived(make_rig, tmp_path: Path) -> Archived:  # type: ignore[no-untyped-def]
    rig = make_rig(tapes=1, tape_bytes=20_000 * 1024**2)
    tree = random_files(tmp_path / "tree", 40, 3_500_000)
    set_id = rig.backup(tree)
    (segment,) = rig.ledger.segments(set_id)
    (copy,) = rig.ledger.copies(segment.segment_id)
    return Archived(rig, tree, set_id, copy, Heard())


def test_every_file_comes_back(archived: Archived) -> None:
    """All frames of a segment, asked for at once: each file's bytes are in the staging, and it took one locate."""
    reader = IndexReader(archived.rig.home.index(archived.set_id))
    last = reader.segments()[0].frames - 1
    before = archived.locates()
    archived.stager().fetch(archived.copy.segment_id, FrameNo(0), FrameNo(last))
    assert archived.locates() - before == 1
    assert archived.heard.arrivals == list(range(last + 1))
    stage = archived.stage()
    compared = 0
    for path, entry in entries(reader).items():
        if path.startswith(bytes(archived.tree)[1:] + b"/"):
            assert stage.read(entry.offset, entry.size) == Path(f"/{path.decode()}").read_bytes()
            compared += 1
    assert compared == 40


@pytest.mark.log_warnings
def test_what_was_staged_before_the_machine_was_started_is_not_read_again(archived: Archived) -> None:
    """It is compared with its checksums; a frame that is not right any more comes from tape."""
    archived.stager().fetch(archived.copy.segment_id, FrameNo(3), FrameNo(6))
    stage = archived.stage()
    start, _ = stage.extent_of(5)
    stage.close()
    as_of_an_earlier_boot(archived.rig.home.staging)
    flip(archived.rig.home.staging, archived.copy.segment_id, start + 77)
    blocks = archived.rig.drive.status().counters.blocks_read
    archived.heard.arrivals.clear()
    archived.stager().fetch(archived.copy.segment_id, FrameNo(3), FrameNo(4))
    assert archived.rig.drive.status().counters.blocks_read == blocks
    archived.stager().fetch(archived.copy.segment_id, FrameNo(5), FrameNo(6))
    assert archived.rig.drive.status().counters.blocks_read > blocks
    assert archived.heard.arrivals == [3, 4, 5, 6]
    assert archived.stage().is_intact(5)


def test_without_the_index_the_trailer_says_where_the_frames_are(archived: Archived) -> None:
    """As for a set that expired while somebody had a file of it open: the same frames, for one locate more."""
    archived.stager().fetch(archived.copy.segment_id, FrameNo(0), FrameNo(9))
    plain = archived.stage().read(0, 5_000_000)
    StagingArea(archived.rig.home.staging).remove([archived.copy.segment_id])
    archived.rig.home.index(archived.set_id).unlink()
    archived.rig.home.trailer(archived.copy.segment_id).unlink(missing_ok=True)
    before = archived.locates()
    archived.stager().fetch(archived.copy.segment_id, FrameNo(0), FrameNo(9))
    assert archived.heard.arrivals == [*range(10)] * 2
    assert archived.stage().read(0, 5_000_000) == plain
    assert plain is not None
    assert archived.locates() - before == 2


def test_without_index_and_trailer_the_frames_are_told_as_failed(archived: Archived) -> None:
    """Not an error of the tape: other segments on it are read."""
    archived.rig.home.index(archived.set_id).unlink()
    archived.rig.home.trailer(archived.copy.segment_id).unlink(missing_ok=True)
    drive = FaultyDrive(archived.rig.drive, [ReadError(block=archived.copy.trailer_block, times=0)])  # type: ignore[arg-type]
    stager = Stager(archived.rig.home, archived.rig.ledger, drive, archived.copy.volume_id, archived.heard)
    stager.fetch(archived.copy.segment_id, FrameNo(2), FrameNo(9))
    [(first, last, message)] = archived.heard.failures
    assert (first, last) == (2, 9)
    assert "TRAILER" in message
    assert archived.heard.arrivals == []


def test_present_frames_are_not_read_again(archived: Archived) -> None:
    """What is staged is announced at once and costs the drive nothing."""
    stager = archived.stager()
    stager.fetch(archived.copy.segment_id, FrameNo(3), FrameNo(5))
    blocks = archived.rig.drive.status().counters.blocks_read
    stager.fetch(archived.copy.segment_id, FrameNo(3), FrameNo(5))
    assert archived.rig.drive.status().counters.blocks_read == blocks
    assert archived.heard.arrivals == [3, 4, 5, 3, 4, 5]


def read_on(stager: Stager, most_bytes: int = 1 << 40) -> None:
    stager.read_on(lambda: True, most_bytes)


def test_reading_on_goes_further_while_readers_come_behind(archived: Archived) -> None:
    """A few frames behind the first wish, twice as many behind each that follows on it, to the end; no locate."""
    stager = archived.stager()
    segment, frames = archived.copy.segment_id, archived.rig.ledger.segment(archived.copy.segment_id).frames
    wanted, read_on_s, locates = 2, [], 0
    while wanted < frames:
        stager.fetch(segment, FrameNo(wanted), FrameNo(wanted))
        locates = locates or archived.locates()
        read_on(stager)
        read_on_s.append(archived.heard.arrivals[-1] - wanted)
        wanted = archived.heard.arrivals[-1] + 1
    few = -(-FIRST_READ_ON_BYTES // archived.stage().extent_of(5)[1])
    assert read_on_s[:2] == [few, 2 * few]
    assert archived.locates() == locates
    assert archived.stage().missing(range(frames)) == [0, 1]


def test_reading_on_starts_small_again_elsewhere(archived: Archived) -> None:
    """Who reads here and there gets little more than he wanted."""
    stager = archived.stager()
    few = 0
    for wanted in (2, 30, 15):
        stager.fetch(archived.copy.segment_id, FrameNo(wanted), FrameNo(wanted))
        read_on(stager)
        few = few or len(archived.heard.arrivals)
    assert len(archived.heard.arrivals) == 3 * few


def test_reading_on_has_a_limit(archived: Archived) -> None:
    stager = archived.stager()
    stager.fetch(archived.copy.segment_id, FrameNo(2), FrameNo(2))
    read_on(stager, 1)
    assert archived.heard.arrivals == [2, 3]
    read_on(stager, 0)
    assert archived.heard.arrivals == [2, 3]


def test_reading_on_stops_when_something_else_is_wanted(archived: Archived) -> None:
    """It is asked before every frame."""
    stager = archived.stager()
    stager.fetch(archived.copy.segment_id, FrameNo(0), FrameNo(0))
    answers = iter([True, True, False])
    stager.read_on(lambda: next(answers), 1 << 40)
    assert archived.heard.arrivals == [0, 1, 2]


def test_reading_on_goes_into_the_next_segment_of_the_set(make_rig, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Over trailer and header, without a locate; not into another set."""
    rig = make_rig(tapes=1, tape_bytes=20_000 * 1024**2, backup_settings="segment_bytes = 8388608")
    tree = random_files(tmp_path / "tree", 12, 1_500_000)
    first, second = rig.backup(tree), rig.backup(tree)
    segments = [segment for set_id in (first, second) for segment in rig.ledger.segments(set_id)]
    assert len(segments) == 6
    (copy,) = rig.ledger.copies(segments[0].segment_id)
    heard = Heard()
    stager = Stager(rig.home, rig.ledger, rig.drive, copy.volume_id, heard)
    stager.fetch(segments[0].segment_id, FrameNo(1), FrameNo(1))
    before = rig.drive.status().counters.locates
    for segment in segments[:3]:
        read_on(stager)
        stage = SegmentStage.open(rig.home.staging, segment.segment_id)
        assert stage is not None
        assert stage.missing(range(segment.frames)) == ([0] if segment is segments[0] else [])
    read_on(stager)
    assert SegmentStage.open(rig.home.staging, segments[3].segment_id) is None
    stager.fetch(segments[4].segment_id, FrameNo(0), FrameNo(0))
    assert rig.drive.status().counters.locates == before
    # Where what lies between cannot be read, it is located after all.
    (far,) = rig.ledger.copies(segments[5].segment_id)
    rig.drive = FaultyDrive(rig.drive, [ReadError(block=far.header_block, times=0)])  # type: ignore[arg-type]
    again = Stager(rig.home, rig.ledger, rig.drive, copy.volume_id, heard)
    again.fetch(segments[5].segment_id, FrameNo(0), FrameNo(0))
    assert rig.drive.status().counters.locates == before + 1
    assert not heard.failures


def test_a_bad_block_costs_its_frame_only(archived: Archived) -> None:
    """The frame on an unreadable block is told as failed; those before and behind it arrive."""
    reader = IndexReader(archived.rig.home.index(archived.set_id))
    row = reader.frame(0, 4)  # type: ignore[arg-type]
    middle = (row.offset + row.stored_bytes // 2) // archived.copy.block_size
    bad = archived.copy.payload_block + middle
    archived.rig.drive = FaultyDrive(archived.rig.drive, [ReadError(block=bad, times=0)])  # type: ignore[arg-type]
    archived.stager().fetch(archived.copy.segment_id, FrameNo(2), FrameNo(7))
    assert archived.heard.arrivals == [2, 3, 5, 6, 7]
    assert [(first, last) for first, last, _ in archived.heard.failures] == [(4, 4)]


def test_a_flipped_bit_is_never_staged(archived: Archived) -> None:
    """A frame whose stored bytes are not those that were written is refused by its checksum."""
    reader = IndexReader(archived.rig.home.index(archived.set_id))
    row = reader.frame(0, 1)  # type: ignore[arg-type]
    payload = archived.rig.home.library / "cartridges/TP0001L9" / f"{archived.copy.header_file + 1:05}"
    with payload.open("r+b") as file:
        file.seek(row.offset + 1000)
        byte = file.read(1)[0]
        file.seek(row.offset + 1000)
        file.write(bytes([byte ^ 4]))
    archived.stager().fetch(archived.copy.segment_id, FrameNo(0), FrameNo(2))
    assert archived.heard.arrivals == [0, 2]
    assert "damaged" in archived.heard.failures[0][2]
    assert not archived.stage().has(range(1, 2))


# -- what the ledger learns of damage ----------------------------------------------------------------------------------


def bad_block(archived: Archived, frame: int) -> int:
    """A block in the middle of a frame."""
    with IndexReader(archived.rig.home.index(archived.set_id)) as reader:
        row = reader.frame(0, frame)  # type: ignore[arg-type]
    return archived.copy.payload_block + (row.offset + row.stored_bytes // 2) // archived.copy.block_size


def flip_frame(archived: Archived, frame: int) -> None:
    with IndexReader(archived.rig.home.index(archived.set_id)) as reader:
        row = reader.frame(0, frame)  # type: ignore[arg-type]
    payload = archived.rig.home.library / "cartridges/TP0001L9" / f"{archived.copy.header_file + 1:05}"
    flip_byte(payload, row.offset + 1000)


def known(archived: Archived) -> SegmentCopy:
    (copy,) = archived.rig.ledger.copies(archived.copy.segment_id)
    return copy


def noted(archived: Archived) -> tuple[Damage, set[bytes]]:
    read = read_damage(archived.rig.home.damage(archived.copy.segment_id, archived.copy.volume_id))
    assert read is not None
    return read[0], set(read[1])


def files_in(archived: Archived, frames: set[int]) -> set[bytes]:
    """The files with content in these frames, by the index."""
    with IndexReader(archived.rig.home.index(archived.set_id)) as reader:
        rows = [reader.frame(0, each) for each in frames]  # type: ignore[arg-type]
        return {
            b"/" + path
            for path, entry in entries(reader).items()
            for row in rows
            if entry.offset < row.plain_offset + row.plain_bytes and row.plain_offset < entry.offset + entry.size
            if entry.mode & 0o170000 == 0o100000
        }


def test_a_damaged_frame_is_noted(archived: Archived) -> None:
    """Before the reader is told: the copy is damaged, its frames and files are known; it was not read back by that."""
    flip_frame(archived, 3)
    flip_frame(archived, 9)
    stager = archived.stager()
    stager.fetch(archived.copy.segment_id, FrameNo(2), FrameNo(4))
    copy = known(archived)
    assert (copy.state, copy.verified_at_ns) == (CopyState.DAMAGED, 0)
    assert archived.heard.losses == [Loss.DAMAGED]
    damage, files = noted(archived)
    assert damage.frames == [(3, 1)]
    assert files == files_in(archived, {3})
    assert lost_segment(archived.rig.home, archived.rig.ledger, archived.rig.ledger.backup_set(archived.set_id))
    # What comes later joins it, and the event is told once.
    stager.fetch(archived.copy.segment_id, FrameNo(8), FrameNo(9))
    damage, files = noted(archived)
    assert damage.frames == [(3, 1), (9, 1)]
    assert files == files_in(archived, {3, 9})
    assert len(damage.problems) == 1
    told = [event.kind for event in archived.rig.ledger.events_since(0)]
    assert told.count("copy.damaged") == 1
    stager.close()


def test_an_unreadable_block_is_noted_only_when_it_is_so_twice(archived: Archived) -> None:
    """What comes the second time was the drive's, or of the way to it."""
    drive = archived.rig.drive
    archived.rig.drive = FaultyDrive(drive, [ReadError(block=bad_block(archived, 4), times=1)])  # type: ignore[arg-type]
    archived.stager().fetch(archived.copy.segment_id, FrameNo(3), FrameNo(5))
    assert archived.heard.arrivals == [3, 4, 5]
    assert known(archived).state is CopyState.GOOD
    archived.rig.drive = FaultyDrive(drive, [ReadError(block=bad_block(archived, 8), times=0)])  # type: ignore[arg-type]
    archived.stager().fetch(archived.copy.segment_id, FrameNo(8), FrameNo(8))
    assert known(archived).state is CopyState.DAMAGED
    assert noted(archived)[0].frames == [(8, 1)]


@pytest.mark.log_warnings
def test_a_drive_that_wants_cleaning_damages_nothing(archived: Archived) -> None:
    rig = archived.rig
    rig.drive = FaultyDrive(rig.drive, [ReadError(block=bad_block(archived, 4), times=0)])  # type: ignore[arg-type]
    stager = Stager(
        rig.home, rig.ledger, rig.drive, archived.copy.volume_id, archived.heard, may_be_to_blame=lambda: True
    )
    stager.fetch(archived.copy.segment_id, FrameNo(4), FrameNo(4))
    assert archived.heard.losses == [Loss.UNREAD]
    assert known(archived).state is CopyState.GOOD


def test_what_reading_back_has_found_stays_beside_what_was_met(archived: Archived) -> None:
    """A reader who meets more adds it; reading back says anew how all of it is, and a copy that is good again is."""
    flip_frame(archived, 3)
    rig = archived.rig
    verify_copy(rig.home, rig.ledger, rig.drive, archived.copy, Follower())
    at_ns, before = known(archived).verified_at_ns, noted(archived)[0]
    flip_frame(archived, 20)
    archived.stager().fetch(archived.copy.segment_id, FrameNo(20), FrameNo(20))
    damage, files = noted(archived)
    assert (damage.problems[:-1], damage.frames) == (before.problems, [(3, 1), (20, 1)])
    assert files == files_in(archived, {3, 20})
    assert known(archived).verified_at_ns == at_ns
    for frame in (3, 20):
        flip_frame(archived, frame)
    verify_copy(rig.home, rig.ledger, rig.drive, archived.copy, Follower())
    assert known(archived).state is CopyState.GOOD
    assert read_damage(rig.home.damage(archived.copy.segment_id, archived.copy.volume_id)) is None


def test_without_a_trailer_the_index_names_the_files(archived: Archived) -> None:
    archived.rig.home.trailer(archived.copy.segment_id).unlink()
    flip_frame(archived, 5)
    archived.stager().fetch(archived.copy.segment_id, FrameNo(5), FrameNo(5))
    assert noted(archived)[1] == files_in(archived, {5})


@pytest.mark.log_warnings
def test_damage_that_cannot_be_noted_stops_no_reader(archived: Archived) -> None:
    """The disk is full: what can be read comes all the same."""
    archived.rig.home.reports.rename(archived.rig.home.path / "elsewhere")
    archived.rig.home.reports.write_text("in the way")
    flip_frame(archived, 5)
    archived.stager().fetch(archived.copy.segment_id, FrameNo(4), FrameNo(6))
    assert archived.heard.arrivals == [4, 6]
