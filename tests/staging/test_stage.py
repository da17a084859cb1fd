import errno
import os
import stat
from pathlib import Path

import pytest

from catalog.crash import VARIABLE
from tapefs.errors import BadStructure, UsageError
from tapefs.staging.map_file import HEADER_BYTES
from tapefs.staging.stage import SegmentStage
from tests.forking.client import run
from tests.staging.content import (
    FRAME_BYTES,
    FRAMES,
    OTHER,
    PLAIN,
    SEGMENT,
    flip,
    frame_content,
    frame_rows,
    opened,
    publish_all,
    reboot,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "staging"


@pytest.fixture
def stage(folder: Path):
    with opened(folder) as made:
        yield made


def used_bytes(folder: Path) -> int:
    return os.stat(folder / f"{SEGMENT}.plain").st_blocks * 512


def test_nothing_is_staged_at_first(stage):
    assert not stage.has(range(1))
    assert stage.missing(range(FRAMES)) == list(range(FRAMES))
    assert stage.read(0, 1) is None
    assert stage.read(FRAME_BYTES - 1, 2) is None
    assert stage.pin(range(1)) is None


def test_a_published_frame_is_read_exactly(stage):
    stage.publish(3, memoryview(frame_content(stage, 3)))
    start = 3 * FRAME_BYTES
    assert stage.has(range(3, 4))
    assert stage.missing(range(2, 5)) == [2, 4]
    for offset, length in ((start, FRAME_BYTES), (start, 1), (start + FRAME_BYTES - 1, 1), (start + 77, 4096)):
        assert stage.read(offset, length) == PLAIN[offset : offset + length]
    assert stage.read(start - 1, 2) is None
    assert stage.read(start, FRAME_BYTES + 1) is None


def test_reads_across_frames_and_of_the_whole(stage):
    publish_all(stage)
    assert stage.read(0, len(PLAIN)) == PLAIN
    assert stage.read(FRAME_BYTES - 5, 3 * FRAME_BYTES) == PLAIN[FRAME_BYTES - 5 : 4 * FRAME_BYTES - 5]
    assert stage.read(77, 0) == b""
    assert stage.read(len(PLAIN), 0) == b""


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (len(PLAIN), 1), (0, len(PLAIN) + 1), (1 << 70, 1)])
def test_bytes_that_the_segment_does_not_have_are_an_error(stage, offset, length):
    with pytest.raises(BadStructure):
        stage.read(offset, length)
    with pytest.raises(BadStructure):
        stage.frames_for(offset, length)


def test_frames_for(stage):
    assert stage.frames_for(0, 1) == range(1)
    assert stage.frames_for(FRAME_BYTES - 1, 1) == range(1)
    assert stage.frames_for(FRAME_BYTES, 1) == range(1, 2)
    assert stage.frames_for(FRAME_BYTES - 1, 2) == range(2)
    assert stage.frames_for(0, len(PLAIN)) == range(FRAMES)
    assert not stage.frames_for(5, 0)


def test_another_object_and_another_opening_see_it_at_once(folder, stage):
    other = SegmentStage.open(folder, SEGMENT)
    assert other is not None
    stage.publish(1, frame_content(stage, 1))
    assert other.read(FRAME_BYTES, 10) == PLAIN[FRAME_BYTES : FRAME_BYTES + 10]
    other.evict(range(FRAMES))
    assert stage.read(FRAME_BYTES, 10) is None
    other.close()


def test_open_without_files_is_cold(folder):
    assert SegmentStage.open(folder, SEGMENT) is None


def test_modes_are_private(folder, stage):
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_eviction_frees_blocks_and_never_a_neighbours_bytes(folder, stage):
    publish_all(stage)
    before = used_bytes(folder)
    assert before >= len(PLAIN)
    assert stage.evict(range(4, 6)) == 2 * FRAME_BYTES
    assert before - used_bytes(folder) >= 2 * FRAME_BYTES - 2 * 4096
    assert stage.read(0, 4 * FRAME_BYTES) == PLAIN[: 4 * FRAME_BYTES]
    assert stage.read(6 * FRAME_BYTES, 10 * FRAME_BYTES) == PLAIN[6 * FRAME_BYTES :]
    assert stage.missing(range(FRAMES)) == [4, 5]
    assert stage.evict(range(4, 6)) == 0


def test_eviction_one_by_one_leaves_no_block(folder, stage):
    """Neighbours share a block: whoever goes last must take it along."""
    publish_all(stage)
    for frame in (3, 1, 2, 0, *range(15, 3, -1)):
        stage.evict(range(frame, frame + 1))
    assert used_bytes(folder) == 0


def test_reclaiming_takes_nothing_that_is_staged(folder, stage):
    publish_all(stage)
    stage.evict(range(3, 5))
    stage.evict(range(9, 10))
    fd = os.open(folder / f"{SEGMENT}.plain", os.O_WRONLY)
    os.pwrite(fd, b"torn" * 10_000, 3 * FRAME_BYTES)
    os.close(fd)
    before = used_bytes(folder)
    stage.reclaim()
    assert before - used_bytes(folder) >= 9 * 4096
    assert stage.missing(range(FRAMES)) == [3, 4, 9]
    for frame in (*range(3), *range(5, 9), *range(10, FRAMES)):
        assert stage.read(frame * FRAME_BYTES, FRAME_BYTES) == frame_content(stage, frame)


def test_a_stage_knows_that_its_files_were_removed(folder, stage):
    assert stage.is_linked()
    (folder / f"{SEGMENT}.plain").unlink()
    assert not stage.is_linked()
    with opened(folder) as again:
        assert again.is_linked()


def test_a_frame_can_be_staged_again(stage):
    publish_all(stage)
    words = stage._words.tolist()
    stage.evict(range(FRAMES))
    publish_all(stage)
    assert stage.read(0, len(PLAIN)) == PLAIN
    assert all(new > old and new & 1 for old, new in zip(words, stage._words.tolist(), strict=True))


def test_publishing_the_wrong_length_is_refused(stage):
    with pytest.raises(BadStructure):
        stage.publish(0, bytes(FRAME_BYTES - 1))
    assert not stage.has(range(1))


def test_pins_hold(stage):
    publish_all(stage)
    pin, second = stage.pin(range(2, 5)), stage.pin(range(4, 6))
    assert pin is not None
    assert second is not None
    assert stage.evict(range(FRAMES)) == (FRAMES - 4) * FRAME_BYTES
    assert stage.missing(range(FRAMES)) == [0, 1, *range(6, FRAMES)]
    pin.release()
    pin.release()
    assert stage.evict(range(FRAMES)) == 2 * FRAME_BYTES
    assert stage.has(range(4, 6))
    second.release()
    assert stage.evict(range(FRAMES)) == 2 * FRAME_BYTES


def test_a_pin_of_frames_that_are_partly_cold_is_none_and_holds_nothing(stage):
    stage.publish(0, frame_content(stage, 0))
    assert stage.pin(range(2)) is None
    assert stage.evict(range(2)) == FRAME_BYTES


def test_a_pin_of_nothing_and_pins_after_close(folder, stage):
    with opened(folder) as other:
        empty = stage.pin(range(0))
        assert empty is not None
        empty.release()
        other.publish(0, frame_content(other, 0))
        pin = other.pin(range(1))
        assert pin is not None
    pin.release()
    assert stage.evict(range(1)) == FRAME_BYTES


def test_frames_must_tile_the_stream(folder):
    rows = frame_rows()
    for wrong in ([rows[1]], [rows[0], rows[2]], [rows[0]._replace(plain_bytes=0)], [rows[0], rows[0]]):
        with pytest.raises(BadStructure):
            SegmentStage.create(folder, SEGMENT, wrong)


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "2F0C1D66-6D7C-4D8E-9A52-6F2F4E1A0B01", "x" * 36])
def test_only_uuids_become_file_names(folder, name):
    with pytest.raises(UsageError):
        SegmentStage.open(folder, name)


def test_an_empty_segment(folder):
    stage = SegmentStage.create(folder, OTHER, [])
    assert stage.read(0, 0) == b""
    assert stage.evict(range(0)) == 0
    stage.close()


def test_a_sparse_stage_of_terabytes_costs_nothing(folder):
    rows = [row._replace(plain_offset=row.plain_offset) for row in frame_rows([1 << 40, 4096])]
    stage = SegmentStage.create(folder, OTHER, rows)
    stage.publish(1, b"x" * 4096)
    assert stage.read((1 << 40) + 4000, 96) == b"x" * 96
    assert os.stat(folder / f"{OTHER}.plain").st_blocks * 512 <= 8192
    stage.close()


# -- what is not to be trusted ---------------------------------------------------------------------------------------


def damage(folder: Path, at: int, content: bytes) -> None:
    with open(folder / f"{SEGMENT}.map", "r+b") as file:
        file.seek(at)
        file.write(content)


def assert_cold_and_made_anew(folder: Path, caplog, *, warns: bool = True) -> None:
    found = SegmentStage.open(folder, SEGMENT)
    assert found is None
    assert not caplog.records
    with opened(folder) as stage:
        assert stage.missing(range(FRAMES)) == list(range(FRAMES))
        assert used_bytes(folder) == 0
        publish_all(stage)
        assert stage.read(0, len(PLAIN)) == PLAIN
    assert bool(caplog.records) == warns
    caplog.clear()


@pytest.mark.parametrize(
    "at", [0, 5, 8, 12, 16, 32, 33, 40, 45, 64, 72, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 16 * FRAMES - 1]
)
def test_every_byte_of_header_and_table_counts(folder, caplog, at):
    with opened(folder) as stage:
        publish_all(stage)
        found = (folder / f"{SEGMENT}.map").read_bytes()[at]
    damage(folder, at, bytes([found ^ 0x10]))
    assert_cold_and_made_anew(folder, caplog)


@pytest.mark.parametrize("length", [0, 10, HEADER_BYTES, HEADER_BYTES + 100, HEADER_BYTES + 40 * FRAMES - 1])
def test_a_map_cut_short(folder, caplog, length):
    with opened(folder) as stage:
        publish_all(stage)
    os.truncate(folder / f"{SEGMENT}.map", length)
    assert_cold_and_made_anew(folder, caplog)


def test_another_version_is_not_touched_as_ours(folder, caplog):
    with opened(folder) as stage:
        publish_all(stage)
    damage(folder, 8, b"\x03")
    assert_cold_and_made_anew(folder, caplog)


def test_the_map_of_another_segment(folder, caplog):
    with opened(folder) as stage, opened(folder, OTHER):
        publish_all(stage)
    os.replace(folder / f"{OTHER}.map", folder / f"{SEGMENT}.map")
    assert_cold_and_made_anew(folder, caplog)


@pytest.mark.parametrize("suffix", ["plain", "map"])
def test_one_file_without_the_other_is_cold(folder, caplog, suffix):
    with opened(folder) as stage:
        publish_all(stage)
    (folder / f"{SEGMENT}.{suffix}").unlink()
    assert_cold_and_made_anew(folder, caplog, warns=False)


def test_a_plain_file_from_elsewhere_is_not_taken_for_ours(folder, caplog):
    with opened(folder) as stage:
        publish_all(stage)
    copy = folder / "copy"
    copy.write_bytes(bytes(len(PLAIN)))
    os.replace(copy, folder / f"{SEGMENT}.plain")
    assert_cold_and_made_anew(folder, caplog)


def test_a_frame_table_of_another_shape(folder, caplog):
    with opened(folder) as stage:
        publish_all(stage)
    stage = SegmentStage.create(folder, SEGMENT, frame_rows([len(PLAIN)]))
    assert stage.missing(range(1)) == [0]
    assert "another frame table" in caplog.text
    stage.close()


def test_a_symbolic_link_is_not_followed(folder, tmp_path):
    folder.mkdir()
    (tmp_path / "victim").write_bytes(b"precious")
    (folder / f"{SEGMENT}.plain").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        SegmentStage.open(folder, SEGMENT)
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_after_another_boot_a_frame_is_compared_before_it_is_used(folder, monkeypatch, caplog):
    """What was flipped or lost in between is dropped; nothing at all is served before it was compared."""
    with opened(folder) as stage:
        for frame in range(12):
            stage.publish(frame, frame_content(stage, frame))
        stage.evict(range(2, 3))
    flip(folder, SEGMENT, 5 * FRAME_BYTES)
    flip(folder, SEGMENT, 8 * FRAME_BYTES - 1)
    reboot(monkeypatch)
    assert SegmentStage.open(folder, SEGMENT) is None
    with opened(folder) as stage:
        assert not any(stage.has(range(frame, frame + 1)) for frame in range(FRAMES))
        assert stage.read(0, 10) is None
        assert stage.doubtful(range(FRAMES)) == [0, 1, *range(3, 12)]
        assert stage.revive(range(FRAMES)) == 9
        assert stage.missing(range(FRAMES)) == [2, 5, 7, *range(12, FRAMES)]
        assert stage.doubtful(range(FRAMES)) == []
        assert stage.read(3 * FRAME_BYTES, 2 * FRAME_BYTES) == PLAIN[3 * FRAME_BYTES : 5 * FRAME_BYTES]
        assert [record.message.split(": ")[1] for record in caplog.records] == [
            "frame 5 did not survive the end of the machine's last run",
            "frame 7 did not survive the end of the machine's last run",
        ]
        caplog.clear()
        publish_all(stage)
        assert stage.read(0, len(PLAIN)) == PLAIN


def test_a_doubtful_frame_can_be_published_and_evicted(folder, monkeypatch):
    with opened(folder) as stage:
        publish_all(stage)
    flip(folder, SEGMENT, 0)
    reboot(monkeypatch)
    with opened(folder) as stage:
        stage.publish(0, frame_content(stage, 0))
        assert stage.read(0, FRAME_BYTES) == PLAIN[:FRAME_BYTES]
        before = used_bytes(folder)
        assert stage.evict(range(1, 4)) == 3 * FRAME_BYTES
        assert before - used_bytes(folder) >= 3 * FRAME_BYTES - 2 * 4096
        assert stage.doubtful(range(FRAMES)) == list(range(4, FRAMES))
        stage.reclaim()
        assert stage.revive(range(FRAMES)) == FRAMES - 4


def test_who_holds_the_map_that_was_replaced_reads_no_holes(folder, monkeypatch):
    """Another machine may share the folder: what the new map has punched out, the old one must not call staged."""
    with opened(folder) as holder:
        publish_all(holder)
        reboot(monkeypatch)
        assert holder.is_linked()
        with opened(folder) as stage:
            assert holder.read(0, len(PLAIN)) is None
            assert not holder.is_linked()
            assert stage.revive(range(FRAMES)) == FRAMES
            stage.evict(range(FRAMES))
            assert holder.read(0, FRAME_BYTES) is None


def test_a_kill_while_adopting_leaves_all_for_the_next_one(folder, monkeypatch):
    with opened(folder) as stage:
        publish_all(stage)
    old = (folder / f"{SEGMENT}.map").read_bytes()
    # The killed process sees this boot, so the map is made to be of another one.
    reboot(monkeypatch)
    with opened(folder):
        pass
    monkeypatch.undo()
    assert (folder / f"{SEGMENT}.map").read_bytes() != old
    run_and_die(folder, "staging.adopt.written", "pass")
    assert SegmentStage.open(folder, SEGMENT) is None
    with opened(folder) as stage:
        assert stage.revive(range(FRAMES)) == FRAMES
        assert stage.read(0, len(PLAIN)) == PLAIN
    assert {path.suffix for path in folder.iterdir()} == {".plain", ".map", ""}


def test_a_wrong_frame_is_found_and_dropped_though_it_is_pinned(folder, stage):
    publish_all(stage)
    pin = stage.pin(range(2, 6))
    flip(folder, SEGMENT, 4 * FRAME_BYTES + 17)
    assert [stage.is_intact(frame) for frame in range(3, 6)] == [True, False, True]
    assert stage.is_intact(4, drop=True) is False
    assert stage.read(4 * FRAME_BYTES, 1) is None
    assert stage.is_intact(4) is None
    # The reader who holds it waits for the tape; the mover is not held up by the pin.
    stage.publish(4, frame_content(stage, 4))
    assert stage.read(4 * FRAME_BYTES, FRAME_BYTES) == frame_content(stage, 4)
    assert stage.evict(range(FRAMES)) == (FRAMES - 4) * FRAME_BYTES
    pin.release()
    assert stage.evict(range(FRAMES)) == 4 * FRAME_BYTES


def test_what_the_disk_cannot_give_back_is_cold(folder, stage, monkeypatch, caplog):
    publish_all(stage)

    def unreadable(fd: int, length: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", unreadable)
        assert stage.read(10, 10) is None
        assert stage.read(3 * FRAME_BYTES - 1, 2) is None
        assert stage.is_intact(7) is False
    assert stage.missing(range(FRAMES)) == [0, 2, 3]
    assert "unreadable" in caplog.text
    caplog.clear()


def test_a_plain_file_cut_short_while_open_is_cold_and_comes_back(folder, stage, caplog):
    publish_all(stage)
    os.truncate(folder / f"{SEGMENT}.plain", FRAME_BYTES + 10)
    assert stage.read(FRAME_BYTES, 10) == PLAIN[FRAME_BYTES : FRAME_BYTES + 10]
    assert stage.read(FRAME_BYTES, 11) is None
    assert stage.read(5 * FRAME_BYTES, 3 * FRAME_BYTES) is None
    assert stage.missing(range(FRAMES)) == [1, 5, 6, 7]
    assert "cut short" in caplog.text
    publish_all(stage)
    assert stage.read(FRAME_BYTES, FRAME_BYTES) == frame_content(stage, 1)


# -- kills at the named points ----------------------------------------------------------------------------------------


def run_and_die(folder: Path, point: str, action: str) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.staging.content import *\n"
        f"with opened(Path(sys.argv[1])) as stage: {action}"
    )
    done = run("-c", code, folder, env=os.environ | {VARIABLE: point})
    assert done.returncode == -9, done.stderr


def test_a_kill_between_write_and_word_serves_nothing(folder, stage):
    run_and_die(folder, "staging.publish.written", "publish_all(stage)")
    assert used_bytes(folder) > 0
    assert stage.read(0, 10) is None
    assert not stage.has(range(1))
    # The killed process locked the frame: that went with it.
    publish_all(stage)
    assert stage.read(0, len(PLAIN)) == PLAIN


def test_a_kill_between_clear_and_punch_serves_nothing(folder, stage):
    publish_all(stage)
    run_and_die(folder, "staging.evict.cleared", "stage.evict(range(4))")
    assert stage.missing(range(FRAMES)) == [0, 1, 2, 3]
    assert stage.read(0, 10) is None
    publish_all(stage)
    assert stage.read(0, len(PLAIN)) == PLAIN
