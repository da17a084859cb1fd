"""What the doctor says of devices that are well, of devices that are not, and of a host without any."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.human.changer import HumanChanger
from drivers.program import Ended
from drivers.scsi.cdb import Op
from drivers.scsi.transport import Reply, Status
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.library import create_library
from drivers.vtl.local import LocalTransport
from drivers.vtl.tape import TapeServer
from tapefs.doctor.changer import look_at_changer
from tapefs.doctor.drive import Asked, look_at_drive
from tapefs.doctor.findings import Finding, Grade
from tapefs.doctor.host import Host, look_at_host
from tapefs.doctor.library import look_at_library
from tapefs.home import open_home
from tests.drivers.itdt.stand_in import ChangerStandIn as ItdtStandIn
from tests.drivers.itdt.stand_in import failed
from tests.drivers.mtx.stand_in import StandIn as MtxStandIn
from tests.drivers.test_st_discovery import Tree
from tests.drivers.tgt import need_libiscsi
from tests.drivers.vtl.served import serving

MIB = 2**20
BLOCK_BYTES = 256 * 1024
ASKED = Asked("drive0", BLOCK_BYTES, "/dev/sg1")


def bad(findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each.grade in (Grade.WARNING, Grade.PROBLEM)]


def says(findings: list[Finding], words: str) -> Finding:
    """Return the one finding that says so."""
    [found] = [each for each in findings if words in each.says]
    return found


# -- drives ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TapeServer]:
    create_library(tmp_path / "library", tapes=2, tape_bytes=64 * MIB, drives=1, generation=9)
    server = TapeServer(VirtualDrive(tmp_path / "library", 0))
    yield server
    server.close()


class Answering(LocalTransport):
    """A device server that answers some commands in another way."""

    def __init__(self, server: TapeServer) -> None:
        super().__init__(server)
        self.answers: dict[bytes, bytes | None] = {}

    def execute(self, cdb: bytes, **more: object) -> Reply:  # type: ignore[override]
        for start, answer in self.answers.items():
            if cdb.startswith(start):
                if answer is None:
                    return Reply(Status.CHECK_CONDITION, bytes.fromhex("70000500000000 0a 00000000 2000 00000000"))
                data_in = more["data_in"]
                assert isinstance(data_in, memoryview)
                data_in[: len(answer)] = answer
                return Reply(Status.GOOD, moved_bytes=len(answer))
        return super().execute(cdb, **more)  # type: ignore[arg-type]


def test_a_drive_that_is_well(server: TapeServer) -> None:
    found = list(look_at_drive(Answering(server), ASKED))
    assert bad(found) == []
    assert {each.about for each in found} == {"drive0"}
    assert "LTO-9" in says(found, "firmware").says
    assert says(found, "262,144 are used").grade is Grade.GOOD
    assert says(found, "no tape is threaded")
    assert says(found, "no TapeAlert").shows == "sg_logs -p 0x12 /dev/sg1"


def test_blocks_that_do_not_go_through(server: TapeServer) -> None:
    transport = Answering(server)
    transport.max_transfer_bytes = 128 * 1024  # type: ignore[misc]
    found = says(list(look_at_drive(transport, ASKED)), "do not go through: at most 131,072")
    assert found.grade is Grade.PROBLEM
    assert "block_size" in found.fix


def test_tape_alerts(server: TapeServer) -> None:
    """Flag 20, clean now, and flag 4, the tape is worn out: as page 12h has them, the first flag in the highest bit."""
    flags = 1 << 64 - 20 | 1 << 64 - 4
    page = bytes.fromhex("12 00 00 0c 0000 03 08") + flags.to_bytes(8, "big")
    transport = Answering(server)
    transport.answers[bytes([Op.LOG_SENSE, 0, 0x52])] = page
    found = list(look_at_drive(transport, ASKED))
    worn, clean = says(found, "TapeAlert 4:"), says(found, "TapeAlert 20:")
    assert (worn.grade, clean.grade) == (Grade.PROBLEM, Grade.PROBLEM)
    assert clean.fix == "put a cleaning cartridge in"
    assert found.index(worn) < found.index(clean)


@pytest.mark.parametrize(
    ("encrypts", "decrypts", "grade"),
    [(0, 0, Grade.GOOD), (2, 2, Grade.WARNING), (0, 3, Grade.WARNING), (9, 0, Grade.WARNING)],
)
def test_encryption(server: TapeServer, encrypts: int, decrypts: int, grade: Grade) -> None:
    transport = Answering(server)
    transport.answers[bytes([0xA2])] = bytes.fromhex("0020 0014 00") + bytes([encrypts, decrypts]) + bytes(17)
    assert says(list(look_at_drive(transport, ASKED)), "encryption").grade is grade


def test_a_drive_of_few_words(server: TapeServer) -> None:
    """What it does not know is told, with the consequence, and the other questions are asked all the same."""
    transport = Answering(server)
    opcodes = b"".join(bytes([op, 0, 0, 0, 0, 0, 0, 6]) for op in (Op.READ_6, Op.WRITE_6, Op.LOCATE_16))
    transport.answers[bytes([Op.MAINTENANCE_IN])] = len(opcodes).to_bytes(4, "big") + opcodes
    transport.answers[bytes([Op.LOG_SENSE])] = None
    found = list(look_at_drive(transport, ASKED))
    assert "TapeAlerts cannot be read" in says(found, "LOG_SENSE").says
    assert not [each for each in found if "LOCATE_16" in each.says]
    assert says(found, "no page of TapeAlerts").grade is Grade.NOTE
    assert says(found, "no tape is threaded")


def test_an_answer_without_sense(server: TapeServer) -> None:
    transport = Answering(server)
    transport.answers[bytes([Op.READ_BLOCK_LIMITS])] = b"\1"
    found = list(look_at_drive(transport, ASKED))
    assert len(bad(found)) == 1
    assert says(found, "no tape is threaded")


def test_a_changer_named_as_a_drive(server: TapeServer, tmp_path: Path) -> None:
    found = list(look_at_drive(Answering(server), ASKED))
    assert len(found) > 5
    with serving(tmp_path / "other") as served:
        [problem] = look_at_drive(LocalTransport(served.changer), ASKED)
        assert problem.grade is Grade.PROBLEM
        assert "is no tape drive" in problem.says


# -- changers --------------------------------------------------------------------------------------------------------


def test_a_library_that_is_well(tmp_path: Path) -> None:
    with serving(tmp_path / "library") as served:
        serials = [each.identity.serial for each in served.tapes]
        found = list(look_at_changer(LocalTransport(served.changer), "library", serials, sg="/dev/sg3"))
    assert bad(found) == []
    assert "2 drives, 3 slots, 3 cartridges" in found[0].says
    assert found[0].shows == "mtx -f /dev/sg3 status"
    assert all(says(found, serial) for serial in serials)


def test_a_drive_that_the_library_does_not_have(tmp_path: Path) -> None:
    with serving(tmp_path / "library") as served:
        [problem] = look_at_changer(LocalTransport(served.changer), "library", ["NOBODY"])
    assert problem.grade is Grade.PROBLEM
    assert "NOBODY" in problem.says


# -- the host --------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path) -> Host:
    tree = Tree(tmp_path)
    tree.add("2:0:0:0", 1, {"scsi_tape": "nst0 st0", "scsi_generic": "sg7"}, "10WT001", "scsi-10WT001-nst")
    tree.add("2:0:0:1", 8, {"scsi_changer": "sch0", "scsi_generic": "sg8"}, "78A0001")
    (tmp_path / "proc/scsi/sg").mkdir(parents=True)
    (tmp_path / "proc/scsi/sg/def_reserved_size").write_text("1048576\n")
    adapter = tmp_path / "sys/class/scsi_host/host2"
    adapter.mkdir(parents=True)
    (adapter / "sg_tablesize").write_text("128\n")
    return Host(tree.system, tmp_path / "proc", which=lambda program: f"/bin/{program}", may=lambda node: True)


def test_a_host_that_is_well(host: Host) -> None:
    found = list(look_at_host(host, BLOCK_BYTES))
    assert {each.grade for each in found} == {Grade.GOOD}
    assert "IBM ULT3580-TD9 10WT001, firmware R3G0, at 2:0:0:0" in found[0].says


def test_what_stands_in_the_way(host: Host, tmp_path: Path) -> None:
    (tmp_path / "sys/class/scsi_host/host2/sg_tablesize").write_text("32\n")
    (tmp_path / "proc/scsi/sg/def_reserved_size").write_text("32768\n")
    (tmp_path / "dev/tape/by-id/scsi-10WT001-nst").unlink()
    host = replace(host, which=lambda program: None, may=lambda node: node.name != "sg7")
    found = list(look_at_host(host, BLOCK_BYTES))
    assert says(found, "32 pieces of memory").grade is Grade.WARNING
    assert says(found, "sg keeps 32,768").fix.startswith("echo 'options sg def_reserved_size=1048576'")
    assert says(found, "may not be opened").about.endswith("nst0")
    assert "10WT001" in says(found, "no name below /dev/tape").fix
    assert "mt-st" in says(found, "not installed").fix


def test_drivers_that_are_not_loaded(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.add("2:0:0:0", 1, {}, "10WT001")
    tree.add("2:0:0:1", 8, {}, "78A0001")
    found = list(
        look_at_host(Host(tree.system, tmp_path, which=lambda program: "", may=lambda node: True), BLOCK_BYTES)
    )
    assert says(found, "no tape node").fix == "load the driver: modprobe st"
    assert [each.grade for each in found if "no sg node" in each.says] == [Grade.WARNING, Grade.PROBLEM]


# -- the command -----------------------------------------------------------------------------------------------------


def doctor(home: Path) -> tuple[int, list[dict[str, str]]]:
    command = [sys.executable, "-m", "tapefs", "--home", str(home), "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    return done.returncode, json.loads(done.stdout)


def test_without_a_state_folder(tmp_path: Path) -> None:
    _, found = doctor(tmp_path / "none")
    assert found
    assert {"grade", "about", "says", "fix", "shows"} == set(found[0])


def test_a_virtual_library(home: object) -> None:
    path = home.path  # type: ignore[attr-defined]
    _, found = doctor(path)
    assert any("a virtual library of 1 drive and" in each["says"] for each in found)


def init(home: Path, *words: str) -> None:
    command = [sys.executable, "-m", "tapefs", "--home", str(home), "init", *words]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_a_folder_as_a_medium(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    init(tmp_path / "home", "--driver", "ltfs", "--any-filesystem", "--drive", str(disk))
    code, found = doctor(tmp_path / "home")
    assert (code, found[-1]["about"], found[-1]["grade"]) == (0, str(disk), "good")


def test_a_human_as_the_changer(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    init(tmp_path / "home", "--driver", "itdt", "--changer", "human", "--drive", "/dev/IBMtape0")
    home = open_home(tmp_path / "home")
    shelf = says(list(look_at_library(home)), "somebody puts the tapes in: 0 tapes on the shelf")
    assert shelf.grade is Grade.WARNING
    assert "tapefs tape add" in shelf.fix
    HumanChanger(home.library_config.folder, 1).add(["TP0001L9", "TP0002L9"])
    shelf = says(list(look_at_library(home)), "2 tapes on the shelf")
    assert (shelf.grade, shelf.shows) == (Grade.GOOD, "tapefs prompts")


class RobotOnly(ItdtStandIn):
    """itdt with a changer and no drive."""

    def run(self, arguments: Sequence[str], timeout_s: float) -> Ended:
        return super().run(arguments, timeout_s) if arguments[1] == "/dev/IBMchanger0" else failed(None)


@pytest.mark.parametrize(
    ("changer", "shows"),
    [
        ("mtx:/dev/sg3", "mtx -f /dev/sg3 status"),
        ("mtx:/dev/sg3,1,0", "mtx -f /dev/sg3 status"),
        ("/dev/IBMchanger0", "itdt -f /dev/IBMchanger0 inventory"),
    ],
)
def test_changers_by_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changer: str, shows: str) -> None:
    create_library(tmp_path / "library", tapes=3, tape_bytes=32 * MIB, drives=2, generation=9)
    monkeypatch.setattr("drivers.mtx.changer.Program", lambda name, hint: MtxStandIn(tmp_path / "library"))
    monkeypatch.setattr("drivers.itdt.tool.Program", lambda name, hint: RobotOnly(tmp_path / "library"))
    drives = ["--drive", "/dev/IBMtape0", "--drive", "/dev/IBMtape1"]
    init(tmp_path / "home", "--driver", "itdt", "--changer", changer, *drives)
    found = says(list(look_at_library(open_home(tmp_path / "home"))), "2 drives, 3 slots, 3 cartridges")
    assert (found.about, found.shows, found.grade) == (changer, shows, Grade.GOOD)


def test_a_program_that_is_not_there_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    init(tmp_path / "home", "--driver", "itdt", "--changer", "mtx:/dev/sg3", "--drive", "/dev/IBMtape0")
    drive, robot = look_at_library(open_home(tmp_path / "home"))
    assert (drive.grade, robot.grade, robot.about) == (Grade.PROBLEM, Grade.PROBLEM, "mtx:/dev/sg3")
    assert "install Debian's package `mtx`" in robot.says


def test_drives_of_the_kernel_by_name(tmp_path: Path) -> None:
    init(tmp_path / "home", "--driver", "st", "--changer", "/dev/sch0", "--drive", "10WT001", "--drive", "10WT002")
    tree = Tree(tmp_path)
    tree.add("2:0:0:0", 1, {"scsi_tape": "nst0 st0", "scsi_generic": "sg7"}, "10WT001")
    known, unknown = look_at_library(open_home(tmp_path / "home"), tree.system)
    assert (known.about, known.grade, unknown.about, unknown.grade) == ("10WT001", Grade.GOOD, "10WT002", Grade.PROBLEM)
    assert "nst0" in unknown.says


def test_an_iscsi_library(tmp_path: Path) -> None:
    """Changer and drives answer for themselves; a drive that is not there is a problem, and the exit code says so."""
    need_libiscsi()
    home = tmp_path / "home"
    with serving(tmp_path / "library") as served:
        urls = [served.url(1), served.url(2)]
        drives = [word for url in urls for word in ("--drive", url)]
        init(home, "--driver", "iscsi", "--changer", served.url(0), *drives)
        code, found = doctor(home)
        assert code == 0, found
        assert {served.url(0), *urls} <= {each["about"] for each in found}
        toml = home / "tapefs.toml"
        toml.write_text(toml.read_text().replace(served.url(2), served.url(9)))
        code, found = doctor(home)
    assert code == 1
    assert [each["about"] for each in found if each["grade"] == "problem"] == [served.url(9)]
