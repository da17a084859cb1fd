"""The contract of changers, through ScsiChanger and the device server of the virtual library; and what is beyond it."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.errors import DeviceFailed
from drivers.interface import Element, ElementKind
from drivers.scsi.changer import ScsiChanger
from drivers.vtl.local import LocalTransport
from tests.drivers.contract import ChangerContract
from tests.drivers.scsi.bench import ServedLibrary
from tests.drivers.scsi.script import Script


class TestScsiChanger(ChangerContract):
    @pytest.fixture
    def library(self, tmp_path: Path) -> ServedLibrary:
        return ServedLibrary(tmp_path)


def test_drives_have_the_numbers_of_their_serials(tmp_path: Path) -> None:
    bench = ServedLibrary(tmp_path)
    changer = ScsiChanger(LocalTransport(bench.server), list(reversed(bench.serials)))
    changer.load(0, 0)
    assert [each.full for each in changer.inventory()[:2]] == [True, False]
    assert bench.tapes[1].is_threaded()
    assert not bench.tapes[0].is_threaded()
    only_one = ScsiChanger(LocalTransport(bench.server), bench.serials[1:])
    assert [each.number for each in only_one.inventory() if each.kind is ElementKind.DRIVE] == [0]
    assert only_one.inventory()[0].full


def test_a_serial_that_no_drive_has_is_told(tmp_path: Path) -> None:
    bench = ServedLibrary(tmp_path)
    with pytest.raises(DeviceFailed, match="XYZ") as told:
        ScsiChanger(LocalTransport(bench.server), ["XYZ"])
    assert all(each in str(told.value) for each in bench.serials)


def test_a_drive_is_no_changer(tmp_path: Path) -> None:
    bench = ServedLibrary(tmp_path)
    with pytest.raises(DeviceFailed, match="no changer"):
        ScsiChanger(LocalTransport(bench.tapes[0]))


# -- a library with an import/export station, word for word -----------------------------------------------------------

EMPTY_TAG = " 00" * 36
TAG = " " + b"TP0009L9".ljust(32).hex(" ") + " 00 00 00 00"
OPENING = [
    ("12 00 00 00 60 00", "08 80 06 02 1f 00 00 00 " + b"ACME    Library         1.00".hex(" ")),
    ("12 01 80 00 ff 00", "08 80 00 04 4c 49 42 31"),
    ("a3 0c 80 00 00 00 00 00 40 00 00 00", "check 05 20 00"),
    ("00 00 00 00 00 00", "check 06 29 00"),
    ("00 00 00 00 00 00", "check 02 04 01"),
    ("00 00 00 00 00 00", ""),
    (
        "5a 00 1d 00 00 00 00 02 00 00",
        "00 1a 00 00 00 00 00 00 1d 12 00 00 00 01 00 20 00 01 00 30 00 01 00 10 00 01 00 00",
    ),
    (
        "b8 04 00 10 00 01 01 00 ff ff 00 00",
        "00 10 00 01 00 00 00 1e 04 00 00 16 00 00 00 16 00 10 08 00 00 00 00 00 00 00 00 00"
        " 02 00 00 06 44 52 56 30 30 31",
    ),
]
DRIVE = ("b8 14 00 10 00 01 00 00 ff ff 00 00", "00 10 00 01 00 00 00 3c 04 80 00 34 00 00 00 34 00 10 08" + " 00" * 49)
SLOT = ("b8 12 00 20 00 01 00 00 ff ff 00 00", "00 20 00 01 00 00 00 3c 02 80 00 34 00 00 00 34 00 20 08" + " 00" * 49)
PORT = (
    "b8 13 00 30 00 01 00 00 ff ff 00 00",
    "00 30 00 01 00 00 00 38 03 80 00 30 00 00 00 30 00 30 3b 00 00 00 00 00 00 00 00 00" + TAG,
)


def test_ports_are_numbered_behind_the_slots_and_can_be_moved_from() -> None:
    script = Script([*OPENING, DRIVE, SLOT, PORT, SLOT, PORT, ("a5 00 00 00 00 30 00 10 00 00 00 00", "")])
    changer = ScsiChanger(script, ["DRV001"], clock=script.clock)
    assert changer.inventory() == [
        Element(ElementKind.DRIVE, 0, False, None),
        Element(ElementKind.SLOT, 0, False, None),
        Element(ElementKind.PORT, 1, True, "TP0009L9"),
    ]
    changer.load(1, 0)
    script.is_over()
