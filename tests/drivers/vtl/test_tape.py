"""A tape drive as SCSI sees it: exchanges as the tables of SPC and SSC have them."""

from __future__ import annotations

from pathlib import Path

from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.faults import EarlyEnd, ReadError, Reset, WriteError
from drivers.virtual.library import add_blank, create_library, set_write_protected
from drivers.vtl.tape import TapeServer
from tests.drivers.vtl.bench import MIB, Hand, fill, log, make_tape

TUR = "00 00 00 00 00 00"
REWIND = "01 00 00 00 00 00"
LOAD, UNLOAD = "1B 00 00 00 01 00", "1B 00 00 00 00 00"


# -- SPC ------------------------------------------------------------------------------------------------------------


def test_inquiry_tells_a_tape(hand: Hand) -> None:
    data = hand.good("12 00 00 00 FF 00")
    assert data[:5] == bytes([0x01, 0x80, 0x06, 0x12, len(data) - 5])
    assert data[8:16] == b"TAPEFS  "
    assert data[16:32] == b"VIRTUAL-LTO9    "
    assert hand.good("12 00 00 00 24 00") == data[:36]


def test_vital_product_data(hand: Hand) -> None:
    pages = hand.good("12 01 00 00 FF 00")
    assert pages == bytes([1, 0, 0, 6, 0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2])
    serial = hand.good("12 01 80 00 FF 00")[4:]
    assert serial.endswith(b"-0")
    assert hand.good("12 01 B1 00 FF 00")[4:] == serial
    assert hand.good("12 01 B0 00 FF 00") == bytes([1, 0xB0, 0, 2, 1, 0])
    name = hand.good("12 01 83 00 FF 00")
    assert name[4:6] == bytes([0x02, 0x01])
    assert name[8:].startswith(b"TAPEFS  VIRTUAL-LTO9    " + serial)
    assert hand("12 01 55 00 FF 00").sense == "5 2400"


def test_an_unknown_command_is_refused(hand: Hand) -> None:
    got = hand("FF 00 00 00 00 00")
    assert got.sense == "5 2000"
    assert got.raw[15:18] == bytes([0xC0, 0, 0])


def test_bits_that_mean_nothing_are_refused(hand: Hand) -> None:
    got = hand("00 00 00 40 00 00")
    assert got.sense == "5 2400"
    assert got.raw[15:18] == bytes([0xC0, 0, 3])


def test_each_initiator_hears_of_power_on_once(server: TapeServer) -> None:
    for name in "ab":
        hand = Hand(server, name, greet=False)
        hand.good("12 00 00 00 24 00")
        assert hand(TUR).sense == "6 2900"
        assert hand(TUR).sense == ""


def test_request_sense_takes_the_unit_attention(server: TapeServer) -> None:
    hand = Hand(server, greet=False)
    assert hand.good("03 00 00 00 FF 00")[:13] == bytes([0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29])
    assert hand.good("03 01 00 00 FF 00") == bytes([0x72, 0, 0, 0, 0, 0, 0, 0])
    assert hand(TUR).sense == ""


def test_who_comes_back_hears_that_his_nexus_was_lost(server: TapeServer) -> None:
    Hand(server, "a").transport.close()
    again = Hand(server, "a", greet=False)
    assert again(TUR).sense == "6 2907"
    assert again(TUR).sense == ""


def test_report_luns(hand: Hand) -> None:
    assert hand.good("A0 00 00 00 00 00 00 00 01 00 00 00") == bytes([0, 0, 0, 8]) + bytes(12)


def test_supported_commands_have_timeouts(hand: Hand) -> None:
    data = hand.good("A3 0C 80 00 00 00 00 00 FF FF 00 00")
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert (len(data) - 4) % 20 == 0
    opcodes = {data[at]: int.from_bytes(data[at + 16 : at + 20], "big") for at in range(4, len(data), 20)}
    assert opcodes[0x1B] == 960
    assert {0x00, 0x0A, 0x08, 0x34, 0x92, 0x8C, 0x5E} < set(opcodes)
    one = hand.good("A3 0C 81 08 00 00 00 00 FF FF 00 00")
    assert one[:10] == bytes([0, 0x83, 0, 6, 0x08, 0x03, 0xFF, 0xFF, 0xFF, 0x00])
    assert hand.good("A3 0C 02 34 00 06 00 00 FF FF 00 00")[:6] == bytes([0, 3, 0, 10, 0x34, 0x06])
    assert hand.good("A3 0C 03 F0 00 00 00 00 FF FF 00 00") == bytes([0, 1, 0, 0])


# -- blocks ---------------------------------------------------------------------------------------------------------


def test_variable_blocks_go_out_and_come_back(hand: Hand) -> None:
    fill(hand, b"a" * 1000, b"b" * 70_000, b"", b"c")
    hand.good(REWIND)
    assert hand.read(1000).data == b"a" * 1000
    assert hand.read(70_000).data == b"b" * 70_000
    mark = hand.read(500)
    assert (mark.sense, mark.flags, mark.information, mark.data) == ("0 0001", "F", 500, b"")
    assert hand.read(1).data == b"c"
    end = hand.read(500)
    assert (end.sense, end.flags, end.information) == ("8 0005", "", 500)
    assert hand.where() == (4, 1)


def test_wrong_lengths(hand: Hand) -> None:
    fill(hand, b"a" * 1000, b"b" * 1000, b"c" * 1000)
    hand.good(REWIND)
    short = hand.read(1500)
    assert (short.sense, short.flags, short.information, short.data) == ("0 0000", "I", 500, b"a" * 1000)
    long = hand.read(400)
    assert (long.sense, long.flags, long.information, long.data) == ("0 0000", "I", -600, b"b" * 400)
    assert hand.where() == (2, 0)
    quiet = hand.read(1500, flags=2)
    assert (quiet.sense, quiet.data) == ("", b"c" * 1000)


def set_block(hand: Hand, size: int) -> None:
    hand.good("15 10 00 00 0C 00", bytes([0, 0, 0x10, 8, 0, 0, 0, 0, 0]) + size.to_bytes(3, "big"))


def test_fixed_blocks(hand: Hand) -> None:
    assert hand("08 01 00 00 01 00").sense == "5 2400"
    set_block(hand, 512)
    assert hand.good("1A 00 00 00 FF 00") == bytes([11, 0x98, 0x10, 8, 0x60, 0, 0, 0, 0, 0, 2, 0])
    hand.good("0A 01 00 00 04 00", b"".join(bytes([each]) * 512 for each in range(4)))
    assert hand.marks().sense == ""
    hand.good(REWIND)
    assert hand.good("08 01 00 00 02 00") == b"\0" * 512 + b"\1" * 512
    rest = hand("08 01 00 00 05 00")
    assert (rest.sense, rest.flags, rest.information, len(rest.data)) == ("0 0001", "F", 3, 1024)
    assert hand("08 03 00 00 01 00").sense == "5 2400"
    end = hand("08 01 00 00 05 00")
    assert (end.sense, end.information) == ("8 0005", 5)


def test_a_block_of_another_length_in_fixed_mode(hand: Hand) -> None:
    fill(hand, b"a" * 512, b"b" * 300, b"c" * 512)
    hand.good(REWIND)
    set_block(hand, 512)
    got = hand("08 01 00 00 03 00")
    assert (got.sense, got.flags, got.information) == ("0 0000", "I", 2)
    assert hand.where() == (2, 0)


def test_a_write_that_lacks_data_writes_nothing(hand: Hand) -> None:
    assert hand("0A 00 00 03 E8 00", b"x" * 999).sense == "5 2400"
    assert hand.where() == (0, 0)


def test_transfers_of_nothing_do_nothing(hand: Hand) -> None:
    hand.good("08 00 00 00 00 00", room=0)
    hand.good("0A 00 00 00 00 00", b"")
    assert hand.where() == (0, 0)


def test_early_warning_then_the_end(tmp_path: Path) -> None:
    server = make_tape(tmp_path / "library")
    hand = Hand(server)
    seen = []
    for _ in range(17):
        got = hand.write(bytes(MIB))
        seen.append((got.sense, got.flags, got.information))
    assert seen[:7] == [("", "", None)] * 7
    assert seen[7:16] == [("0 0002", "E", 0)] * 9
    assert seen[16] == ("D 0002", "E", MIB)
    assert hand.where() == (16, 0)
    assert hand.marks().flags == "E"
    assert hand.good("34 00 00 00 00 00 00 00 00 00")[0] == 0x40
    server.close()


def test_spacing_over_blocks(hand: Hand) -> None:
    fill(hand, b"0", b"1", b"2", b"", b"4", b"")
    hand.good(REWIND)
    assert hand.space(0, 2).sense == ""
    got = hand.space(0, 5)
    assert (got.sense, got.flags, got.information) == ("0 0001", "F", 4)
    assert hand.where() == (4, 1)
    got = hand.space(0, -3)
    assert (got.sense, got.flags, got.information) == ("0 0001", "F", 3)
    assert hand.where() == (3, 0)
    assert hand.space(0, -1).sense == ""
    got = hand.space(0, -5)
    assert (got.sense, got.flags, got.information) == ("0 0004", "E", 3)
    assert hand.where() == (0, 0)
    assert hand.space(3, 0).sense == ""
    assert hand.where() == (6, 2)
    got = hand.space(0, 1)
    assert (got.sense, got.information) == ("8 0005", 1)


def test_spacing_over_filemarks(hand: Hand) -> None:
    fill(hand, b"0", b"", b"2", b"", b"", b"5")
    assert hand.space(1, -1).sense == ""
    assert hand.where() == (4, 2)
    assert hand.space(1, -2).sense == ""
    assert hand.where() == (1, 0)
    got = hand.space(1, -2)
    assert (got.sense, got.flags, got.information) == ("0 0004", "E", 2)
    assert hand.where() == (0, 0)
    assert hand.space(1, 3).sense == ""
    assert hand.where() == (5, 3)
    got = hand.space(1, 2)
    assert (got.sense, got.information) == ("8 0005", 2)
    assert hand.where() == (6, 3)
    back = b"\x91\x01\0\0" + (-3).to_bytes(8, "big", signed=True) + bytes(4)
    hand.good(back)
    assert hand.where() == (1, 0)


def test_locate(hand: Hand) -> None:
    fill(hand, b"0", b"", b"2", b"", b"4")
    hand.good("2B 00 00 00 00 00 02 00 00 00")
    assert hand.where() == (2, 1)
    hand.good("92 00 00 00 00 00 00 00 00 00 00 04 00 00 00 00")
    assert hand.where() == (4, 2)
    hand.good("92 08 00 00 00 00 00 00 00 00 00 01 00 00 00 00")
    assert hand.where() == (2, 1)
    hand.good("92 18 00 00 00 00 00 00 00 00 00 00 00 00 00 00")
    assert hand.where() == (5, 2)
    assert hand("92 00 00 00 00 00 00 00 00 00 00 09 00 00 00 00").sense == "8 0005"
    assert hand.where() == (5, 2)
    assert hand("92 02 00 01 00 00 00 00 00 00 00 01 00 00 00 00").sense == "5 2400"


def test_read_position_in_all_forms(hand: Hand) -> None:
    assert hand.good("34 00 00 00 00 00 00 00 00 00")[0] == 0x80
    fill(hand, b"0", b"", b"2")
    assert hand.good("34 00 00 00 00 00 00 00 00 00") == bytes([0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3]) + bytes(8)
    assert hand.good("34 06 00 00 00 00 00 00 00 00") == bytes(15) + b"\3" + bytes(7) + b"\1" + bytes(8)
    extended = hand.good("34 08 00 00 00 00 00 00 20 00")
    assert (extended[3], extended[15], extended[23], len(extended)) == (0x1C, 3, 3, 32)
    # By a number of the drive's own, which is the same: st asks for it.
    assert hand.good("34 01 00 00 00 00 00 00 00 00") == hand.good("34 00 00 00 00 00 00 00 00 00")
    assert hand("34 02 00 00 00 00 00 00 00 00").sense == "5 2400"


def test_erase_makes_the_end_here(hand: Hand) -> None:
    fill(hand, b"0", b"1", b"", b"3")
    hand.good("2B 00 00 00 00 00 01 00 00 00")
    hand.good("19 00 00 00 00 00")
    assert hand.read().sense == "8 0005"
    hand.good(REWIND)
    assert hand.read(1).data == b"0"


def test_erase_16_says_where(hand: Hand) -> None:
    fill(hand, b"0", b"1", b"", b"3")
    hand.good("93 00 00 00 00 00 00 00 00 00 00 02 00 00 00 00")
    assert hand.read().sense == "8 0005"
    hand.good(REWIND)
    assert [hand.read(1).data, hand.read(1).data] == [b"0", b"1"]
    assert hand("93 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00").sense == "5 2400"
    assert hand("93 00 00 00 00 00 00 00 00 00 00 09 00 00 00 00").sense == "8 0005"


# -- loading --------------------------------------------------------------------------------------------------------


def test_unload_and_load(server: TapeServer, hand: Hand) -> None:
    other = Hand(server, "other")
    hand.good("1E 00 00 00 01 00")
    assert other(UNLOAD).sense == "5 5302"
    hand.good("1E 00 00 00 00 00")
    other.good(UNLOAD)
    assert hand(TUR).sense == "2 0402"
    assert hand.read().sense == "2 0402"
    other.good(LOAD)
    assert hand(TUR).sense == "6 2800"
    assert hand(TUR).sense == ""
    assert other(TUR).sense == ""


def test_a_drive_without_a_cartridge(tmp_path: Path) -> None:
    create_library(tmp_path / "library", tapes=1, tape_bytes=MIB, drives=1, generation=8)
    server = TapeServer(VirtualDrive(tmp_path / "library", 0))
    hand = Hand(server)
    for command in (TUR, REWIND, LOAD, "8C 00 00 00 00 00 00 00 00 00 00 00 FF FF 00 00"):
        assert hand(command).sense == "2 3A00"
    assert hand.good("1A 00 3F 00 FF 00")[4] == 0x5E
    assert hand.good("44 00 00 00 00 00 00 FF FF 00")[4] == 0x5C
    server.close()


def test_write_protection(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    create_library(folder, tapes=1, tape_bytes=16 * MIB, drives=1, generation=9)
    set_write_protected(folder, "TP0001L9", True)
    VirtualChanger(folder).load(0, 0)
    server = make_tape(folder)
    hand = Hand(server)
    assert hand.good("1A 00 00 00 FF 00")[2] == 0x90
    for got in (hand.write(b"x"), hand.marks(), hand("19 00 00 00 00 00")):
        assert got.sense == "7 2700"
    assert hand.marks(0).sense == ""
    server.close()


def test_worm_is_written_once(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    create_library(folder, tapes=1, tape_bytes=16 * MIB, drives=1, generation=9)
    assert add_blank(folder, tape_bytes=16 * MIB, worm=True) == "TP0002LZ"
    VirtualChanger(folder).load(1, 0)
    server = make_tape(folder)
    hand = Hand(server)
    assert hand.good("1A 00 00 00 FF 00")[1] == 0x9C
    fill(hand, b"0", b"")
    hand.good(REWIND)
    for got in (hand.write(b"x"), hand.marks(), hand("19 00 00 00 00 00")):
        assert got.sense == "7 300C"
    hand.good("11 03 00 00 00 00")
    fill(hand, b"2")
    server.close()


# -- failures ---------------------------------------------------------------------------------------------------------


def test_faults_have_their_sense(tmp_path: Path) -> None:
    server = make_tape(tmp_path / "library", WriteError(block=1), ReadError(block=0), Reset(block=2))
    hand, other = Hand(server), Hand(server, "other")
    fill(hand, b"0")
    failed = hand.write(b"1")
    assert (failed.sense, failed.information) == ("3 0C00", 1)
    fill(hand, b"1")
    assert hand.write(b"2").sense == "6 2900"
    assert hand.write(b"2").sense == "3 3B00"
    assert hand.good("34 06 00 00 00 00 00 00 00 00")[0] == 0x0C
    assert hand.good("34 00 00 00 00 00 00 00 00 00")[0] == 0x04
    assert other(TUR).sense == "6 2900"
    hand.good(REWIND)
    assert hand.read(1).sense == "8 0005"
    fill(hand, b"0")
    hand.good(REWIND)
    unreadable = hand.read(1)
    assert (unreadable.sense, unreadable.information) == ("3 1100", 1)
    assert hand.where() == (0, 0)
    flags = log(hand, 0x2E)
    assert [number for number, value in flags.items() if value == b"\1"] == [5, 6]
    server.close()


def test_an_early_end_on_request(tmp_path: Path) -> None:
    server = make_tape(tmp_path / "library", EarlyEnd(block=4, warning_blocks=2))
    hand = Hand(server)
    assert [hand.write(b"x").sense for _ in range(5)] == ["", "0 0002", "0 0002", "0 0002", "D 0002"]
    server.close()


def test_a_reset_of_the_unit_loses_the_position(server: TapeServer, hand: Hand) -> None:
    fill(hand, b"0", b"")
    server.reset()
    assert hand(TUR).sense == "6 2903"
    assert hand.write(b"x").sense == "3 3B00"
    hand.good(REWIND)
    assert hand.read(1).data == b"0"
