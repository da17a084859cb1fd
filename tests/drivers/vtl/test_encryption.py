"""Tape data encryption as initiators see it."""

from __future__ import annotations

import pytest

from drivers.vtl.tape import TapeServer
from tests.drivers.vtl.bench import Hand

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
REWIND, LOAD, UNLOAD = "01 00 00 00 00 00", "1B 00 00 00 01 00", "1B 00 00 00 00 00"
BLOCK = b"not for everybody " * 100


def page(
    key: bytes = KEY, *, scope: int = 2, flags: int = 0x44, encrypts: int = 2, decrypts: int = 3, kad: bytes = b""
) -> bytes:
    is_on = encrypts or decrypts
    body = bytes([scope << 5, flags, encrypts, decrypts, 1 if is_on else 0, 0, 0]) + bytes(7)
    body += (len(key) if is_on else 0).to_bytes(2, "big") + (key if is_on else b"") + kad
    return b"\0\x10" + len(body).to_bytes(2, "big") + body


OFF = page(encrypts=0, decrypts=0, flags=0x40)


def send(data: bytes) -> bytes:
    return bytes.fromhex("B5 20 00 10 00 00") + len(data).to_bytes(4, "big") + b"\0\0"


def ask(number: int, room: int = 8192) -> bytes:
    return bytes([0xA2, 0x20]) + number.to_bytes(2, "big") + bytes(2) + room.to_bytes(4, "big") + b"\0\0"


def put(hand: Hand, data: bytes) -> None:
    hand.good(send(data), data)


def status(hand: Hand) -> str:
    """Scopes and modes."""
    return hand.good(ask(0x20))[4:7].hex(" ")


def test_what_it_can(hand: Hand) -> None:
    assert hand.good("A2 00 00 00 00 00 00 00 02 00 00 00") == bytes.fromhex("000000000000 0002 00 20")
    assert hand.good(ask(0x00)) == bytes.fromhex("0000 000c 0000 0001 0010 0011 0020 0021")
    assert hand.good(ask(0x01)) == bytes.fromhex("0001 0002 0010")
    told = hand.good(ask(0x10))
    assert told == bytes.fromhex("0010 0028 01" + "00" * 15 + "01 00 0014 9a 00 0020 0000 0020" + "00" * 8 + "00010014")
    assert hand.good(ask(0x10, room=8)) == told[:8]
    assert hand(ask(0x33)).sense == "5 2400"
    assert hand(bytes([0xA2, 0x41]) + ask(0)[2:]).sense == "5 2400"


def test_reading_needs_the_key(hand: Hand) -> None:
    put(hand, page(kad=b"\0\0\0\4main"))
    assert hand.good(ask(0x20))[24:] == b"\0\1\0\4main"
    hand.write(BLOCK)
    hand.marks()
    put(hand, OFF)
    assert status(hand) == "00 00 00"
    hand.good(REWIND)
    got = hand.read()
    assert (got.sense, got.data) == ("7 7401", b"")
    assert hand.where() == (0, 0)
    put(hand, page(OTHER))
    assert hand.read().sense == "7 7403"
    assert hand("13 00 00 10 00 00").sense == "7 7403"
    put(hand, page(encrypts=0))
    assert hand.read(size=len(BLOCK)).data == BLOCK


def test_a_key_is_taken_away_with_a_key_of_zeros(hand: Hand) -> None:
    put(hand, page())
    put(hand, b"\0\x10\0\x30\x40\x40" + bytes(12) + b"\0\x20" + bytes(32))
    assert status(hand) == "00 00 00"


def test_a_drive_that_only_decrypts_reads_nothing_plain(hand: Hand) -> None:
    hand.write(BLOCK)
    hand.marks()
    hand.good(REWIND)
    put(hand, page(encrypts=0, decrypts=2))
    assert hand.read().sense == "7 7402"
    put(hand, page(encrypts=0, decrypts=3))
    assert hand.read(size=len(BLOCK)).data == BLOCK


def test_the_next_block(hand: Hand) -> None:
    hand.write(BLOCK)
    put(hand, page())
    hand.write(BLOCK)
    hand.good(REWIND)
    assert hand.good(ask(0x21)) == bytes.fromhex("0021 000c 0000000000000000 03 00 00 00")
    hand.read(size=len(BLOCK))
    assert hand.good(ask(0x21)) == bytes.fromhex("0021 000c 0000000000000001 05 01 00 00")
    put(hand, OFF)
    assert hand.good(ask(0x21))[12] == 6
    hand.good("11 03 00 00 00 00")
    assert hand.good(ask(0x21))[12] == 2
    assert hand.where() == (2, 0)


def test_a_key_for_all_and_one_of_ones_own(server: TapeServer, hand: Hand) -> None:
    other = Hand(server, "other")
    other.good(ask(0x20))
    put(hand, page())
    assert status(hand) == "42 02 03"
    assert other(ask(0x20)).sense == "6 2A11"
    assert status(other) == "02 02 03"
    put(other, page(OTHER, scope=1))
    assert status(other) == "21 02 03"
    assert status(hand) == "42 02 03"
    hand.write(BLOCK)
    other.write(BLOCK)
    hand.good(REWIND)
    hand.read(size=len(BLOCK))
    assert hand.read().sense == "7 7403"
    assert other.read(size=len(BLOCK)).data == BLOCK
    put(other, page(scope=0, encrypts=0, decrypts=0, flags=0x40))
    assert status(other) == "02 02 03"


def test_who_goes_takes_its_own_key_along(server: TapeServer, hand: Hand) -> None:
    other = Hand(server, "other")
    put(other, page(scope=1))
    other.transport.close()
    assert status(Hand(server, "other")) == "00 00 00"
    assert status(hand) == "00 00 00"


@pytest.mark.parametrize(("flags", "after"), [(0x44, "00 00 00"), (0x40, "42 02 03")])
def test_the_key_goes_with_the_tape_if_asked_to(hand: Hand, flags: int, after: str) -> None:
    put(hand, page(flags=flags))
    hand.good(UNLOAD)
    assert status(hand) == after
    assert hand(send(page()), page()).sense == "5 2600"
    put(hand, page(flags=0x40))


def test_a_reset_takes_all_keys(server: TapeServer, hand: Hand) -> None:
    put(hand, page(flags=0x40))
    server.reset()
    assert hand("00 00 00 00 00 00").sense == "6 2903"
    assert status(hand) == "00 00 00"


def changed(at: int, value: int, *, of: bytes | None = None) -> bytes:
    data = bytearray(of or page())
    data[at] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (changed(1, 0x11), 0),
        (changed(4, 0x41), 4),
        (changed(4, 0x60), 4),
        (changed(5, 0x4C), 5),
        (changed(5, 0x46), 5),
        (changed(5, 0x45), 5),
        (changed(5, 0x84), 5),
        (changed(5, 0x54), 5),
        (changed(6, 1), 6),
        (changed(7, 1), 7),
        (changed(8, 2), 8),
        (changed(9, 1), 9),
        (changed(10, 3), 10),
        (changed(19, 16), 18),
        (page(kad=b"\1\0\0\4main"), 52),
        (page(kad=b"\0\0\0\5main"), 54),
        (page(kad=b"\0\0\0\x21" + b"x" * 33), 54),
        (page(kad=b"\0\0"), 52),
    ],
)
def test_what_is_refused(hand: Hand, data: bytes, field: int) -> None:
    got = hand(send(data), data)
    assert got.sense == "5 2600"
    assert got.raw[15:18] == bytes([0x80, 0, field])
    assert status(hand) == "00 00 00"


def test_what_is_cut(hand: Hand) -> None:
    for data in (page()[:-1], page() + b"\0", page()[:10]):
        assert hand(send(data), data).sense == "5 1A00"
    assert hand(send(page()), page()[:20]).sense == "5 1A00"
    assert hand("B5 20 00 11 00 00 00 00 00 00 00 00", b"").sense == "5 2400"
    hand.good("B5 20 00 10 00 00 00 00 00 00 00 00", b"")
