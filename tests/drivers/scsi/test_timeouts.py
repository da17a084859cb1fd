"""Which timeout a command gets, and what is known of generations."""

from __future__ import annotations

import pytest

from drivers.lto import can_write
from drivers.scsi import cdb, robot_cdb
from drivers.scsi.generations import generation_of_density, generation_of_model, native_bytes
from drivers.scsi.opcodes import Supported
from drivers.scsi.timeouts import Timeouts

LOAD = cdb.load_unload(load=True)


def test_what_the_drive_recommends_counts() -> None:
    told = Timeouts(9, [Supported(0x1B, None, 17, 9999), Supported(0x01, None, 1, 1), Supported(0x11, None, 5, None)])
    assert told.of(LOAD) == 9999
    assert told.of(cdb.rewind()) == 60
    assert told.of(cdb.space_6(cdb.Space.FILEMARKS, 1)) == 2940


@pytest.mark.parametrize(("generation", "load_s"), [(3, 780), (5, 780), (8, 960), (9, 7920), (10, 780), (None, 7920)])
def test_the_table_by_generation(generation: int | None, load_s: float) -> None:
    assert Timeouts(generation).of(LOAD) == load_s


def test_other_commands() -> None:
    timeouts = Timeouts(9)
    assert timeouts.of(cdb.test_unit_ready()) == 60
    assert timeouts.of(b"\x07" + bytes(5)) == 1800
    assert timeouts.of(robot_cdb.move_medium(1, 2)) == 300
    assert timeouts.of(b"\xee" + bytes(5)) == 60


@pytest.mark.parametrize(
    ("product", "generation"),
    [
        ("ULT3580-TD9", 9),
        ("ULTRIUM-TD5", 5),
        ("ULT3580-HH7", 7),
        ("ULTRIUM-HH8", 8),
        ("Ultrium 5-SCSI", 5),
        ("Ultrium 10-SCSI", 10),
        ("ULTRIUM 6", 6),
        ("VIRTUAL-LTO9", 9),
        ("03592E08", None),
        ("VIRTUAL-TAPE", None),
        ("Ultrium 77", None),
    ],
)
def test_generations_by_name(product: str, generation: int | None) -> None:
    assert generation_of_model(product) == generation


def test_cartridges_by_density() -> None:
    assert [generation_of_density(each) for each in (0x58, 0x5D, 0x60, 0x63, 0x00, None)] == [5, 7, 9, 10, None, None]
    assert [native_bytes(each) // 10**11 for each in (0x5C, 0x5D, 0x60, 0x62, 0x63, 0x00, None)] == [
        *(60, 90, 180, 300, 400, 0, 0)
    ]
    assert [can_write(9, each) for each in (7, 8, 9, 10)] == [False, True, True, False]
    assert not can_write(10, 9)
