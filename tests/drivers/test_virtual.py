"""The virtual drive and changer: the contracts, and what is special to them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from drivers.errors import (
    DeviceFailed,
    DiskFull,
    EndOfMedium,
    IncompatibleMedium,
    NoSuchElement,
    NotReady,
    PositionLost,
    ReadFailed,
    WriteFailed,
)
from drivers.interface import BlockNo
from drivers.virtual.cartridge import Cartridge
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.layout import cartridge_folder
from drivers.virtual.library import add_blank, create_library
from tests.drivers.benches import MIB, FaultyBench, VirtualBench, VirtualLibraryBench
from tests.drivers.contract import (
    FILEMARK,
    ChangerBench,
    ChangerContract,
    DriveBench,
    DriveContract,
    block_of,
    position,
    read_all,
    write,
)


class TestVirtualDrive(DriveContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> DriveBench:
        return VirtualBench(tmp_path / "library")


class TestFaultyDriveWithoutFaults(DriveContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> DriveBench:
        return FaultyBench(tmp_path / "library")


class TestVirtualChanger(ChangerContract):
    @pytest.fixture
    def library(self, tmp_path: Path) -> ChangerBench:
        return VirtualLibraryBench(tmp_path / "library")


@pytest.fixture
def bench(tmp_path: Path) -> VirtualBench:
    return VirtualBench(tmp_path / "library")


def state_of(bench: VirtualBench) -> dict[str, object]:
    return json.loads((bench.cartridge / "state.json").read_text())


# -- files on disk -------------------------------------------------------------------------------------------------


def test_a_tape_file_is_a_plain_file_that_any_tool_opens(bench: VirtualBench, tmp_path: Path) -> None:
    """zstd and tar read a payload straight from the cartridge's folder."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "hello").write_bytes(os.urandom(600_000))
    archive = subprocess.run(["tar", "--zstd", "-cf", "-", "-C", source, "."], capture_output=True, check=True).stdout
    drive = bench.loaded()
    write(drive, b"label", FILEMARK, *[archive[at : at + 262144] for at in range(0, len(archive), 262144)], FILEMARK)
    drive.unload()
    drive.close()
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", bench.cartridge / "00001", "-C", target], check=True)
    subprocess.run(["diff", "-r", source, target], check=True)


def test_the_state_describes_the_files(bench: VirtualBench) -> None:
    drive = bench.loaded()
    write(drive, *[block_of(1)] * 3, block_of(2, 7), FILEMARK, FILEMARK, block_of(3))
    drive.unload()
    drive.close()
    state = state_of(bench)
    assert state["files"] == [
        {"runs": [[1000, 3], [7, 1]], "filemark": True},
        {"runs": [], "filemark": True},
        {"runs": [[1000, 1]], "filemark": False},
    ]
    assert state["end_of_data"] == {"file": 2, "block": 7, "byte": 4007}
    assert {name: (bench.cartridge / name).stat().st_size for name in ("00000", "00001", "00002")} == {
        "00000": 3007,
        "00001": 0,
        "00002": 1000,
    }


def test_overwriting_leaves_no_old_file_behind(bench: VirtualBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, block_of(2), FILEMARK, block_of(4), FILEMARK)
    drive.locate(BlockNo(2))
    write(drive, block_of(9, 5))
    drive.unload()
    drive.close()
    assert sorted(path.name for path in bench.cartridge.iterdir()) == ["00000", "00001", "memory.json", "state.json"]
    assert (bench.cartridge / "00001").read_bytes() == block_of(9, 5)


def test_end_of_data_moves_durably_before_anything_is_deleted(
    bench: VirtualBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the two leaves files that nobody needs, never a state that names missing files."""
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, block_of(2), FILEMARK, sync=True)
    drive.rewind()

    def crash(path: object) -> None:
        assert state_of(bench)["files"] == []
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda path, missing_ok=False: None if missing_ok else crash(path))
        with pytest.raises(KeyboardInterrupt):
            drive.write_block(b"new")
    drive.cut_power()
    drive.close()
    again = bench.loaded()
    assert read_all(again) == []
    write(again, b"newer", FILEMARK)
    again.unload()
    again.close()
    assert sorted(path.name for path in bench.cartridge.iterdir()) == ["00000", "memory.json", "state.json"]
    assert (bench.cartridge / "00000").read_bytes() == b"newer"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b'{"format":"tapefs virtual cartridge","version":2}', "version 2"),
        (b'{"format":"something else","version":1}', "damaged"),
    ],
)
def test_a_damaged_state_is_said_clearly_and_the_tape_can_be_ejected(
    bench: VirtualBench, content: bytes, message: str
) -> None:
    drive = bench.loaded()
    drive.close()
    path = bench.cartridge / "state.json"
    path.write_bytes(content)
    again = bench.open()
    assert again.status().medium_generation is None
    with pytest.raises(DeviceFailed, match="damaged"):
        again.rewind()
    again.unload()
    with pytest.raises(DeviceFailed, match=message):
        again.load()
    again.close()
    bench.take_out()


def test_a_state_whose_sums_do_not_match_is_damaged(bench: VirtualBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, sync=True)
    drive.unload()
    path = bench.cartridge / "state.json"
    path.write_text(path.read_text().replace("[1000,1]", "[1000,2]"))
    with pytest.raises(DeviceFailed, match="disagree"):
        drive.load()
    drive.close()


def test_unknown_keys_of_a_state_are_ignored(bench: VirtualBench) -> None:
    path = bench.cartridge / "state.json"
    path.write_text(path.read_text().replace('"version":1', '"version":1,"colour":"red"'))
    bench.loaded().close()


def test_a_short_payload_file_is_a_read_error_of_its_block(bench: VirtualBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), block_of(1), FILEMARK, block_of(3), FILEMARK, sync=True)
    os.truncate(bench.cartridge / "00000", 1500)
    drive.rewind()
    with pytest.raises(ReadFailed) as caught:
        read_all(drive)
    assert caught.value.block == 1
    assert drive.position() == position(1, 0)
    drive.locate(BlockNo(3))
    assert read_all(drive) == [block_of(3), FILEMARK]
    drive.close()


# -- the buffer ----------------------------------------------------------------------------------------------------


def test_a_power_cut_loses_exactly_what_was_not_synced(bench: VirtualBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, sync=True)
    write(drive, block_of(2), FILEMARK, block_of(4))
    drive.cut_power()
    with pytest.raises(DeviceFailed, match="power"):
        drive.position()
    drive.close()
    again = bench.open()
    with pytest.raises(PositionLost):
        again.position()
    again.rewind()
    assert read_all(again) == [block_of(0), FILEMARK]
    write(again, block_of(2, 3))
    again.rewind()
    assert read_all(again) == [block_of(0), FILEMARK, block_of(2, 3)]
    again.close()


def test_a_power_cut_after_an_overwrite_does_not_bring_back_the_old(bench: VirtualBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, block_of(2), FILEMARK, sync=True)
    drive.locate(BlockNo(2))
    write(drive, block_of(7))
    drive.cut_power()
    drive.close()
    again = bench.loaded()
    assert read_all(again) == [block_of(0), FILEMARK]
    again.close()


def test_an_asynchronous_filemark_survives_the_process_but_not_a_boot(
    bench: VirtualBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, sync=True)
    write(drive, block_of(2), FILEMARK)
    drive.close()
    with monkeypatch.context() as patched:
        patched.setattr("drivers.virtual.state.boot_id", lambda: "another boot")
        assert Cartridge(bench.cartridge).end_block == 2
    again = bench.loaded()
    assert read_all(again) == [block_of(0), FILEMARK, block_of(2), FILEMARK]
    again.close()


def test_a_torn_note_is_ignored(bench: VirtualBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, sync=True)
    write(drive, block_of(2), FILEMARK)
    drive.close()
    (bench.cartridge / "buffered.json").write_bytes(b"")
    again = bench.loaded()
    assert read_all(again) == [block_of(0), FILEMARK]
    again.close()


def test_a_note_of_another_state_is_ignored(bench: VirtualBench) -> None:
    """A crash between the new state and the removal of the note leaves both."""
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, sync=True)
    write(drive, block_of(2), FILEMARK, block_of(4), FILEMARK)
    note = (bench.cartridge / "buffered.json").read_bytes()
    drive.locate(BlockNo(4))
    write(drive, block_of(5, 2000), FILEMARK, sync=True)
    (bench.cartridge / "buffered.json").write_bytes(note)
    drive.cut_power()
    drive.close()
    (bench.cartridge / "buffered.json").write_bytes(note)
    assert Cartridge(bench.cartridge).end_block == 6
    again = bench.loaded()
    assert read_all(again)[4:] == [block_of(5, 2000), FILEMARK]
    again.close()


def test_a_note_of_bytes_that_are_missing_is_ignored(bench: VirtualBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, sync=True)
    write(drive, block_of(2), FILEMARK)
    drive.close()
    os.truncate(bench.cartridge / "00001", 999)
    assert Cartridge(bench.cartridge).end_block == 2


def test_a_note_after_an_overwrite_holds(bench: VirtualBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, block_of(2), FILEMARK, block_of(4), FILEMARK, sync=True)
    drive.close()
    drive = bench.loaded()
    write(drive, block_of(7), FILEMARK)
    drive.close()
    assert Cartridge(bench.cartridge).end_block == 2
    again = bench.loaded()
    assert read_all(again) == [block_of(7), FILEMARK]
    again.close()


def test_what_an_earlier_process_noted_is_synced_by_the_next(
    bench: VirtualBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes were never waited for, so the next sync must."""
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK)
    drive.close()
    again = bench.open()
    synced: list[str] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    again.write_filemarks(0, sync=True)
    assert synced[0] == "00000"
    again.cut_power()
    again.close()
    last = bench.loaded()
    assert read_all(last) == [block_of(0), FILEMARK]
    last.close()


def test_not_one_byte_goes_beyond_the_capacity(bench: VirtualBench) -> None:
    drive = bench.loaded()
    for _ in range(16):
        drive.write_block(bytes(MIB))
    with pytest.raises(EndOfMedium):
        drive.write_block(b"x")
    drive.close()


def test_a_sync_waits_for_payloads_before_the_state(bench: VirtualBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Payload files, their names, the new state, its name: in this order."""
    drive = bench.loaded()
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def record_rename(source: Path, target: Path) -> None:
        done.append(f"{target.name} in place")
        rename(source, target)

    write(drive, block_of(0), FILEMARK, block_of(2))
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    drive.write_filemarks(1, sync=True)
    folder = bench.cartridge.name
    assert done[:6] == ["00000", "00001", folder, ".state.json.new", "state.json in place", folder]
    done.clear()
    drive.write_filemarks(1, sync=False)
    assert "buffered.json in place" in done
    assert not any(name.startswith("0000") or name == folder for name in done)
    drive.close()


def test_a_failed_sync_drops_the_buffer_and_the_position(bench: VirtualBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed fsync the kernel forgets which pages it lost: a second fsync that succeeds proves nothing."""
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, sync=True)
    write(drive, block_of(2))

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(WriteFailed):
            drive.write_filemarks(1, sync=True)
    with pytest.raises(PositionLost):
        drive.write_block(block_of(3))
    drive.rewind()
    assert read_all(drive) == [block_of(0), FILEMARK]
    drive.close()


def test_a_full_disk_is_a_write_error_that_loses_nothing_synced(
    bench: VirtualBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, sync=True)
    real = os.pwrite

    def half(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) == 500:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:500], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", half)
        with pytest.raises(DiskFull, match="No space") as caught:
            drive.write_block(block_of(2))
    assert caught.value.block == 2
    drive.rewind()
    drive.seek_end()
    write(drive, block_of(2, 3), FILEMARK)
    drive.unload()
    drive.close()
    assert (bench.cartridge / "00001").read_bytes() == block_of(2, 3)


# -- the drive between processes -----------------------------------------------------------------------------------


def test_the_next_process_goes_on_where_a_clean_close_left(bench: VirtualBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, block_of(2))
    drive.close()
    again = bench.open()
    assert again.status().loaded
    assert again.position() == position(3, 1)
    assert again.status().counters.loads == 1
    again.close()


def test_a_reset_loses_buffer_and_position_until_a_rewind(bench: VirtualBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, sync=True)
    write(drive, block_of(2))
    drive.reset()
    for call in (drive.position, drive.seek_end, lambda: drive.write_block(b"x"), lambda: drive.locate(BlockNo(0))):
        with pytest.raises(PositionLost):
            call()
    assert drive.status().loaded
    drive.rewind()
    assert read_all(drive) == [block_of(0), FILEMARK]
    drive.close()


def test_a_torn_drive_state_starts_the_counters_again(bench: VirtualBench) -> None:
    drive = bench.loaded()
    drive.close()
    (bench.folder / "drives/0.json").write_bytes(b"")
    again = bench.open()
    assert not again.status().loaded
    assert again.status().counters.loads == 0
    again.load()
    again.close()


def test_opening_what_is_not_there(tmp_path: Path, bench: VirtualBench) -> None:
    with pytest.raises(DeviceFailed, match="no virtual library"):
        VirtualDrive(tmp_path / "nothing", 0)
    with pytest.raises(NoSuchElement):
        VirtualDrive(bench.folder, 1)
    with pytest.raises(ValueError, match="motion mode"):
        VirtualDrive(bench.folder, 0, "fast")


# -- generations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drive", "medium", "reads", "writes"),
    [
        (9, 9, True, True),
        (9, 8, True, True),
        (9, 7, False, False),
        (8, 7, True, True),
        (8, 6, False, False),
        (7, 6, True, True),
        (7, 5, True, False),
        (6, 7, False, False),
    ],
)
def test_generations(tmp_path: Path, drive: int, medium: int, reads: bool, writes: bool) -> None:
    folder = tmp_path / "library"
    create_library(folder, tapes=1, tape_bytes=16 * MIB, drives=1, generation=drive)
    assert add_blank(folder, tape_bytes=16 * MIB, generation=medium) == f"TP0002L{medium}"
    VirtualChanger(folder).load(1, 0)
    virtual = VirtualDrive(folder, 0)
    if not reads:
        with pytest.raises(IncompatibleMedium):
            virtual.load()
        assert not virtual.status().loaded
        VirtualChanger(folder).unload(0, 1)
    else:
        virtual.load()
        assert (virtual.status().generation, virtual.status().medium_generation) == (drive, medium)
        assert virtual.status().write_protected != writes
        if writes:
            virtual.write_block(b"x")
        else:
            with pytest.raises(IncompatibleMedium):
                virtual.write_block(b"x")
    virtual.close()


def test_write_protection_needs_the_cartridge_in_a_slot(bench: VirtualBench) -> None:
    with pytest.raises(NotReady):
        bench.protect()
    bench.take_out()
    bench.protect()
    assert json.loads((cartridge_folder(bench.folder, "TP0001L9") / "state.json").read_text())["write_protected"]
