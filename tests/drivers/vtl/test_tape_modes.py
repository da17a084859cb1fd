"""The tape's device server: modes, logs, the cartridge's memory, reservations, and what else other software sends."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.scsi.transport import Status
from drivers.virtual.faults import WriteError
from drivers.vtl.tape import TapeServer
from tests.drivers.vtl.bench import MIB, Hand, fill, log, make_tape

TUR = "00 00 00 00 00 00"
REWIND = "01 00 00 00 00 00"
LOAD, UNLOAD = "1B 00 00 00 01 00", "1B 00 00 00 00 00"


# -- modes, logs, memory ----------------------------------------------------------------------------------------------


def test_compression_is_a_mode(server: TapeServer, hand: Hand) -> None:
    other = Hand(server, "other")
    page = hand.good("1A 08 0F 00 FF 00")
    assert page[4:7] == bytes([0x0F, 14, 0xC0])
    fill(hand, b"0")
    hand.good("15 10 00 00 14 00", bytes([0, 0, 0x10, 0]) + page[4:6] + b"\x40" + page[7:])
    assert hand.good("1A 08 0F 00 FF 00")[6] == 0x40
    assert hand.good("1A 08 10 00 FF 00")[18] == 0
    assert hand.where() == (1, 0)
    assert other(TUR).sense == "6 2A01"
    long = hand.good("5A 08 0F 00 00 00 00 00 FF 00")
    assert long[:10] == bytes([0, 22, 0x98, 0x10, 0, 0, 0, 0, 0x0F, 14])
    hand.good("55 10 00 00 00 00 00 00 18 00", bytes([0, 0, 0, 0x10, 0, 0, 0, 0]) + page[4:])
    assert hand.good("1A 08 0F 00 FF 00")[6] == 0xC0


@pytest.mark.parametrize(
    ("command", "out", "sense"),
    [
        ("15 10 00 00 04 00", bytes([0, 0, 0x70, 0]), "5 2600"),
        ("15 10 00 00 0C 00", bytes([0, 0, 0x10, 8, 0x11, 0, 0, 0, 0, 0, 0, 0]), "5 2600"),
        ("15 10 00 00 0C 00", bytes([0, 0, 0x10, 8]), "5 1A00"),
        ("15 10 00 00 06 00", bytes([0, 0, 0x10, 0, 0x33, 0]), "5 2600"),
        ("15 10 00 00 08 00", bytes([0, 0, 0x10, 0, 0x11, 2, 0, 0]), "5 2600"),
        ("15 10 00 00 0C 00", bytes([0, 0, 0x10, 0, 0x11, 6, 9, 9, 9, 9, 9, 9]), "5 2600"),
        ("15 11 00 00 04 00", bytes([0, 0, 0x10, 0]), "5 2400"),
        ("1A 00 C0 00 FF 00", None, "5 3900"),
        ("1A 00 33 00 FF 00", None, "5 2400"),
    ],
)
def test_modes_that_cannot_be(hand: Hand, command: str, out: bytes | None, sense: str) -> None:
    before = hand.good("1A 00 3F 00 FF 00")
    assert hand(command, out).sense == sense
    assert hand.good("1A 00 3F 00 FF 00") == before


def test_sense_in_descriptors(hand: Hand) -> None:
    page = hand.good("1A 08 0A 00 FF 00")[4:]
    hand.good("15 10 00 00 10 00", bytes([0, 0, 0x10, 0]) + page[:2] + b"\4" + page[3:])
    fill(hand, b"")
    hand.good(REWIND)
    buffer = memoryview(bytearray(10))
    reply = hand.transport.execute(bytes.fromhex("08 00 00 00 0A 00"), data_in=buffer, timeout_s=1)
    assert reply.sense == bytes.fromhex("72 00 00 01 00 00 00 10 00 0A 80 00 00 00 00 00 00 00 00 0A 04 02 00 80")


def test_log_pages(hand: Hand) -> None:
    fill(hand, bytes(3 * MIB))
    listed = hand.good("4D 00 40 00 00 00 00 FF FF 00")
    assert listed[4:] == bytes([0, 0x02, 0x03, 0x0C, 0x11, 0x12, 0x14, 0x17, 0x2E, 0x31])
    for number in listed[5:]:
        assert log(hand, number)
    assert int.from_bytes(log(hand, 0x0C)[0], "big") == 3 * MIB
    assert log(hand, 0x31)[1] == (5).to_bytes(4, "big")
    assert log(hand, 0x31)[3] == (16).to_bytes(4, "big")
    assert log(hand, 0x17)[0x42].rstrip() == b"TP0001L9"
    assert log(hand, 0x11)[0][:2] == bytes([0x31, 0x17])
    assert hand("4D 00 7E 00 00 00 00 FF FF 00").sense == "5 2400"
    assert hand.good("4D 00 71 00 00 00 01 FF FF 00") == bytes([0x31, 0, 0, 32]) + b"".join(
        bytes([0, code, 3, 4]) + value for code, value in sorted(log(hand, 0x31).items())
    )


def test_tape_alert_is_polled_by_one_page_and_cleared_by_the_other(hand: Hand) -> None:
    exceptions = hand.good("1A 08 1C 00 FF 00")[4:]
    wanted = exceptions[:2] + bytes([exceptions[2] | 4]) + exceptions[3:8] + (20).to_bytes(4, "big")
    hand.good("15 10 00 00 10 00", bytes([0, 0, 0x10, 0]) + wanted)
    for _ in range(2):
        assert log(hand, 0x12)[0] == (1 << 44).to_bytes(8, "big")
    flags = log(hand, 0x2E)
    assert len(flags) == 64
    assert [number for number, value in flags.items() if value == b"\1"] == [20]
    assert log(hand, 0x12)[0] == bytes(8)


def attributes(data: bytes) -> dict[int, tuple[int, bytes]]:
    found, at = {}, 4
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    while at < len(data):
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        found[int.from_bytes(data[at : at + 2], "big")] = (data[at + 2], data[at + 5 : at + 5 + length])
        at += 5 + length
    return found


READ_ATTRIBUTES = "8C 00 00 00 00 00 00 00 00 00 00 00 FF FF 00 00"


def test_the_cartridges_memory(hand: Hand) -> None:
    found = attributes(hand.good(READ_ATTRIBUTES))
    assert found[0x0001] == (0x80, (16).to_bytes(8, "big"))
    assert found[0x0003] == (0x80, (1).to_bytes(8, "big"))
    assert found[0x0401][1].rstrip() == b"TP0001L9"
    assert found[0x0806] == (0x01, b"TP0001L9".ljust(32))
    label = "Förderband".encode()
    one = bytes([0x08, 0x03, 2]) + len(label).to_bytes(2, "big") + label
    out = len(one).to_bytes(4, "big") + one
    hand.good("8D 01 00 00 00 00 00 00 00 00" + len(out).to_bytes(4, "big").hex() + "00 00", out)
    hand.good(UNLOAD)
    again = hand.good("8C 00 00 00 00 00 00 00 08 03 00 00 FF FF 00 00")
    assert attributes(again)[0x0803] == (2, label)
    hand.good(LOAD)
    gone = bytes([0, 0, 0, 5, 0x08, 0x03, 2, 0, 0])
    hand.good("8D 01 00 00 00 00 00 00 00 00 00 00 00 09 00 00", gone)
    assert 0x0803 not in attributes(hand.good(READ_ATTRIBUTES))
    assert 0x0803.to_bytes(2, "big") in hand.good("8C 05 00 00 00 00 00 00 00 00 00 00 FF FF 00 00")


@pytest.mark.parametrize(
    ("attribute", "sense"),
    [
        ("0001 00 0008 0000000000000000", "5 2600"),
        ("0804 01 0003 414141", "5 2600"),
        ("0803 00 0003 414141", "5 2600"),
        ("0803 02 0009 414141", "5 1A00"),
    ],
)
def test_memory_that_is_not_the_hosts(hand: Hand, attribute: str, sense: str) -> None:
    good = bytes.fromhex("0807 02 0001 41")
    one = good + bytes.fromhex(attribute)
    out = len(one).to_bytes(4, "big") + one
    got = hand("8D 01 00 00 00 00 00 00 00 00" + len(out).to_bytes(4, "big").hex() + "00 00", out)
    assert got.sense == sense
    assert 0x0807 not in attributes(hand.good(READ_ATTRIBUTES))


# -- reservations -----------------------------------------------------------------------------------------------------


def key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def persistent(hand: Hand, action: int, old: int, new: int = 0, kind: int = 0) -> str:
    cdb = bytes([0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0])
    got = hand(cdb, key(old) + key(new) + bytes(8))
    return got.sense or got.status.name


def test_reserve_and_release(server: TapeServer, hand: Hand) -> None:
    other = Hand(server, "other")
    hand.good("16 00 00 00 00 00")
    assert other(TUR).status.name == "RESERVATION_CONFLICT"
    other.good("12 00 00 00 24 00")
    other.good("17 00 00 00 00 00")
    assert other(TUR).status.name == "RESERVATION_CONFLICT"
    hand.transport.close()
    other.good(TUR)


def test_persistent_reservation_excludes_others(server: TapeServer, hand: Hand) -> None:
    other = Hand(server, "other")
    assert persistent(hand, 0, 0, 11) == "GOOD"
    assert persistent(hand, 1, 11, kind=3) == "GOOD"
    assert other.write(b"x").status.name == "RESERVATION_CONFLICT"
    other.good(TUR)
    assert persistent(other, 1, 22, kind=3) == "RESERVATION_CONFLICT"
    assert persistent(other, 6, 0, 22) == "GOOD"
    assert hand.good("5E 00 00 00 00 00 00 FF FF 00") == bytes([0, 0, 0, 2, 0, 0, 0, 16]) + key(11) + key(22)
    held = hand.good("5E 01 00 00 00 00 00 FF FF 00")
    assert held == bytes([0, 0, 0, 2, 0, 0, 0, 16]) + key(11) + bytes([0, 0, 0, 0, 0, 3, 0, 0])
    assert persistent(other, 4, 22, 11, kind=3) == "GOOD"
    assert hand(TUR).sense == "6 2A05"
    assert hand.write(b"x").status.name == "RESERVATION_CONFLICT"
    assert persistent(other, 2, 22, kind=3) == "GOOD"
    assert hand.write(b"x").sense == ""
    assert hand.good("5E 02 00 00 00 00 00 FF FF 00") == bytes([0, 8, 0, 0x80, 0xEA, 1, 0, 0])


def test_a_persistent_reservation_outlives_its_initiator(server: TapeServer, hand: Hand) -> None:
    other = Hand(server, "other")
    persistent(hand, 0, 0, 11)
    persistent(hand, 1, 11, kind=3)
    hand.transport.close()
    assert other.read().status.name == "RESERVATION_CONFLICT"
    again = Hand(server, "test")
    assert again.write(b"x").sense == ""


# -- what other software sends besides ------------------------------------------------------------------------------


def test_log_select_has_counters_begin_anew(server: TapeServer, hand: Hand) -> None:
    other = Hand(server, "other")
    fill(hand, b"x" * 1000, b"")
    written = "4D 00 42 00 00 00 05 FF FF 00"
    assert int.from_bytes(hand.good(written)[8:16], "big") == 1000
    hand.good("4C 02 43 00 00 00 00 00 00 00")
    assert int.from_bytes(hand.good(written)[8:16], "big") == 1000
    hand.good("4C 02 40 00 00 00 00 00 00 00")
    assert int.from_bytes(hand.good(written)[8:16], "big") == 0
    assert [other(TUR).sense, other(TUR).sense] == ["6 2A02", ""]
    fill(hand, b"y" * 300)
    assert int.from_bytes(hand.good(written)[8:16], "big") == 300
    hand.good("4C 00 C2 00 00 00 00 00 00 00")
    assert int.from_bytes(hand.good(written)[8:16], "big") == 0
    # The life of drive and cartridge goes on counting.
    assert hand.good("4D 00 54 00 00 00 00 FF FF 00")[4:12] == bytes([0, 0, 3, 4, 0, 0, 0, 1])


def test_log_select_clears_tape_alert(tmp_path: Path) -> None:
    server = make_tape(tmp_path / "library", WriteError(block=0))
    hand = Hand(server)
    assert hand.write(b"x").sense == "3 0C00"
    alerts = "4D 00 52 00 00 00 00 00 40 00"
    assert hand.good(alerts)[8:] != bytes(8)
    hand.good("4C 02 6E 00 00 00 00 00 00 00")
    assert hand.good(alerts)[8:] == bytes(8)
    server.close()


@pytest.mark.parametrize(
    ("cdb", "data", "sense"),
    [
        ("4C 03 00 00 00 00 00 00 00 00", b"", "5 2400"),
        ("4C 02 3E 00 00 00 00 00 00 00", b"", "5 2400"),
        ("4C 02 42 01 00 00 00 00 00 00", b"", "5 2400"),
        ("4C 02 42 00 00 00 00 00 08 00", bytes(8), "5 2400"),
        ("4C 00 42 00 00 00 00 00 08 00", bytes(8), "5 2600"),
        ("4C 00 42 00 00 00 00 00 08 00", bytes(4), "5 1A00"),
    ],
)
def test_what_log_select_does_not_take(hand: Hand, cdb: str, data: bytes, sense: str) -> None:
    assert hand(cdb, data).sense == sense


def test_verify_reads_without_sending(hand: Hand) -> None:
    fill(hand, b"x" * 500, b"y" * 500, b"")
    hand.good(REWIND)
    assert hand("13 00 00 01 F4 00").sense == ""
    assert hand.where() == (1, 0)
    got = hand("13 00 00 01 F3 00")
    assert (got.flags, got.information) == ("I", -1)
    assert hand("13 00 00 01 F4 00").flags == "F"
    assert hand("13 00 00 01 F4 00").sense == "8 0005"
    assert hand("13 02 00 01 F4 00").sense == "5 2400"
    hand.good("15 10 00 00 0C 00", bytes.fromhex("00000008 00000000 000001F4"))
    hand.good(REWIND)
    assert hand("13 01 00 00 02 00").sense == ""
    assert hand.where() == (2, 0)


def test_format_makes_a_blank_tape(hand: Hand) -> None:
    fill(hand, b"x", b"")
    assert hand("04 00 00 00 00 00").sense == "5 3B0C"
    hand.good(REWIND)
    assert hand("04 00 01 00 00 00").sense == "5 2400"
    hand.good("04 00 00 00 00 00")
    assert hand.read().sense == "8 0005"


def test_reservations_by_the_longer_commands(server: TapeServer, hand: Hand) -> None:
    other = Hand(server, "other")
    hand.good("56 00 00 00 00 00 00 00 00 00")
    assert other(REWIND).status is Status.RESERVATION_CONFLICT
    hand.good("57 00 00 00 00 00 00 00 00 00")
    other.good(REWIND)


def test_the_self_test_is_passed(hand: Hand) -> None:
    hand.good("1D 04 00 00 00 00")
    assert hand("1D 04 00 00 08 00").sense == "5 2400"
