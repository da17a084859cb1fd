"""A mounted LTFS volume, and any folder, as a drive: the contract, and what is special to them."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.config import LibraryConfig
from drivers.errors import (
    ChangerError,
    DeviceFailed,
    DeviceGone,
    DriveInUse,
    EndOfMedium,
    NoSuchElement,
    NotReady,
    NotSupported,
    PositionLost,
    ReadFailed,
    WriteFailed,
    WriteProtected,
)
from drivers.interface import BlockNo, Element, ElementKind
from drivers.ltfs.changer import LtfsChanger
from drivers.ltfs.drive import LtfsDrive, kept_bytes
from drivers.registry import cartridge_bytes, check_library, open_changer, open_drive
from tests.drivers.contract import (
    FILEMARK,
    KIB,
    MIB,
    DriveBench,
    DriveContract,
    block_of,
    position,
    read,
    read_all,
    write,
)
from tests.drivers.ltfs_bench import BARCODE, LtfsBench, make_volume


class TestLtfsDrive(DriveContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> DriveBench:
        return LtfsBench(tmp_path / "bench")


class TestFolderDrive(DriveContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> DriveBench:
        return LtfsBench(tmp_path / "bench", any_filesystem=True)


@pytest.fixture
def bench(tmp_path: Path) -> LtfsBench:
    return LtfsBench(tmp_path / "bench")


def folder_of(bench: LtfsBench) -> Path:
    return bench.mount / "tapefs"


def note_of(path: Path) -> str:
    return os.getxattr(path, "user.tapefs.blocks").decode()


def written(bench: LtfsBench, *items: bytes) -> None:
    """Write a tape and let go of it."""
    drive = bench.loaded()
    write(drive, *items)
    drive.unload()
    drive.close()


def contents(bench: LtfsBench) -> list[bytes]:
    drive = bench.loaded()
    items = read_all(drive)
    drive.close()
    return items


# -- files on the volume ---------------------------------------------------------------------------------------------


def test_a_tape_file_is_a_plain_file_that_any_tool_opens(bench: LtfsBench, tmp_path: Path) -> None:
    """zstd and tar read a payload from the volume, and the README says how."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "hello").write_bytes(os.urandom(600_000))
    archive = subprocess.run(["tar", "--zstd", "-cf", "-", "-C", source, "."], capture_output=True, check=True).stdout
    blocks = [archive[at : at + 256 * KIB] for at in range(0, len(archive), 256 * KIB)]
    written(bench, b"label", FILEMARK, *blocks, FILEMARK)
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", folder_of(bench) / "00001", "-C", target], check=True)
    assert (target / "hello").read_bytes() == (source / "hello").read_bytes()
    assert note_of(folder_of(bench) / "00001") == f"1 262144x2,{len(archive) - 2 * 262144}x1 filemark"
    assert "zstd -dc 00003" in (folder_of(bench) / "README.txt").read_text()


def test_a_note_too_long_for_an_attribute_is_a_file(bench: LtfsBench) -> None:
    """Also when it becomes short again, and it goes with its tape file."""
    items = [block_of(number, 1000 + number % 2) for number in range(1500)]
    written(bench, *items, FILEMARK)
    assert (folder_of(bench) / "00000.blocks").stat().st_size > 4096
    assert contents(bench) == [*items, FILEMARK]
    drive = bench.loaded()
    drive.locate(BlockNo(3))
    write(drive, b"end", FILEMARK, sync=True)
    drive.close()
    assert (folder_of(bench) / "00000.blocks").read_text() == "1 1000x1,1001x1,1000x1,3x1 filemark\n"
    assert contents(bench) == [*items[:3], b"end", FILEMARK]


def test_without_attributes_all_notes_are_files(bench: LtfsBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on FAT: what does not take attributes still is a medium."""

    def refuse(where: object, name: str, value: bytes) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    items = [block_of(0), FILEMARK, block_of(2), FILEMARK, FILEMARK]
    monkeypatch.setattr("drivers.ltfs.notes.os.setxattr", refuse)
    monkeypatch.setattr("drivers.ltfs.volume.ask_for_index", lambda root: True)
    written(bench, *items)
    assert sorted(path.name for path in folder_of(bench).glob("*.blocks")) == [f"0000{n}.blocks" for n in range(3)]
    assert contents(bench) == items
    drive = bench.loaded()
    drive.locate(BlockNo(1))
    write(drive, b"x")
    drive.unload()
    assert sorted(path.name for path in folder_of(bench).iterdir()) == ["00000", "00000.blocks", "README.txt"]
    drive.close()
    assert contents(bench) == [block_of(0), b"x"]


def test_ltfs_is_asked_for_its_index_when_something_must_be_safe(bench: LtfsBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK)
    with pytest.raises(OSError, match="No data"):
        os.getxattr(bench.mount, "user.ltfs.sync")
    drive.write_filemarks(0, sync=True)
    assert os.getxattr(bench.mount, "user.ltfs.sync") == b"1"
    drive.close()


def test_a_disk_is_not_bothered_with_ltfs(tmp_path: Path) -> None:
    bench = LtfsBench(tmp_path / "bench", any_filesystem=True)
    written(bench, block_of(0), FILEMARK)
    assert os.listxattr(bench.mount) == []


# -- crashes ---------------------------------------------------------------------------------------------------------


def test_what_a_dead_writer_left_is_not_there_and_goes(bench: LtfsBench) -> None:
    """Bytes without a note are behind the end of data, whatever their number."""
    written(bench, block_of(0), FILEMARK)
    drive = bench.loaded()
    drive.seek_end()
    write(drive, block_of(2), block_of(3))
    # Closed without unloading: as if the process had died.
    drive.close()
    assert (folder_of(bench) / "00001").stat().st_size == 2000
    again = bench.loaded()
    assert read_all(again) == [block_of(0), FILEMARK]
    write(again, b"new", FILEMARK, sync=True)
    again.close()
    assert (folder_of(bench) / "00001").read_bytes() == b"new"
    assert contents(bench) == [block_of(0), FILEMARK, b"new", FILEMARK]


def test_an_overwriting_that_was_interrupted_has_its_end(bench: LtfsBench) -> None:
    """Files behind an open one are left over; they count no more, and go with the next write."""
    written(bench, block_of(0), block_of(1), FILEMARK, block_of(3), FILEMARK, block_of(5), FILEMARK)
    os.setxattr(folder_of(bench) / "00000", "user.tapefs.blocks", b"1 1000x1 open")
    assert contents(bench) == [block_of(0)]
    assert (folder_of(bench) / "00002").exists()
    drive = bench.loaded()
    drive.seek_end()
    write(drive, b"x", FILEMARK, sync=True)
    drive.close()
    assert sorted(path.name for path in folder_of(bench).iterdir()) == ["00000", "README.txt"]
    assert contents(bench) == [block_of(0), b"x", FILEMARK]


def test_a_file_that_was_just_made_is_nothing(bench: LtfsBench) -> None:
    written(bench, block_of(0), FILEMARK)
    (folder_of(bench) / "00001").touch()
    drive = bench.loaded()
    assert read_all(drive) == [block_of(0), FILEMARK]
    write(drive, b"x", FILEMARK, sync=True)
    drive.close()
    assert contents(bench) == [block_of(0), FILEMARK, b"x", FILEMARK]


def test_a_failed_write_loses_the_position_and_nothing_that_was_synced(
    bench: LtfsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(bench, block_of(0), FILEMARK)
    drive = bench.loaded()
    drive.seek_end()
    write(drive, block_of(2))
    with monkeypatch.context() as patch:
        patch.setattr("drivers.ltfs.tape.os.pwrite", failing(errno.EIO))
        with pytest.raises(WriteFailed) as failed:
            write(drive, block_of(3))
    assert failed.value.block == 3
    with pytest.raises(PositionLost):
        drive.position()
    drive.rewind()
    assert read_all(drive) == [block_of(0), FILEMARK]
    drive.close()


def test_a_failed_sync_loses_the_position(bench: LtfsBench, monkeypatch: pytest.MonkeyPatch) -> None:
    drive = bench.loaded()
    write(drive, block_of(0))
    with monkeypatch.context() as patch:
        patch.setattr("drivers.ltfs.volume.ask_for_index", failing(errno.EIO))
        with pytest.raises(WriteFailed, match="Input/output error"):
            write(drive, FILEMARK, sync=True)
    with pytest.raises(PositionLost):
        write(drive, block_of(2))
    drive.close()


def test_a_full_file_system_is_the_end_of_the_medium(bench: LtfsBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever statfs had promised: the refused block leaves nothing, and what is there can be closed."""
    drive = bench.loaded()
    write(drive, block_of(0))
    with monkeypatch.context() as patch:
        patch.setattr("drivers.ltfs.tape.os.pwrite", half_written())
        with pytest.raises(EndOfMedium):
            write(drive, block_of(1))
    assert drive.position() == position(1, 0)
    write(drive, FILEMARK, sync=True)
    drive.close()
    assert (folder_of(bench) / "00000").stat().st_size == 1000
    assert contents(bench) == [block_of(0), FILEMARK]


def failing(number: int) -> Callable[..., int]:
    def fail(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def half_written() -> Callable[[int, memoryview, int], int]:
    """Write half of the first block, then say that there is no room."""
    calls = []
    real = os.pwrite

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        calls.append(offset)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[: len(data) // 2], offset)

    return pwrite


# -- damage and strangers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "00001").unlink(), "00001 is missing"),
        (lambda folder: os.removexattr(folder / "00000", "user.tapefs.blocks"), "has no note"),
        (lambda folder: os.removexattr(folder / "00002", "user.tapefs.blocks"), "has no note"),
        (lambda folder: os.setxattr(folder / "00001", "user.tapefs.blocks", b"1 0x1 filemark"), "damaged"),
        (lambda folder: os.setxattr(folder / "00001", "user.tapefs.blocks", b"2 5x1 filemark"), "damaged"),
        (lambda folder: (folder / "00001.blocks").write_bytes(b"\xff\n"), "damaged"),
        (lambda folder: ((folder / "00002").unlink(), os.mkfifo(folder / "00002")), "no regular file"),
        (lambda folder: ((folder / "00002").unlink(), (folder / "00002").symlink_to("/etc/passwd")), "no regular file"),
    ],
)
def test_files_that_make_no_sense_are_refused_and_stay(
    bench: LtfsBench, harm: Callable[[Path], object], message: str
) -> None:
    written(bench, block_of(0), FILEMARK, block_of(2), FILEMARK, block_of(4), FILEMARK)
    harm(folder_of(bench))
    before = sorted(path.name for path in folder_of(bench).iterdir())
    drive = bench.open()
    with pytest.raises(DeviceFailed, match=message):
        drive.load()
    assert not drive.status().loaded
    drive.close()
    assert sorted(path.name for path in folder_of(bench).iterdir()) == before


def test_a_shortened_file_fails_at_the_block_that_is_gone_and_not_behind(bench: LtfsBench) -> None:
    written(bench, block_of(0), block_of(1), FILEMARK, block_of(3), FILEMARK)
    os.truncate(folder_of(bench) / "00000", 1500)
    drive = bench.loaded()
    assert read(drive) == block_of(0)
    with pytest.raises(ReadFailed) as failed:
        read(drive)
    assert failed.value.block == 1
    drive.locate(BlockNo(3))
    assert read(drive) == block_of(3)
    drive.close()


def test_an_open_file_has_the_blocks_that_are_whole(bench: LtfsBench) -> None:
    written(bench, block_of(0), block_of(1), block_of(2, 50))
    os.truncate(folder_of(bench) / "00000", 2049)
    assert contents(bench) == [block_of(0), block_of(1)]


def test_other_files_are_left_alone(bench: LtfsBench) -> None:
    folder_of(bench).mkdir()
    for name in ("notes.txt", "000001", "1", "00001.bak"):
        (folder_of(bench) / name).write_bytes(b"mine")
    (bench.mount / "elsewhere").write_bytes(b"mine")
    written(bench, block_of(0), FILEMARK, block_of(2), FILEMARK)
    drive = bench.loaded()
    write(drive, b"again")
    drive.unload()
    drive.close()
    mine = [path for path in bench.mount.rglob("*") if path.is_file() and path.read_bytes() == b"mine"]
    assert len(mine) == 5


# -- the volume ------------------------------------------------------------------------------------------------------


def test_an_erase_takes_our_tape_files_and_nothing_else(bench: LtfsBench) -> None:
    """Tape files with their notes go, those of others stay; the volume itself cannot be written over."""
    drive = bench.loaded()
    write(drive, *(block_of(number, 1000 + number) for number in range(200)), FILEMARK, block_of(2), FILEMARK)
    others = {bench.mount / "films/one.mkv": b"one", bench.mount / "tapefs/00009.bak": b"a copy"}
    for path, content in others.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    drive.rewind()
    with pytest.raises(NotSupported, match="mt erase"):
        drive.erase(long=True)
    drive.erase(long=False)
    assert [path.read_bytes() for path in others] == list(others.values())
    left = {path.name for path in (bench.mount / "tapefs").iterdir()}
    assert not any(name[:5].isdigit() for name in left - {"00009.bak"}), left
    drive.close()


def test_a_folder_that_is_no_volume_is_refused(tmp_path: Path) -> None:
    bench = LtfsBench(tmp_path / "bench", any_filesystem=True)
    bench.any_filesystem = False
    drive = bench.open()
    with pytest.raises(NotReady, match="any_filesystem = true"):
        drive.load()
    assert drive.status().barcode is None
    drive.close()


def test_a_disk_that_is_not_mounted_is_not_written_to(tmp_path: Path) -> None:
    bench = LtfsBench(tmp_path / "bench", any_filesystem=True)
    bench.take_out()
    drive = bench.open()
    with pytest.raises(NotReady, match="mount the disk"):
        drive.load()
    drive.close()
    assert list(bench.mount.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 33, "DISK\n02"])
def test_a_disk_needs_a_name_that_is_one(tmp_path: Path, name: str) -> None:
    bench = LtfsBench(tmp_path / "bench", any_filesystem=True)
    (folder_of(bench) / "name").write_text(name)
    drive = bench.open()
    with pytest.raises(NotReady, match="name"):
        drive.load()
    drive.close()


@pytest.mark.parametrize(
    ("gone", "label"),
    [
        ((), "TL0001L9"),
        (("mamBarcode",), "TL0001"),
        (("mamBarcode", "volumeSerial"), "LTFS-8B4F0B5E"),
    ],
)
def test_a_volume_is_called_by_its_barcode_or_what_else_there_is(
    bench: LtfsBench, gone: tuple[str, ...], label: str
) -> None:
    for name in gone:
        os.removexattr(bench.mount, f"user.ltfs.{name}")
    drive = bench.loaded()
    assert drive.status().barcode == label
    drive.close()
    changer = LtfsChanger([bench.mount, bench.folder / "nowhere"])
    assert changer.inventory() == [
        Element(ElementKind.DRIVE, 0, True, label),
        Element(ElementKind.DRIVE, 1, False, None),
    ]


def test_a_volume_replaced_under_the_drive_is_noticed_before_the_next_tape_file(bench: LtfsBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, sync=True)
    bench.take_out()
    bench.mount.rmdir()
    make_volume(bench.mount, volumeUUID="another")
    with pytest.raises(DeviceGone, match="not at"):
        write(drive, block_of(2))
    drive.close()
    assert list(bench.mount.iterdir()) == []


def test_a_volume_formatted_under_the_drive_is_noticed(bench: LtfsBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0))
    os.setxattr(bench.mount, "user.ltfs.volumeUUID", b"another")
    with pytest.raises(DeviceGone):
        write(drive, FILEMARK, sync=True)
    with pytest.raises(PositionLost):
        drive.position()
    with pytest.raises(DeviceGone):
        drive.rewind()
    drive.unload()
    drive.close()


def test_two_drives_cannot_have_one_volume(bench: LtfsBench, tmp_path: Path) -> None:
    drive = bench.loaded()
    other = LtfsDrive(tmp_path / "other", 0, bench.mount)
    with pytest.raises(DriveInUse):
        other.load()
    drive.unload()
    other.load()
    other.close()
    drive.close()


def test_an_unloaded_volume_is_not_held(bench: LtfsBench) -> None:
    """Else it could not be unmounted."""
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK)
    drive.unload()
    held = [
        os.readlink(f"/proc/self/fd/{each}")
        for each in os.listdir("/proc/self/fd")
        if each.isdigit()
        if os.path.islink(f"/proc/self/fd/{each}")
    ]
    assert not [path for path in held if path.startswith(str(bench.mount))]
    drive.close()


@pytest.mark.parametrize("state", [b"locked", b"permlocked", b"0x00000001"])
def test_a_locked_volume_is_write_protected(bench: LtfsBench, state: bytes) -> None:
    os.setxattr(bench.mount, "user.ltfs.volumeLockState", state)
    drive = bench.loaded()
    assert drive.status().write_protected
    with pytest.raises(WriteProtected, match="locked"):
        write(drive, b"x")
    drive.close()


def test_what_others_write_makes_the_medium_smaller(bench: LtfsBench) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, sync=True)
    before = drive.status().capacity_bytes
    bench.total_bytes -= 5 * MIB
    write(drive, block_of(2))
    assert drive.status().capacity_bytes == before - 5 * MIB
    drive.close()


def test_the_end_of_the_volume_is_kept_for_its_index() -> None:
    assert kept_bytes(18 * 10**12) == 90 * 10**9
    assert kept_bytes(10**8) == 2 * MIB


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "where volumes are mounted"),
        ({"drives": ("mnt/ltfs",)}, "whole path"),
        ({"drives": ("/mnt/ltfs",), "changer": "x"}, "has no changer"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_library(LibraryConfig(driver="ltfs", folder=tmp_path, **settings))


def test_the_table_opens_drive_and_changer(tmp_path: Path) -> None:
    mount = make_volume(tmp_path / "mnt")
    library = LibraryConfig(driver="ltfs", folder=tmp_path / "state", drives=(str(mount),))
    check_library(library)
    drive, changer = open_drive(library, 0), open_changer(library)
    assert drive.status().barcode == changer.inventory()[0].barcode == BARCODE
    told_bytes = cartridge_bytes(library, BARCODE)
    assert told_bytes
    # Both ask the disk that holds the test's folder, on which others write between the two questions.
    assert told_bytes == pytest.approx(drive.status().capacity_bytes, rel=0.05)
    assert cartridge_bytes(library, "OTHER1L9") is None
    with pytest.raises(NoSuchElement):
        open_drive(library, 1)
    with pytest.raises(NoSuchElement):
        changer.load(0, 0)
    with pytest.raises(ChangerError, match="by hand"):
        changer.unload(0, 0)
    drive.close()
