"""The recommended access order as SCSI sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.virtual.motion import motion_of
from drivers.vtl.tape import TapeServer
from tests.drivers.vtl.bench import Hand, make_tape

LIMITS = "A3 9D 00 00 00 00 00 00 00 FF 00 00"
LIST = "A3 1D 00 00 00 00 00 00 FF FF 00 00"
REWIND, LOAD, UNLOAD = "01 00 00 00 00 00", "1B 00 00 00 01 00", "1B 00 00 00 00 00"
NOTHING = bytes([0, 0, 0, 0, 0, 0, 0, 0])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TapeServer]:
    server = make_tape(tmp_path / "library")
    yield server
    server.close()


@pytest.fixture
def hand(server: TapeServer) -> Hand:
    """Twenty blocks, the head stands before block 10."""
    hand = Hand(server)
    for _ in range(20):
        hand.write(b"x" * 10_000)
    hand.good("2B 00 00 00 00 00 0A 00 00 00")
    return hand


def segment(name: bytes, first: int, last: int) -> bytes:
    return b"\x00\x1e\0\0\0" + name.ljust(10) + b"\0" + first.to_bytes(8, "big") + last.to_bytes(8, "big")


BEGIN, FAR, NEAR = segment(b"begin", 0, 1), segment(b"far", 15, 16), segment(b"near", 11, 11)


def listed(*segments: bytes) -> bytes:
    body = b"".join(segments)
    return bytes(4) + len(body).to_bytes(4, "big") + body


def generate(length: int, process: int = 2) -> bytes:
    return bytes([0xA4, 0x1D, process, 0, 0, 0]) + length.to_bytes(4, "big") + b"\0\0"


SENT = listed(BEGIN, FAR, NEAR)


def test_the_nearest_is_first(hand: Hand) -> None:
    hand.good(generate(len(SENT)), SENT)
    answer = hand.good(LIST)
    assert answer == b"\x02" + listed(NEAR, FAR, BEGIN)[1:]
    assert hand.good("A3 1D 00 00 00 20 00 00 FF FF 00 00")[8:] == FAR + BEGIN
    assert hand.good("A3 1D 00 00 00 00 00 00 00 10 00 00") == answer[:16]
    assert hand.where() == (10, 0)


def test_segments_may_stay_as_they_are(hand: Hand) -> None:
    hand.good(generate(len(SENT), process=1), SENT)
    assert hand.good(LIST) == b"\x01" + SENT[1:]


def test_limits(hand: Hand) -> None:
    assert hand.good(LIMITS) == bytes.fromhex("03 E8 00 20")
    many = listed(*[NEAR] * 1000)
    hand.good(generate(len(many)), many)
    more = listed(*[NEAR] * 1001)
    assert hand(generate(len(more)), more).sense == "5 2600"


def test_the_list_goes_with_its_tape(hand: Hand, server: TapeServer) -> None:
    assert hand.good(LIST) == NOTHING
    hand.good(generate(len(SENT)), SENT)
    hand.good(REWIND)
    assert len(hand.good(LIST)) == len(SENT)
    hand.good(UNLOAD)
    assert hand.good(LIST) == NOTHING
    assert hand(generate(len(SENT)), SENT).sense == "2 0402"
    hand.good(LOAD)
    hand.good(generate(len(SENT)), SENT)
    server.reset()
    assert hand(LIST).sense == "6 2903"
    assert hand.good(LIST) == NOTHING
    assert hand(generate(len(SENT)), SENT).sense[:4] == "3 3B"


@pytest.mark.parametrize(
    ("parameters", "sense"),
    [
        (SENT[:7], "5 1A00"),
        (SENT[:-1], "5 2600"),
        (listed(BEGIN, b"\0\x1d" + FAR[2:]), "5 2600"),
        (listed(segment(b"other way", 3, 2)), "5 2600"),
        (listed(segment(b"behind the end", 19, 20)[:32]), "5 2600"),
        (listed(FAR[:15] + b"\1" + FAR[16:]), "5 2600"),
    ],
)
def test_what_makes_no_sense_is_refused(hand: Hand, parameters: bytes, sense: str) -> None:
    assert hand(generate(len(parameters)), parameters).sense == sense
    assert hand.good(LIST) == NOTHING


def test_fields_are_checked(hand: Hand) -> None:
    assert hand(generate(len(SENT) + 1), SENT).sense == "5 1A00"
    assert hand(generate(len(SENT), process=3), SENT).sense == "5 2400"
    assert hand("A4 1D 02 01 00 00 00 00 00 68 00 00", SENT).sense == "5 2400"
    assert hand("A3 1D 00 00 00 10 00 00 FF FF 00 00").sense == "5 2400"
    assert hand("A3 1D 00 00 00 00 00 00 FF FF 01 00").sense == "5 2400"
    assert hand(generate(0), b"").sense == ""


def test_only_lto_9_knows_it(tmp_path: Path, hand: Hand) -> None:
    assert hand.good("A3 0C 03 A4 00 1D 00 00 FF FF 00 00")[4:] == bytes.fromhex("A4 1D 07 07 00 00 FF FF FF FF 00 00")
    older = make_tape(tmp_path / "older", generation=8)
    asked = Hand(older)
    assert asked("A3 9D 00 00 00 00 00 00 00 04 00 00").sense == "5 2400"
    assert asked(generate(len(SENT)), SENT).sense == "5 2000"
    older.close()


def test_the_model_knows_wraps() -> None:
    """What lies a wrap further at the same place is nearer than what is far on the same wrap."""
    motion = motion_of(9)
    wrap = motion.generation.wrap_bytes
    far, beside = (wrap - 1000, wrap - 900), (2 * wrap - 2000, 2 * wrap - 1900)
    head = 1000
    spans = [far, beside, (head + 10, head + 20)]
    order = motion.nearest_first(head, spans)
    assert order[0] == 2
    assert motion.locate_s(head + 20, spans[order[1]][0]) <= motion.locate_s(head + 20, spans[order[2]][0])
    assert order[1] == 1
