"""In the guest: what of the drive's contract can be shown against tgt, by StDrive on the real st driver."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from drivers import registry
from drivers.config import LibraryConfig
from drivers.interface import Drive
from tests.drivers.contract import DriveContract

#: tgt's tape as the job made it.
IMAGE = Path("/tmp/tape")

WRONG = "tgt answers every READ POSITION with the same bytes, block 0, and knows no LOCATE"
#: Tests that get by without knowing where the tape stands.
RIGHT = {
    "test_an_empty_drive_is_not_ready",
    "test_one_process_at_a_time",
    "test_close_is_harmless_twice_and_final",
    "test_senseless_arguments_are_value_errors",
}


def unit(*arguments: str) -> None:
    subprocess.run(
        ["tgtadm", "--lld", "iscsi", "--mode", "logicalunit", "--op", "update", "--tid", "1", "--lun", "1", *arguments],
        check=True,
    )


class OnTgt:
    """tgt's drive with its cartridge in it, which tgt never unthreads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> Drive:
        library = LibraryConfig(driver="st", folder=self.folder, drives=("/dev/nst0",), changer="/dev/sch0")
        return registry.open_drive(library, 0)

    def take_out(self) -> None:
        unit("--params", "online=0")

    def protect(self) -> None:
        unit("--params", "readonly=1")

    def put_in(self) -> None:
        unit("--params", f"path={IMAGE}")
        unit("--params", "online=1")


class TestStDriveOnTgt(DriveContract):
    """The contract, as far as tgt goes."""

    @pytest.fixture
    def bench(self, request: pytest.FixtureRequest, tmp_path: Path) -> OnTgt:
        if request.node.originalname not in RIGHT:
            pytest.skip(WRONG)
        bench = OnTgt(tmp_path)
        bench.take_out()
        bench.put_in()
        return bench
