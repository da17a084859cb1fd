"""Making libraries, the operator's hand, and several processes at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from drivers.errors import ChangerError, DeviceFailed, NotReady, SlotEmpty, SlotFull
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.layout import read_library, write_library
from drivers.virtual.library import add_blank, add_from, create_library, set_write_protected, take_out
from tests.drivers.benches import BARCODE, MIB, VirtualBench
from tests.drivers.contract import FILEMARK, block_of, places, read_all, write


def make(folder: Path, *, tapes: int = 2) -> list[str]:
    return create_library(folder, tapes=tapes, tape_bytes=16 * MIB, drives=1, generation=9)


def test_a_new_library_has_a_tape_in_every_slot(tmp_path: Path) -> None:
    folder = tmp_path / "deep/library"
    assert make(folder) == ["TP0001L9", "TP0002L9"]
    assert places(VirtualChanger(folder)) == ([None], ["TP0001L9", "TP0002L9"])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.parent.iterdir()] == ["library"]


def test_an_empty_folder_is_taken_and_a_full_one_refused(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    folder.mkdir()
    make(folder)
    with pytest.raises(ChangerError, match="new"):
        make(folder)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ChangerError, match="no empty folder"):
        make(file)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("drivers.virtual.library.write_library", full)
    with pytest.raises(DeviceFailed, match="No space"):
        make(tmp_path / "library")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tapes": 0}, "1 to 9999 tapes"),
        ({"tapes": 10_000}, "1 to 9999 tapes"),
        ({"drives": 0}, "at least one drive"),
        ({"tape_bytes": 1000}, "bytes"),
        ({"tape_bytes": 19 * 10**12}, "18000000000000 bytes"),
        ({"generation": 3}, "LTO generation 3"),
    ],
)
def test_senseless_numbers(tmp_path: Path, change: dict[str, int], message: str) -> None:
    numbers = {"tapes": 1, "tape_bytes": 16 * MIB, "drives": 1, "generation": 9} | change
    with pytest.raises(ValueError, match=message):
        create_library(tmp_path / "library", **numbers)


def test_adding_blank_cartridges(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    make(folder)
    assert add_blank(folder, tape_bytes=32 * MIB) == "TP0003L9"
    VirtualChanger(folder).load(0, 0)
    assert add_blank(folder, tape_bytes=16 * MIB, barcode="XYZ001L9") == "XYZ001L9"
    assert places(VirtualChanger(folder)) == (["TP0001L9"], [None, "TP0002L9", "TP0003L9", "XYZ001L9"])
    with pytest.raises(ChangerError, match="already"):
        add_blank(folder, tape_bytes=16 * MIB, barcode="TP0001L9")
    with pytest.raises(ValueError, match="letters and digits"):
        add_blank(folder, tape_bytes=16 * MIB, barcode="../x")


def test_a_new_cartridge_leaves_room_for_those_in_drives(tmp_path: Path) -> None:
    """Else the robot could put none of them back, and no other tape would ever be loaded."""
    folder = tmp_path / "library"
    create_library(folder, tapes=3, tape_bytes=16 * MIB, drives=2, generation=9)
    changer = VirtualChanger(folder)
    changer.load(0, 0)
    changer.load(1, 1)
    assert add_blank(folder, tape_bytes=16 * MIB) == "TP0004L9"
    assert places(changer)[1] == [None, None, "TP0003L9", "TP0004L9"]
    library = read_library(folder)
    write_library(folder, replace(library, slots=["TP0003L9", None]))  # As libraries were left before.
    add_blank(folder, tape_bytes=16 * MIB, barcode="TP0009L9")
    assert places(changer)[1] == ["TP0003L9", None, "TP0009L9", None]


def test_a_cartridge_travels_to_another_library(tmp_path: Path) -> None:
    bench = VirtualBench(tmp_path / "library")
    drive = bench.loaded()
    write(drive, block_of(0), FILEMARK, block_of(2), FILEMARK)
    drive.unload()
    drive.close()
    with pytest.raises(NotReady):
        take_out(bench.folder, BARCODE, tmp_path / "shelf")
    bench.take_out()
    take_out(bench.folder, BARCODE, tmp_path / "shelf")
    assert not bench.cartridge.exists()
    with pytest.raises(SlotEmpty):
        take_out(bench.folder, BARCODE, tmp_path / "shelf2")
    other = tmp_path / "other"
    make(other, tapes=1)
    with pytest.raises(ChangerError, match="already"):
        add_from(other, tmp_path / "shelf")
    assert add_from(bench.folder, tmp_path / "shelf") == BARCODE
    bench.put_in()
    drive = bench.loaded()
    assert read_all(drive) == [block_of(0), FILEMARK, block_of(2), FILEMARK]
    drive.close()


def test_what_is_no_cartridge_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    make(folder)
    with pytest.raises(DeviceFailed):
        add_from(folder, tmp_path)


def test_write_protection_can_be_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    make(folder)
    for protected in (True, False):
        set_write_protected(folder, BARCODE, protected)
        VirtualChanger(folder).load(0, 0)
        drive = VirtualDrive(folder, 0)
        drive.load()
        assert drive.status().write_protected == protected
        drive.unload()
        drive.close()
        VirtualChanger(folder).unload(0, 0)
    with pytest.raises(SlotEmpty):
        set_write_protected(folder, "TP0009L9", True)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"format":"tapefs virtual library","version":9,"serial":"","slots":[],"drives":[]}']
)
def test_a_damaged_library_is_said_clearly(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "library"
    make(folder)
    (folder / "library.json").write_text(content)
    with pytest.raises(DeviceFailed, match=r"library\.json"):
        VirtualChanger(folder)


def test_several_processes_move_at_once_and_lose_no_cartridge(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    create_library(folder, tapes=4, tape_bytes=MIB, drives=4, generation=9)
    program = """
import sys
from pathlib import Path
from drivers.virtual.changer import VirtualChanger
changer, number = VirtualChanger(Path(sys.argv[1])), int(sys.argv[2])
for _ in range(25):
    changer.load(number, number)
    changer.unload(number, number)
"""
    children = [subprocess.Popen([sys.executable, "-c", program, folder, str(each)]) for each in range(4)]
    assert [child.wait(60) for child in children] == [0, 0, 0, 0]
    changer = VirtualChanger(folder)
    assert places(changer) == ([None] * 4, [f"TP000{each}L9" for each in range(1, 5)])
    with pytest.raises(SlotFull):
        changer.transfer(0, 1)
