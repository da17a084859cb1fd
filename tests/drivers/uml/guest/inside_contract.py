"""In the guest: the contracts, on the real st and sg drivers, over the virtual library by iSCSI.

The library has three slots, two drives, and cartridges in slots 0 and 1, as the changer's contract wants it. The
drive's contract has the first of them in the first drive. mt and mtx, which nobody here wrote, are hands and witnesses.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from drivers import registry
from drivers.config import LibraryConfig
from drivers.errors import DriveInUse
from drivers.interface import BlockNo, Changer, Drive, NextBlock
from drivers.scsi.drive import ScsiDrive
from drivers.st.device import TapeNode
from drivers.st.discovery import System
from drivers.st.drive import StDrive
from drivers.st.sg_io import SgIo
from drivers.virtual.library import set_write_protected
from tests.drivers.contract import FILEMARK, ChangerContract, DriveContract, block_of, places, read, write
from tests.drivers.contract_encryption import KEY, EncryptionContract

LIBRARY = Path(os.environ["LIBRARY"])
NST = Path("/dev/nst0")
BARCODE = "TP0001L9"
MTLOAD, MTERASE, MTOFFL = 30, 13, 7


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def mtx(*arguments: str) -> str:
    """Numbers slots from 1, drives from 0."""
    return run("mtx", "-f", str(changer_node()), *arguments)


def changer_node() -> Path:
    (changer,) = System().changers()
    assert changer.sg is not None
    return changer.sg


def settings(folder: Path) -> LibraryConfig:
    """The drives by name and by serial number, as an operator may write them."""
    second = System().tape("/dev/nst1").serial
    return LibraryConfig(driver="st", folder=folder, drives=(str(NST), second), changer="/dev/sch0")


def open_changer(folder: Path = Path("/tmp/notes")) -> Changer:
    return registry.open_changer(settings(folder))


def is_in_drive(changer: Changer, number: int) -> bool:
    return changer.inventory()[number].full


def stow(changer: Changer) -> None:
    """Bring every cartridge to its place: the first two slots."""
    tapes = System().tapes()
    for number, tape in enumerate(tapes):
        if is_in_drive(changer, number):
            run("mt", "-f", str(tape.node), "offline")
            free = [each.number for each in changer.inventory()[len(tapes) :] if not each.full]
            changer.unload(number, free[-1])
    slots = places(changer)[1]
    if slots[2] is not None:
        changer.transfer(2, slots.index(None))
    if places(changer)[1][0] != BARCODE:
        for source, target in ((0, 2), (1, 0), (2, 1)):
            changer.transfer(source, target)


class OnSt:
    """The first drive, by st, with a blank cartridge in it that is not threaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        changer = open_changer()
        if not is_in_drive(changer, 0):
            changer.load(0, 0)
        changer.close()
        node = TapeNode(NST)
        node.do(MTLOAD)
        # From the start, only the end of data: blank.
        node.do(MTERASE, 0)
        node.do(MTOFFL)
        node.close()

    def open(self) -> Drive:
        return registry.open_drive(settings(self.folder), 0)

    def loaded(self) -> StDrive:
        return self.opened(self.folder)

    @staticmethod
    def opened(folder: Path) -> StDrive:
        """Return the drive with its tape threaded and rewound, whatever is on it."""
        drive = registry.open_drive(settings(folder), 0)
        assert isinstance(drive, StDrive)
        drive.load()
        return drive

    def take_out(self) -> None:
        mtx("unload", "1", "0")

    def protect(self) -> None:
        set_write_protected(LIBRARY, BARCODE, True)

    def make_worm(self) -> None:
        pytest.skip("the cartridges here are used by all tests, and one that is written once cannot be used again")

    def put_in(self) -> None:
        mtx("load", "1", "0")
        # A drive threads by itself what a robot puts in.
        run("mt", "-f", str(NST), "offline")

    def remove_protection(self) -> None:
        changer = open_changer()
        stow(changer)
        changer.close()
        set_write_protected(LIBRARY, BARCODE, False)


class OnSg(OnSt):
    """The same by SCSI commands alone."""

    def open(self) -> Drive:
        sg = System().tape(str(NST)).sg
        assert sg is not None
        return ScsiDrive(SgIo(sg), self.folder)


class OnTheKernel(DriveContract):
    """The contract; what a test does with the tab is undone."""

    bench_class: type[OnSt]

    @pytest.fixture
    def bench(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[OnSt]:
        bench = self.bench_class(tmp_path)
        yield bench
        if request.node.name in ("test_write_protection", "test_what_is_protected_is_not_erased"):
            bench.remove_protection()


class TestStDrive(OnTheKernel):
    """By st."""

    bench_class = OnSt


class TestScsiDriveBySg(OnTheKernel):
    """By sg alone."""

    bench_class = OnSg


@dataclass
class Library:
    """The library, its drives by st."""

    folder: Path

    def open(self) -> Changer:
        return open_changer(self.folder)

    def open_drive(self, number: int) -> Drive:
        return registry.open_drive(settings(self.folder), number)


class TestChangerOnSg(ChangerContract):
    """The changer by sg; mtx sees the same."""

    @pytest.fixture
    def library(self, tmp_path: Path) -> Library:
        changer = open_changer()
        stow(changer)
        changer.close()
        return Library(tmp_path)

    def test_mtx_sees_what_was_moved(self, changer: Changer) -> None:
        changer.load(1, 0)
        seen = mtx("status")
        assert re.search(r"Data Transfer Element 0:Full .*VolumeTag ?= ?TP0002L9", seen), seen
        assert re.search(r"Storage Element 1:Full .*VolumeTag ?= ?TP0001L9", seen), seen
        assert re.search(r"Storage Element 2:Empty", seen), seen
        mtx("transfer", "1", "3")
        assert places(changer) == (["TP0002L9", None], [None, None, BARCODE])


# -- by other programs -----------------------------------------------------------------------------------------------


def test_what_was_written_is_read_by_dd_and_mt(tmp_path: Path) -> None:
    drive = OnSt(tmp_path).open()
    drive.load()
    write(drive, block_of(1, 1000), b"", block_of(2, 70_000), block_of(3, 70_000), b"", sync=True)
    drive.close()
    run("mt", "-f", str(NST), "rewind")
    run("dd", f"if={NST}", f"of={tmp_path}/first", "bs=256k", "status=none")
    run("dd", f"if={NST}", f"of={tmp_path}/second", "bs=256k", "status=none")
    assert (tmp_path / "first").read_bytes() == block_of(1, 1000)
    assert (tmp_path / "second").read_bytes() == block_of(2, 70_000) + block_of(3, 70_000)
    assert "At block 5" in run("mt", "-f", str(NST), "tell")
    node = TapeNode(NST)
    assert node.block_address() == 5
    node.close()


def test_what_dd_wrote_is_read(tmp_path: Path) -> None:
    bench = OnSt(tmp_path)
    run("mt", "-f", str(NST), "load")
    source = tmp_path / "source"
    source.write_bytes(block_of(4, 300_000))
    # dd closes, and st writes a filemark.
    run("dd", f"if={source}", f"of={NST}", "bs=100000", "status=none")
    drive = bench.open()
    drive.load()
    whole = block_of(4, 300_000)
    assert [read(drive) for _ in range(4)] == [whole[:100_000], whole[100_000:200_000], whole[200_000:], b""]
    drive.close()


def test_another_program_that_has_the_tape_is_left_alone(tmp_path: Path) -> None:
    bench = OnSt(tmp_path)
    other = TapeNode(NST)
    with pytest.raises(DriveInUse, match="lsof"):
        bench.open()
    other.close()
    bench.open().close()


class TestStEncryption(EncryptionContract):
    """Keys by sg, blocks by st."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> OnSt:
        return OnSt(tmp_path)


def test_stenc_knows_the_drives_keys_as_the_driver_does(tmp_path: Path) -> None:
    """With a key in a file, stenc, mt and dd read what the driver has encrypted, and the other way round."""
    drive = OnSt(tmp_path).loaded()
    drive.set_key(KEY)
    write(drive, block_of(1), block_of(2), FILEMARK, sync=True)
    drive.close()
    node, file = str(NST), tmp_path / "drive.key"
    file.write_text(f"{KEY.secret.hex()}\n{KEY.name}\n")
    run("mt", "-f", node, "rewind")
    assert subprocess.run(["dd", f"if={node}", "bs=1M"], capture_output=True, check=False).returncode != 0
    run("stenc", "-f", node, "-e", "mixed", "-k", str(file), "-a", "1", "--ckod")
    run("mt", "-f", node, "rewind")
    assert dd(f"if={node}") == block_of(1) + block_of(2)
    dd(f"of={node}", block_of(3))
    assert KEY.name in run("stenc", "-f", node, "--detail")
    run("stenc", "-f", node, "-e", "off", "-a", "1")
    drive = OnSt.opened(tmp_path)
    drive.locate(BlockNo(3))
    assert drive.next_block() is NextBlock.LOCKED
    drive.set_key(KEY, writes=False)
    assert read(drive) == block_of(3)
    drive.unload()
    drive.close()


def dd(operand: str, data: bytes = b"") -> bytes:
    return subprocess.run(["dd", operand, "bs=1M", "status=none"], input=data, capture_output=True, check=True).stdout
