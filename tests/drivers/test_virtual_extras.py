"""What the virtual drive can do beside the Drive interface: spacing over blocks and back, erasing, WORM, memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.errors import NotReady, WormOverwrite
from drivers.interface import BlockNo, ElementKind
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.layout import read_library
from drivers.virtual.library import add_blank, create_library
from drivers.virtual.memory import Attribute
from drivers.virtual.spacing import Spaced, Stop
from tests.drivers.benches import MIB, VirtualBench
from tests.drivers.contract import FILEMARK, position, read_all, write


@pytest.fixture
def bench(tmp_path: Path) -> VirtualBench:
    return VirtualBench(tmp_path / "library")


@pytest.fixture
def drive(bench: VirtualBench) -> Iterator[VirtualDrive]:
    drive = bench.loaded()
    yield drive
    drive.close()


@pytest.mark.parametrize(
    ("start", "count", "spaced"),
    [
        (0, 0, Spaced(0, Stop.DONE, 0)),
        (0, 2, Spaced(2, Stop.DONE, 2)),
        (0, 3, Spaced(2, Stop.FILEMARK, 3)),
        (2, 1, Spaced(0, Stop.FILEMARK, 3)),
        (3, 1, Spaced(1, Stop.DONE, 4)),
        (3, 2, Spaced(1, Stop.END, 4)),
        (4, -1, Spaced(1, Stop.DONE, 3)),
        (4, -2, Spaced(1, Stop.FILEMARK, 2)),
        (2, -2, Spaced(2, Stop.DONE, 0)),
        (2, -5, Spaced(2, Stop.START, 0)),
        (4, 0, Spaced(0, Stop.DONE, 4)),
    ],
)
def test_spacing_over_blocks(drive: VirtualDrive, start: int, count: int, spaced: Spaced) -> None:
    write(drive, b"0", b"1", FILEMARK, b"3")
    drive.locate(BlockNo(start))
    assert drive.space_blocks(count) == spaced
    assert drive.position().block == spaced.block


def test_spacing_back_stands_before_the_filemark(drive: VirtualDrive) -> None:
    write(drive, b"0", FILEMARK, b"2", FILEMARK, FILEMARK, b"5")
    assert drive.space_back(0) == 0
    assert drive.space_back(1) == 1
    assert drive.position() == position(4, 2)
    assert drive.space_back(2) == 2
    assert drive.position() == position(1, 0)
    assert drive.space_back(3) == 0
    assert drive.position() == position(0, 0)
    with pytest.raises(ValueError, match="-1"):
        drive.space_back(-1)


def test_the_next_size_moves_nothing(drive: VirtualDrive) -> None:
    write(drive, b"abc", FILEMARK)
    drive.rewind()
    assert [drive.next_size(), drive.next_size()] == [3, 3]
    drive.locate(BlockNo(1))
    assert drive.next_size() == 0
    drive.seek_end()
    assert drive.next_size() is None


def test_an_erase_ends_the_data_here_for_good(bench: VirtualBench, drive: VirtualDrive) -> None:
    write(drive, b"0", FILEMARK, b"2", FILEMARK)
    drive.locate(BlockNo(2))
    drive.erase(long=False)
    drive.cut_power()
    drive.close()
    again = bench.loaded()
    assert read_all(again) == [b"0", FILEMARK]
    again.close()


def test_worm_cartridges_only_grow(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    create_library(folder, tapes=1, tape_bytes=16 * MIB, drives=1, generation=9)
    assert add_blank(folder, tape_bytes=16 * MIB, worm=True) == "TP0002LZ"
    VirtualChanger(folder).load(1, 0)
    drive = VirtualDrive(folder, 0)
    drive.load()
    assert drive.worm
    write(drive, b"0", FILEMARK)
    for at in (0, 1):
        drive.locate(BlockNo(at))
        with pytest.raises(WormOverwrite, match="block 2"):
            drive.write_block(b"x")
        with pytest.raises(WormOverwrite):
            drive.write_filemarks(1, sync=True)
        with pytest.raises(WormOverwrite):
            drive.erase(long=False)
    drive.seek_end()
    write(drive, b"2")
    drive.rewind()
    assert read_all(drive) == [b"0", FILEMARK, b"2"]
    drive.close()


def test_the_memory_counts_loads_and_bytes_across_processes(bench: VirtualBench, drive: VirtualDrive) -> None:
    write(drive, b"x" * 1000)
    drive.close()
    second = bench.open()
    write(second, b"x" * 10)
    memory = second.memory()
    assert (memory.loads, memory.written_bytes, memory.last_written_bytes) == (1, 1010, 1010)
    second.unload()
    second.load()
    write(second, b"x" * 5)
    second.unload()
    memory = second.memory()
    assert (memory.loads, memory.written_bytes, memory.last_written_bytes) == (2, 1015, 5)
    assert memory.drives == [second.status().identity] * 2
    second.close()


def test_what_hosts_write_stays_with_the_cartridge(bench: VirtualBench, drive: VirtualDrive) -> None:
    drive.write_attribute(0x803, Attribute(2, b"label"))
    drive.write_attribute(0x807, Attribute(2, b"owner"))
    drive.unload()
    assert drive.memory().attributes == {"0803": Attribute(2, b"label"), "0807": Attribute(2, b"owner")}
    drive.write_attribute(0x803, None)
    assert drive.memory().attributes == {"0807": Attribute(2, b"owner")}
    bench.take_out()
    with pytest.raises(NotReady):
        drive.memory()
    with pytest.raises(NotReady):
        drive.write_attribute(0x803, None)


def test_the_robot_moves_between_drives_and_exchanges(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    create_library(folder, tapes=2, tape_bytes=16 * MIB, drives=2, generation=9)
    changer = VirtualChanger(folder)
    slot, drive = ElementKind.SLOT, ElementKind.DRIVE
    changer.move((slot, 0), (drive, 0))
    changer.move((drive, 0), (drive, 1))
    changer.exchange((slot, 1), (drive, 1), (slot, 1))
    library = read_library(folder)
    assert [each.barcode for each in library.drives] == [None, "TP0002L9"]
    assert library.slots == [None, "TP0001L9"]
    opened = VirtualDrive(folder, 1)
    opened.load()
    with pytest.raises(NotReady):
        changer.exchange((slot, 1), (drive, 1), (slot, 0))
    assert read_library(folder) == library
    opened.close()
