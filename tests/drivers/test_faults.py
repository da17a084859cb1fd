"""Faults on request, and the registry that applies them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drivers import registry
from drivers.config import LibraryConfig
from drivers.errors import DeviceFailed, EndOfMedium, PositionLost, ReadFailed, WriteFailed
from drivers.interface import BlockNo
from drivers.virtual.faults import (
    VARIABLE,
    Delay,
    EarlyEnd,
    FaultyDrive,
    PowerCut,
    ReadError,
    Reset,
    WriteError,
    parse_faults,
)
from tests.drivers.benches import FaultyBench
from tests.drivers.contract import FILEMARK, block_of, position, read, read_all, write


@pytest.fixture
def bench(tmp_path: Path) -> FaultyBench:
    return FaultyBench(tmp_path / "library")


def test_a_write_error_strikes_once_and_the_block_is_not_there(bench: FaultyBench) -> None:
    drive = bench.open(WriteError(block=1))
    drive.load()
    write(drive, block_of(0))
    with pytest.raises(WriteFailed) as caught:
        write(drive, block_of(1))
    assert caught.value.block == 1
    assert drive.position() == position(1, 0)
    write(drive, block_of(1))
    drive.rewind()
    assert read_all(drive) == [block_of(0), block_of(1)]
    drive.close()


def test_a_filemark_can_fail_to_be_written(bench: FaultyBench) -> None:
    drive = bench.open(WriteError(block=2))
    drive.load()
    write(drive, block_of(0))
    with pytest.raises(WriteFailed):
        drive.write_filemarks(2, sync=True)
    drive.close()


def test_a_read_error_that_stays(bench: FaultyBench) -> None:
    drive = bench.open(ReadError(block=1, times=0))
    drive.load()
    write(drive, block_of(0), block_of(1), block_of(2))
    drive.rewind()
    read(drive)
    for _ in range(3):
        with pytest.raises(ReadFailed):
            read(drive)
    drive.locate(BlockNo(2))
    assert read(drive) == block_of(2)
    drive.close()


def test_an_early_end_warns_before(bench: FaultyBench) -> None:
    drive = bench.open(EarlyEnd(block=5, warning_blocks=2))
    drive.load()
    assert [drive.write_block(block_of(each)) for each in range(5)] == [False, False, True, True, True]
    assert drive.status().remaining_bytes == 0
    with pytest.raises(EndOfMedium):
        drive.write_block(block_of(5))
    drive.write_filemarks(1, sync=True)
    drive.rewind()
    assert drive.status().remaining_bytes > 0
    assert read_all(drive) == [*map(block_of, range(5)), FILEMARK]
    drive.close()


def test_a_reset_loses_buffer_and_position(bench: FaultyBench) -> None:
    drive = bench.open(Reset(block=3))
    drive.load()
    write(drive, block_of(0), FILEMARK, sync=True)
    write(drive, block_of(2))
    with pytest.raises(PositionLost):
        write(drive, block_of(3))
    with pytest.raises(PositionLost):
        drive.position()
    assert drive.status().loaded
    drive.rewind()
    assert read_all(drive) == [block_of(0), FILEMARK]
    drive.close()


def test_a_power_cut_needs_a_new_open(bench: FaultyBench) -> None:
    drive = bench.open(PowerCut(block=3))
    drive.load()
    write(drive, block_of(0), FILEMARK, sync=True)
    write(drive, block_of(2))
    with pytest.raises(DeviceFailed):
        write(drive, block_of(3))
    with pytest.raises(DeviceFailed):
        drive.rewind()
    drive.close()
    again = bench.open()
    again.load()
    assert read_all(again) == [block_of(0), FILEMARK]
    again.close()


def test_a_delay(bench: FaultyBench) -> None:
    slept: list[float] = []
    inner = super(FaultyBench, bench).open()
    drive = FaultyDrive(inner, [Delay(operation="rewind", seconds=2.5)], sleep=slept.append)
    drive.load()
    drive.rewind()
    drive.rewind()
    assert slept == [2.5, 2.5]
    drive.close()


def test_a_delay_from_a_block_on(bench: FaultyBench) -> None:
    slept: list[float] = []
    inner = super(FaultyBench, bench).open()
    drive = FaultyDrive(inner, [Delay(operation="write_block", from_block=2, seconds=1.5)], sleep=slept.append)
    drive.load()
    for number in range(4):
        drive.write_block(b"block")
        assert len(slept) == max(0, number - 1)
    drive.rewind()
    drive.write_block(b"block")
    assert slept == [1.5, 1.5]
    drive.close()


@pytest.mark.parametrize("fault", [WriteError(block=0, drive=1), WriteError(block=0, barcode="TP0002L9")])
def test_faults_of_another_drive_or_tape_do_not_strike(bench: FaultyBench, fault: WriteError) -> None:
    drive = bench.open(fault)
    drive.load()
    write(drive, block_of(0))
    drive.close()


def test_parsing() -> None:
    text = '[{"kind": "power_cut", "block": 7, "kill": true}, {"kind": "delay", "operation": "load", "seconds": 1}]'
    assert parse_faults(text) == [PowerCut(block=7, kill=True), Delay(operation="load", seconds=1.0)]


@pytest.mark.parametrize(
    "text", ["", "{}", '[{"kind": "flood"}]', '[{"kind": "reset"}]', '[{"kind": "reset", "blok": 1}]']
)
def test_senseless_faults_are_explained(text: str) -> None:
    with pytest.raises(ValueError, match=VARIABLE):
        parse_faults(text)


# -- the registry --------------------------------------------------------------------------------------------------


def test_the_registry_opens_drive_and_changer(bench: FaultyBench) -> None:
    drive = registry.open_drive(LibraryConfig(folder=bench.folder), 0)
    drive.load()
    drive.unload()
    drive.close()
    changer = registry.open_changer(LibraryConfig(folder=bench.folder))
    changer.unload(0, 0)
    changer.close()
    assert registry.drive_name(3) == "drive3"


def test_the_environment_switches_faults_on(bench: FaultyBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps([{"kind": "write_error", "block": 0}]))
    drive = registry.open_drive(LibraryConfig(folder=bench.folder), 0)
    drive.load()
    with pytest.raises(WriteFailed):
        write(drive, block_of(0))
    drive.close()


def test_the_registry_explains_mistakes(bench: FaultyBench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="driver 'tin'"):
        registry.open_drive(LibraryConfig(driver="tin", folder=bench.folder), 0)
    with pytest.raises(ValueError, match="motion mode"):
        registry.open_changer(LibraryConfig(folder=bench.folder, motion="quick"))
    monkeypatch.setenv(VARIABLE, "nonsense")
    with pytest.raises(ValueError, match=VARIABLE):
        registry.open_drive(LibraryConfig(folder=bench.folder), 0)
    monkeypatch.delenv(VARIABLE)
    registry.open_drive(LibraryConfig(folder=bench.folder), 0).close()
