"""The changer by mtx: the contract over a stand-in, what the real program prints, and programs that misbehave."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from drivers.config import LibraryConfig
from drivers.errors import (
    BadAnswer,
    DeviceFailed,
    DriveError,
    NoSuchElement,
    NotReady,
    SlotEmpty,
    SlotFull,
    TransportFailed,
)
from drivers.interface import Changer, Element, ElementKind
from drivers.mtx import changer as mtx
from drivers.mtx.changer import MtxChanger, parse_address
from drivers.registry import check_library, open_changer
from tests.drivers.benches import VirtualLibraryBench
from tests.drivers.contract import ChangerBench, ChangerContract
from tests.drivers.mtx.stand_in import HELD, StandIn

PADDING = 24 * " "
#: As mtx 1.3.12 prints it: a library with two drives, five slots, one of them for import and export.
STATUS = f"""\
  Storage Changer /dev/sg3:2 Drives, 5 Slots ( 1 Import/Export )
Data Transfer Element 0:Full (Storage Element 5 Loaded):VolumeTag = TP0005L9{PADDING}
Data Transfer Element 1:Empty
      Storage Element 1:Full :VolumeTag=TP0001L9{PADDING}:AlternateVolumeTag=OTHER{PADDING}
      Storage Element 2:Empty
      Storage Element 3:Full :VolumeTag={PADDING}
      Storage Element 4:Full{" "}
      Storage Element 5 IMPORT/EXPORT:Full :VolumeTag=TP0009L9
"""
HEAD = "  Storage Changer /dev/sg3:1 Drives, 1 Slots ( 0 Import/Export )\n"
DRIVE = "Data Transfer Element 0:Empty\n"
REAL = shutil.which("mtx", path="/usr/sbin:/sbin:/usr/bin:/usr/local/sbin")


@dataclass
class MtxBench(VirtualLibraryBench):
    """The virtual library through mtx's stand-in."""

    def open(self) -> Changer:
        return MtxChanger("/dev/sg3", program=StandIn(self.folder))


class TestMtxChanger(ChangerContract):
    @pytest.fixture
    def library(self, tmp_path: Path) -> ChangerBench:
        return MtxBench(tmp_path / "library")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where to write an `mtx` that is found first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "mtx"


def write_script(path: Path, text: str) -> None:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


def printing(path: Path, text: str) -> None:
    """Let the program print a text whatever it is asked."""
    (path.parent / "text").write_text(text)
    write_script(path, f"cat {path.parent}/text\n")


def test_a_status_is_read_as_mtx_prints_it(script: Path) -> None:
    printing(script, STATUS)
    assert MtxChanger("/dev/sg3").inventory() == [
        Element(ElementKind.DRIVE, 0, True, "TP0005L9"),
        Element(ElementKind.DRIVE, 1, False, None),
        Element(ElementKind.SLOT, 0, True, "TP0001L9"),
        Element(ElementKind.SLOT, 1, False, None),
        Element(ElementKind.SLOT, 2, True, None),
        Element(ElementKind.SLOT, 3, True, None),
        Element(ElementKind.PORT, 4, True, "TP0009L9"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line"),
        ("hello\n" * 1000, "no line"),
        (HEAD, "announced 1 drives and listed 0"),
        (HEAD + DRIVE, "announced 1 slots and listed 0"),
        (HEAD + DRIVE + "      Storage Element 2:Empty\n", "announced 1 slots"),
        (HEAD + DRIVE + "      Storage Element 1 IMPORT/EXPORT:Empty\n", "announced 0 import/export"),
        (HEAD + DRIVE + DRIVE + "      Storage Element 1:Empty\n", "announced 1 drives and listed 2"),
    ],
)
def test_nonsense_is_refused(script: Path, text: str, message: str) -> None:
    printing(script, text)
    with pytest.raises(BadAnswer, match=message):
        MtxChanger("/dev/sg3").inventory()


def test_drives_have_the_numbers_that_the_settings_give(tmp_path: Path) -> None:
    bench = MtxBench(tmp_path / "library")
    changer = MtxChanger("/dev/sg3", [1, 0], program=StandIn(bench.folder))
    changer.load(1, 0)
    assert [each.barcode for each in changer.inventory()[:2]] == ["TP0002L9", None]
    assert [each.barcode for each in bench.open().inventory()[:2]] == [None, "TP0002L9"]
    with pytest.raises(SlotFull, match="drive 0 is taken by TP0002L9"):
        changer.load(0, 0)
    with pytest.raises(NoSuchElement, match="no drive 2"):
        changer.load(0, 2)
    with pytest.raises(DeviceFailed, match="no drive 7"):
        MtxChanger("/dev/sg3", [7], program=StandIn(bench.folder)).inventory()


def test_the_setting_names_the_device_and_the_order_of_the_drives(tmp_path: Path) -> None:
    assert parse_address("/dev/sg3") == ("/dev/sg3", [])
    assert parse_address("/dev/tape/by-id/x,1,0") == ("/dev/tape/by-id/x", [1, 0])
    for wrong in ("", "sg3", "/dev/sg3,one", "/dev/sg3,1,1"):
        with pytest.raises(ValueError, match="mtx"):
            check_library(LibraryConfig(folder=tmp_path, changer=f"mtx:{wrong}"))
    assert isinstance(open_changer(LibraryConfig(folder=tmp_path, changer="mtx:/dev/sg3,1")), MtxChanger)


def sense(key: str, asc: str, ascq: str) -> str:
    """Return what mtx prints of other sense data."""
    text = HELD.replace("Illegal Request", key)
    return text.replace("Code = 53", f"Code = {asc}").replace("Qualifier = 02", f"Qualifier = {ascq}")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (sense("Illegal Request", "53", "02"), NotReady, "unload the drive first"),
        (sense("Illegal Request", "3B", "0D"), SlotFull, "a cartridge already"),
        (sense("Illegal Request", "3B", "0E"), SlotEmpty, "no cartridge"),
        (sense("Illegal Request", "21", "01"), NoSuchElement, "05/21/01"),
        (sense("Not Ready", "04", "01"), NotReady, "02/04/01"),
        (sense("Hardware Error", "15", "01"), DeviceFailed, "04/15/01"),
        ("cannot open SCSI device '/dev/sg3' - No such file or directory\n", DeviceFailed, "No such file"),
        ("", DeviceFailed, "exit code 1: it said nothing"),
    ],
)
def test_failures_are_told_apart(script: Path, text: str, error: type[DriveError], message: str) -> None:
    """The status is asked first, then the move fails."""
    folder = script.parent
    (folder / "status").write_text(
        f"{HEAD}Data Transfer Element 0:Full (Storage Element 1 Loaded)\n      Storage Element 1:Empty\n"
    )
    (folder / "text").write_text(text)
    write_script(script, f'case "$3" in status) cat {folder}/status;; *) cat {folder}/text >&2; exit 1;; esac\n')
    with pytest.raises(error, match=message) as caught:
        MtxChanger("/dev/sg3").unload(0, 0)
    assert "mtx -f /dev/sg3 unload 1 0" in str(caught.value)


def test_a_move_that_says_failed_has_failed_whatever_the_exit_code(script: Path) -> None:
    folder = script.parent
    (folder / "status").write_text(f"{HEAD}{DRIVE}      Storage Element 1:Full\n")
    write_script(
        script,
        f'case "$3" in status) cat {folder}/status;; *) echo "MOVE MEDIUM from Element Address 1 to 2 Failed";; esac\n',
    )
    with pytest.raises(DeviceFailed, match="MOVE MEDIUM"):
        MtxChanger("/dev/sg3").load(0, 0)


def test_a_program_that_hangs_is_killed_with_its_children(
    script: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    write_script(script, f"sleep 60 & echo $! > {pid_file}; wait\n")
    monkeypatch.setattr(mtx, "STATUS_S", 1.0)
    began = time.monotonic()
    with pytest.raises(TransportFailed, match="did not end"):
        MtxChanger("/dev/sg3").inventory()
    assert time.monotonic() - began < 20
    # A killed process may still be seen running for a moment on a busy machine.
    child = pid_file.read_text().strip()
    while is_running(child):
        assert time.monotonic() - began < 50
        time.sleep(0.05)


def is_running(pid: str) -> bool:
    """Is there such a process that has not ended?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_without_the_program_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceFailed, match="package `mtx`"):
        MtxChanger("/dev/sg3").inventory()


def test_a_file_that_is_no_program_is_said(script: Path) -> None:
    script.write_bytes(b"\x7fELF nonsense")
    script.chmod(0o755)
    with pytest.raises(DeviceFailed, match="cannot start"):
        MtxChanger("/dev/sg3").inventory()


def test_a_closed_changer_stays_closed(script: Path) -> None:
    printing(script, STATUS)
    changer = MtxChanger("/dev/sg3")
    changer.close()
    with pytest.raises(DeviceFailed, match="closed"):
        changer.inventory()


@pytest.mark.skipif(REAL is None, reason="Debian's mtx is not installed")
def test_the_real_program_says_why_it_has_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(str(REAL)).parent))
    with pytest.raises(DeviceFailed, match="No such file"):
        MtxChanger("/dev/there-is-none").inventory()


@pytest.mark.skipif(REAL is None, reason="Debian's mtx is not installed")
@pytest.mark.parametrize(
    "line",
    [
        "  Storage Changer %s:%d Drives, %d Slots ( %d Import/Export )\n",
        "Data Transfer Element %d:",
        "      Storage Element %d%s:%s",
        " IMPORT/EXPORT",
        ":VolumeTag = %s",
        ":VolumeTag=%s",
        "mtx: Request Sense: Sense Key=%s\n",
        "mtx: Request Sense: Additional Sense Code = %02X\n",
        "mtx: Request Sense: Additional Sense Qualifier = %02X\n",
    ],
)
def test_the_real_program_has_the_lines_that_are_read(line: str) -> None:
    """Its patterns, taken from the program itself, so that another version of it is noticed."""
    assert line.encode() in Path(str(REAL)).read_bytes()


@pytest.mark.skipif(REAL is None, reason="Debian's mtx is not installed")
def test_the_real_program_is_the_version_that_was_looked_at() -> None:
    """It ends with 1 although it tells its version."""
    ended = subprocess.run([str(REAL), "--version"], capture_output=True, text=True, check=False)
    assert "1.3.12" in ended.stdout + ended.stderr
