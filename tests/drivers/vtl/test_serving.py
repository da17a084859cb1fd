"""A whole library as a target: what it opens, and that it lets go of everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.errors import DriveInUse
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.faults import VARIABLE
from drivers.virtual.library import create_library
from drivers.vtl.serving import LibraryTarget, default_name
from tests.drivers.vtl.bench import MIB, Hand

NAME = "iqn.2026-01.org.tapefs:test"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    create_library(folder, tapes=2, tape_bytes=16 * MIB, drives=2, generation=9)
    VirtualChanger(folder).load(0, 0)
    return folder


def test_all_drives_are_held_while_it_is_open(folder: Path) -> None:
    with LibraryTarget(folder, "account", default_name(folder)) as served:
        assert [each.luns for each in (served.changer, *served.tapes)] == [[0, 1, 2]] * 3
        host, port = served.start("127.0.0.1", 0)
        assert (host, port > 0) == ("127.0.0.1", True)
        for number in range(2):
            with pytest.raises(DriveInUse):
                VirtualDrive(folder, number)
    for number in range(2):
        VirtualDrive(folder, number).close()


def test_what_cannot_be_opened_leaves_nothing_open(folder: Path) -> None:
    taken = VirtualDrive(folder, 1)
    with pytest.raises(DriveInUse):
        LibraryTarget(folder, "account", NAME)
    VirtualDrive(folder, 0).close()
    taken.close()
    with pytest.raises(ValueError, match="no iSCSI name"):
        LibraryTarget(folder, "account", "Library")
    VirtualDrive(folder, 0).close()


def test_faults_on_request_strike_here_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '[{"kind":"write_error","block":1,"drive":0}]')
    with LibraryTarget(folder, "account", NAME) as served:
        hand = Hand(served.tapes[0])
        assert hand("00 00 00 00 00 00").sense == "2 0402"
        served.start("127.0.0.1", 0)
        assert hand("00 00 00 00 00 00").sense == "6 2800"
        assert [hand.write(b"x").sense for _ in range(3)] == ["", "3 0C00", ""]
