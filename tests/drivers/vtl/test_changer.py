"""The robot as SCSI sees it: exchanges as the tables of SMC have them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from drivers.errors import ChangerError
from drivers.interface import ElementKind
from drivers.scsi.changer import ScsiChanger
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.faults import FaultyDrive, PowerCut
from drivers.virtual.library import add_blank, add_from, create_library, set_ports, take_out
from drivers.vtl.changer import ChangerServer
from drivers.vtl.tape import TapeServer
from tests.drivers.vtl.bench import MIB, Hand

TUR = "00 00 00 00 00 00"
UNLOAD = "1B 00 00 00 00 00"


@dataclass
class Library:
    """Two drives; slots with TP0001L9, TP0002L9, and nothing."""

    changer: ChangerServer
    tapes: list[TapeServer]


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    folder = tmp_path / "library"
    create_library(folder, tapes=3, tape_bytes=16 * MIB, drives=2, generation=9)
    take_out(folder, "TP0003L9", tmp_path / "shelf")
    tapes = [TapeServer(VirtualDrive(folder, number)) for number in range(2)]
    changer = ChangerServer(VirtualChanger(folder), tapes, "LIBRARY1")
    yield Library(changer, tapes)
    changer.close()
    for each in tapes:
        each.close()


@pytest.fixture
def hand(library: Library) -> Hand:
    return Hand(library.changer)


def move(source: int, target: int) -> bytes:
    return bytes([0xA5, 0, 0, 0]) + source.to_bytes(2, "big") + target.to_bytes(2, "big") + bytes(4)


def exchange(source: int, first: int, second: int) -> bytes:
    return b"\xa6\0\0\1" + b"".join(each.to_bytes(2, "big") for each in (source, first, second)) + b"\0\0"


def status(
    hand: Hand, kind: int, *, first: int = 0, count: int = 0xFFFF, tags: bool = True, names: bool = False
) -> bytes:
    cdb = bytes([0xB8, kind | 0x10 * tags]) + first.to_bytes(2, "big") + count.to_bytes(2, "big")
    return hand.good(cdb + bytes([names, 0, 0xFF, 0xFF, 0, 0]))


def barcodes(hand: Hand) -> dict[int, str]:
    """Return address -> barcode of all drives and slots that are full."""
    found = {}
    for kind in (2, 4):
        data = status(hand, kind)
        length, at = int.from_bytes(data[10:12], "big"), 16
        while at < len(data):
            entry = data[at : at + length]
            if entry[2] & 1:
                found[int.from_bytes(entry[:2], "big")] = entry[12:44].decode().rstrip()
            at += length
    return found


def test_inquiry_tells_a_changer(hand: Hand) -> None:
    data = hand.good("12 00 00 00 FF 00")
    assert (data[0], data[1]) == (0x08, 0x80)
    assert data[8:32] == b"TAPEFS  VIRTUAL-LIBRARY "
    assert hand.good("12 01 80 00 FF 00") == b"\x08\x80\0\x08LIBRARY1"


def test_element_addresses(hand: Hand) -> None:
    page = hand.good("1A 08 1D 00 FF 00")
    assert page == bytes.fromhex("17 00 00 00 1D 12 0001 0001 1000 0003 0000 0000 0100 0002 0000")
    everything = hand.good("1A 08 3F 00 FF 00")
    assert [everything[4], everything[24], everything[28]] == [0x1D, 0x1E, 0x1F]


def test_slots_with_barcodes(hand: Hand) -> None:
    data = status(hand, 2)
    assert data[:16] == bytes.fromhex("1000 0003 00 0000A4 02 80 0034 00 00009C")
    first = data[16 : 16 + 52]
    assert first[:12] == bytes.fromhex("1000 09 00 0000 000000 01 0000")
    assert first[12:48] == b"TP0001L9".ljust(32) + bytes(4)
    assert data[16 + 104 : 16 + 156] == bytes.fromhex("1002 08") + bytes(49)


def test_drives_tell_their_serial_numbers(library: Library, hand: Hand) -> None:
    data = status(hand, 4, tags=False, names=True)
    serial = library.tapes[1].identity.serial.encode()
    length = int.from_bytes(data[10:12], "big")
    second = data[16 + length : 16 + 2 * length]
    assert second[:3] == bytes.fromhex("0101 08")
    assert second[12:16] == bytes([2, 1, 0, 24 + len(serial)])
    assert second[16:] == b"TAPEFS  VIRTUAL-LTO9    " + serial


def test_all_types_a_part_and_none(hand: Hand) -> None:
    data = status(hand, 0)
    assert data[:4] == bytes.fromhex("0001 0006")
    assert status(hand, 0, first=0x101, count=2)[:4] == bytes.fromhex("0101 0002")
    assert status(hand, 3) == bytes(8)
    short = hand.good("B8 12 00 00 FF FF 00 00 00 08 00 00")
    assert short == bytes.fromhex("1000 0003 00 0000A4")
    assert hand("B8 02 20 00 FF FF 00 00 00 08 00 00").sense == "5 2101"
    assert hand("B8 05 00 00 FF FF 00 00 00 08 00 00").sense == "5 2400"


def test_a_move_threads_the_cartridge(library: Library, hand: Hand) -> None:
    drive = Hand(library.tapes[0])
    assert drive(TUR).sense == "2 3A00"
    hand.good(move(0x1000, 0x100))
    assert drive(TUR).sense == "6 2800"
    drive.good(TUR)
    assert barcodes(hand) == {0x100: "TP0001L9", 0x1001: "TP0002L9"}
    entry = status(hand, 4)[16:]
    assert entry[2] == 0x01
    assert entry[9:12] == bytes.fromhex("81 1000")


def test_a_used_cartridge_must_be_unloaded_first(library: Library, hand: Hand) -> None:
    drive = Hand(library.tapes[0])
    hand.good(move(0x1000, 0x100))
    assert drive(TUR).sense == "6 2800"
    drive.good("01 00 00 00 00 00")
    assert hand(move(0x100, 0x1002)).sense == "5 5303"
    drive.good(UNLOAD)
    drive.good("1E 00 00 00 01 00")
    assert hand(move(0x100, 0x1002)).sense == "5 5302"
    drive.good("1E 00 00 00 00 00")
    hand.good(move(0x100, 0x1002))
    assert drive(TUR).sense == "2 3A00"
    assert barcodes(hand) == {0x1001: "TP0002L9", 0x1002: "TP0001L9"}


def test_a_cartridge_that_nobody_used_is_taken_out(library: Library, hand: Hand) -> None:
    hand.good(move(0x1000, 0x100))
    hand.good(move(0x100, 0x101))
    hand.good(move(0x101, 0x1000))
    assert not library.tapes[1].is_threaded()
    assert barcodes(hand) == {0x1000: "TP0001L9", 0x1001: "TP0002L9"}


@pytest.mark.parametrize(
    ("command", "sense"),
    [
        (move(0x1002, 0x100), "5 3B0E"),
        (move(0x1000, 0x1001), "5 3B0D"),
        (move(0x1000, 0x1000), "5 3B0D"),
        (move(0x1003, 0x100), "5 2101"),
        (move(0x1000, 0x102), "5 2101"),
        (move(0x0001, 0x100), "5 2101"),
        (bytes.fromhex("A5 00 00 09 10 00 01 00 00 00 00 00"), "5 2101"),
        (bytes.fromhex("A5 00 00 00 10 00 01 00 00 00 01 00"), "5 2400"),
        (exchange(0x1002, 0x1000, 0x1002), "5 3B0E"),
        (exchange(0x1000, 0x1002, 0x100), "5 3B0E"),
        (exchange(0x1000, 0x1001, 0x1001), "5 3B0D"),
        (bytes.fromhex("2B 00 00 00 10 09 00 00 00 00"), "5 2101"),
    ],
)
def test_moves_that_cannot_be(hand: Hand, command: bytes, sense: str) -> None:
    before = barcodes(hand)
    assert hand(command).sense == sense
    assert barcodes(hand) == before


def test_exchanges(library: Library, hand: Hand) -> None:
    hand.good(exchange(0x1000, 0x1001, 0x1000))
    assert barcodes(hand) == {0x1000: "TP0002L9", 0x1001: "TP0001L9"}
    hand.good(move(0x1000, 0x100))
    hand.good(exchange(0x1001, 0x100, 0x1002))
    assert barcodes(hand) == {0x100: "TP0001L9", 0x1002: "TP0002L9"}
    assert library.tapes[0].is_threaded()


def test_what_changes_nothing(hand: Hand) -> None:
    for command in (
        "07 00 00 00 00 00",
        "37 01 10 00 00 00 00 01 00 00",
        "E7 01 10 00 00 00 00 01 00 00",
        "2B 00 00 01 10 00 00 00 00 00",
        "1E 00 00 00 01 00",
    ):
        hand.good(command)
    assert hand("37 01 20 00 00 00 00 01 00 00").sense == "5 2101"
    assert hand.good("4D 00 40 00 00 00 00 00 FF 00") == bytes([0, 0, 0, 3, 0, 0x12, 0x2E])


def test_a_paced_drive_is_becoming_ready_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    create_library(folder, tapes=1, tape_bytes=16 * MIB, drives=1, generation=9)
    threading_now, go_on = Event(), Event()

    def sleep(seconds: float) -> None:
        threading_now.set()
        assert go_on.wait(60)

    tape = TapeServer(VirtualDrive(folder, 0, "real", sleep=sleep), is_paced=True)
    changer = ChangerServer(VirtualChanger(folder), [tape], "LIBRARY1")
    drive, robot = Hand(tape), Hand(changer)
    robot.good(move(0x1000, 0x100))
    for expected in ("6 2800", ""):
        assert threading_now.wait(60)
        assert drive(TUR).sense == "2 0401"
        assert drive("08 00 00 10 00 00").sense == "2 0401"
        assert drive.good("03 00 00 00 12 00")[2:14:10] == bytes([2, 4])
        go_on.set()
        deadline = time.monotonic() + 60
        while (got := drive(TUR)).sense == "2 0401":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert got.sense == expected
        drive.good(TUR)
        drive.good(UNLOAD)
        threading_now.clear()
        go_on.clear()
        if expected:
            drive.good("1B 01 00 00 01 00")
    changer.close()
    tape.close()


@pytest.mark.log_warnings
def test_a_drive_that_lost_its_power_says_so_and_others_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    create_library(folder, tapes=2, tape_bytes=16 * MIB, drives=2, generation=9)
    broken = FaultyDrive(VirtualDrive(folder, 0), [PowerCut(block=0, barcode="TP0001L9")])
    tapes = [TapeServer(broken), TapeServer(VirtualDrive(folder, 1))]
    changer = ChangerServer(VirtualChanger(folder), tapes, "LIBRARY1")
    hand, drive = Hand(changer), Hand(tapes[0])
    hand.good(move(0x1000, 0x100))
    assert drive(TUR).sense == "6 2800"
    assert drive.write(b"x").sense == "4 4400"
    assert drive(TUR).sense == "4 4400"
    assert drive("1A 00 3F 00 FF 00").sense == "4 4400"
    assert barcodes(hand) == {0x100: "TP0001L9", 0x1001: "TP0002L9"}
    assert hand(move(0x100, 0x1000)).sense == "4 4400"
    tapes[0].reset()
    assert drive(TUR).sense == "6 2903"
    assert drive(TUR).sense == "4 4400"
    hand.good(move(0x1001, 0x101))
    assert tapes[1].is_threaded()
    changer.close()
    for each in tapes:
        each.close()


# -- ports -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_ports(tmp_path: Path) -> Iterator[Hand]:
    """Three slots, the last one empty, and two ports, of which the first holds a cartridge that came through it."""
    folder = tmp_path / "library"
    create_library(folder, tapes=3, tape_bytes=16 * MIB, drives=1, generation=9)
    take_out(folder, "TP0003L9", tmp_path / "shelf")
    set_ports(folder, 2)
    add_from(folder, tmp_path / "shelf")
    tape = TapeServer(VirtualDrive(folder, 0))
    changer = ChangerServer(VirtualChanger(folder), [tape], "LIBRARY1")
    yield Hand(changer)
    changer.close()
    tape.close()


def test_ports_lie_behind_the_slots(with_ports: Hand) -> None:
    page = with_ports.good("1A 08 1D 00 FF 00")
    assert page == bytes.fromhex("17 00 00 00 1D 12 0001 0001 1000 0003 1003 0002 0100 0001 0000")
    data = status(with_ports, 3)
    assert data[:4] == bytes.fromhex("1003 0002")
    first, second = data[16:68], data[68:120]
    # It can be opened both ways, and what lies there was put in by hand.
    assert (first[:3], first[12:20]) == (bytes.fromhex("1003 3b"), b"TP0003L9")
    assert second[:3] == bytes.fromhex("1004 38")


def test_the_robot_moves_to_ports_and_from_them(with_ports: Hand) -> None:
    with_ports.good(move(0x1003, 0x100))
    with_ports.good(move(0x1001, 0x1004))
    data = status(with_ports, 3)
    # The robot put it there, from slot 1.
    assert data[68:71] == bytes.fromhex("1004 39")
    assert data[77:80] == bytes.fromhex("81 1001")
    assert with_ports(move(0x1000, 0x1004)).sense == "5 3B0D"
    assert with_ports(move(0x1003, 0x1002)).sense == "5 3B0E"
    assert with_ports(move(0x1000, 0x1005)).sense == "5 2101"
    with_ports.good(move(0x100, 0x1003))
    assert status(with_ports, 3)[:4] == bytes.fromhex("1003 0002")


def test_our_changer_sees_them_as_ports(with_ports: Hand) -> None:
    changer = ScsiChanger(with_ports.transport, [])
    kinds = [(each.kind, each.number, each.barcode) for each in changer.inventory()]
    assert kinds[-2:] == [(ElementKind.PORT, 3, "TP0003L9"), (ElementKind.PORT, 4, None)]
    changer.transfer(3, 2)
    assert [each.barcode for each in changer.inventory()][3:] == ["TP0003L9", None, None]
    changer.close()


def test_a_port_that_holds_a_cartridge_stays(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    create_library(folder, tapes=2, tape_bytes=16 * MIB, drives=1, generation=9)
    set_ports(folder, 3)
    VirtualChanger(folder).transfer(0, 4)
    with pytest.raises(ChangerError, match="TP0001L9 lies in a port"):
        set_ports(folder, 1)
    VirtualChanger(folder).transfer(4, 2)
    set_ports(folder, 1)
    kinds = [(each.kind.value, each.barcode) for each in VirtualChanger(folder).inventory()]
    assert kinds == [("drive", None), ("slot", None), ("slot", "TP0002L9"), ("port", "TP0001L9")]
    # A new one never comes between the ports.
    add_blank(folder, tape_bytes=16 * MIB)
    add_blank(folder, tape_bytes=16 * MIB)
    kinds = [(each.kind.value, each.barcode) for each in VirtualChanger(folder).inventory()]
    assert [kind for kind, _ in kinds] == ["drive", "slot", "slot", "slot", "port"]
    assert kinds[-1] == ("port", "TP0001L9")


def test_ports_open_unless_somebody_prevents_it(with_ports: Hand) -> None:
    with_ports.good("1B 00 10 03 00 00")
    with_ports.good("1E 00 00 00 01 00")
    assert with_ports("1B 00 10 03 00 00").sense == "5 5302"
    with_ports.good("1B 00 10 03 01 00")
    with_ports.good("1E 00 00 00 00 00")
    with_ports.good("1B 00 10 03 00 00")
    assert with_ports("1B 00 10 00 00 00").sense == "5 2101"
    with_ports.good("4C 02 40 00 00 00 00 00 00 00")
