"""ScsiDrive and a device server about the recommended access order."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.errors import NotReady
from drivers.interface import BlockNo
from drivers.scsi.drive import ScsiDrive
from drivers.vtl.local import LocalTransport
from tests.drivers.contract import FILEMARK, block_of, position, write
from tests.drivers.scsi.bench import ServedBench
from tests.drivers.vtl.bench import make_tape


def test_the_nearest_is_first_and_nothing_moves(tmp_path: Path) -> None:
    drive = ServedBench(tmp_path).loaded()
    write(drive, *[block_of(number) for number in range(20)], FILEMARK, sync=True)
    drive.locate(BlockNo(10))
    before = drive.status().counters
    assert drive.recommended_order([(0, 1), (15, 19), (11, 11), (2, 2)]) == [2, 1, 3, 0]
    assert drive.position() == position(10, 0)
    assert drive.status().counters.locates == before.locates
    drive.close()


def test_more_than_the_drive_takes(tmp_path: Path) -> None:
    drive = ServedBench(tmp_path).loaded()
    write(drive, *[block_of(number) for number in range(3)], sync=True)
    order = drive.recommended_order([(0, 1)] * 1000)
    assert order is not None
    assert sorted(order) == list(range(1000))
    assert drive.recommended_order([(0, 1)] * 1001) is None
    drive.close()


def test_a_drive_without_it(tmp_path: Path) -> None:
    server = make_tape(tmp_path / "library", generation=8)
    drive = ScsiDrive(LocalTransport(server), tmp_path / "notes")
    drive.load()
    write(drive, *[block_of(number) for number in range(3)], sync=True)
    assert drive.recommended_order([(2, 2), (0, 1)]) is None
    drive.close()
    server.close()


def test_without_a_tape(tmp_path: Path) -> None:
    drive = ServedBench(tmp_path).open()
    with pytest.raises(NotReady):
        drive.recommended_order([(0, 1)])
    drive.close()
