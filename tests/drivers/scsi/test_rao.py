"""The recommended access order: bytes as references lay them out, and what a drive makes of it."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import BadAnswer, DeviceFailed, NotReady
from drivers.scsi.rao import (
    Limits,
    Segment,
    generate_rao,
    parse_rao_limits,
    parse_rao_list,
    rao_parameters,
    receive_rao,
)
from tests.drivers.scsi.test_drive import UNKNOWN, Exchange, Talk, at

ASK_LIMITS = "a3 9d 00 00 00 00 00 00 00 04 00 00"
#: Two segments: block 5 to 9, and block 7 alone, which goes with the block before it.
SENT = (
    "00 00 00 00 00 00 00 40"
    " 00 1e 00 00 00 30 30 30 30 30 30 30 30 30 30 00 00 00 00 00 00 00 00 05 00 00 00 00 00 00 00 09"
    " 00 1e 00 00 00 30 30 30 30 30 30 30 30 30 31 00 00 00 00 00 00 00 00 06 00 00 00 00 00 00 00 07"
)
GENERATE = "a4 1d 02 00 00 00 00 00 00 48 00 00"
RECEIVE = "a3 1d 00 00 00 00 00 00 00 48 00 00"
LIMITS: Exchange = (ASK_LIMITS, "0a aa 00 20")
EXTENTS = [(5, 9), (7, 7)]
FIRST, SECOND = Segment(b"0000000000", 5, 9), Segment(b"0000000001", 6, 7)


def answer(*segments: Segment) -> str:
    """Return the sorted list: its header tells the process and a state, too."""
    return (b"\x02\x01\0\0" + rao_parameters(segments)[4:]).hex()


# -- bytes -----------------------------------------------------------------------------------------------------------


def test_commands() -> None:
    assert generate_rao(0x48).hex(" ") == GENERATE
    assert receive_rao(0x48).hex(" ") == RECEIVE
    assert receive_rao(0x01020304, offset_bytes=0x05060708).hex(" ") == "a3 1d 05 06 07 08 01 02 03 04 00 00"
    assert receive_rao(4, limits=True).hex(" ") == ASK_LIMITS


def test_parameters() -> None:
    assert rao_parameters([FIRST, SECOND]).hex(" ") == SENT
    with pytest.raises(ValueError, match="10 bytes"):
        rao_parameters([Segment(b"short", 0, 1)])
    with pytest.raises(ValueError, match="does not fit"):
        rao_parameters([Segment(bytes(10), 0, 2**64)])


def test_answers() -> None:
    assert parse_rao_limits(bytes.fromhex("0a aa 00 20")) == Limits(2730, 32)
    assert parse_rao_list(bytes.fromhex(answer(SECOND, FIRST))) == [SECOND, FIRST]
    longer = bytes.fromhex("02 00 00 00 00 00 00 24 00 22" + SENT[8 * 3 + 5 : 40 * 3 - 1]) + b"\xff" * 4
    assert parse_rao_list(longer) == [FIRST]


def test_answers_that_were_cut() -> None:
    whole = bytes.fromhex(answer(FIRST, SECOND))
    for length in range(len(whole)):
        with pytest.raises(BadAnswer):
            parse_rao_list(whole[:length])
    with pytest.raises(BadAnswer):
        parse_rao_limits(b"\0\0\0")
    with pytest.raises(BadAnswer):
        parse_rao_list(bytes.fromhex("02 00 00 00 00 00 00 02 00 00"))


@given(st.binary(max_size=120), st.lists(st.tuples(st.integers(0, 71), st.integers(0, 255)), max_size=6))
def test_no_bytes_raise_anything_else(rubbish: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(bytes.fromhex(answer(FIRST, SECOND)))
    for place, value in changes:
        changed[place] = value
    for data in (rubbish, bytes(changed)):
        for parse in (parse_rao_list, parse_rao_limits):
            with contextlib.suppress(BadAnswer):
                parse(data)


# -- a drive ---------------------------------------------------------------------------------------------------------


def test_a_drive_is_asked(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, LIMITS, (GENERATE, ""), (RECEIVE, answer(SECOND, FIRST)))
    assert talk.drive.recommended_order(EXTENTS) == [1, 0]
    assert talk.script.sent[-1].hex(" ") == SENT
    talk.script.is_over()


def test_nothing_has_an_order_and_what_is_no_extent_has_none(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path)
    assert talk.drive.recommended_order([]) == []
    for extent in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="no blocks"):
            talk.drive.recommended_order([extent])


def test_a_drive_without_it_has_none(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (ASK_LIMITS, UNKNOWN))
    assert talk.drive.recommended_order(EXTENTS) is None
    talk.script.is_over()


def test_more_than_it_takes(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (ASK_LIMITS, "00 01 00 20"))
    assert talk.drive.recommended_order(EXTENTS) is None
    talk.script.is_over()


RUBBISH: list[list[Exchange]] = [
    [(ASK_LIMITS, "00")],
    [LIMITS, (GENERATE, "check 05 26 00")],
    [LIMITS, (GENERATE, ""), (RECEIVE, "")],
    [LIMITS, (GENERATE, ""), (RECEIVE, answer(FIRST))],
    [LIMITS, (GENERATE, ""), (RECEIVE, answer(FIRST, FIRST))],
    [LIMITS, (GENERATE, ""), (RECEIVE, answer(FIRST, Segment(b"0000000002", 6, 7)))],
    [LIMITS, (GENERATE, ""), (RECEIVE, "ff" * 72)],
]


@pytest.mark.log_warnings
@pytest.mark.parametrize("said", RUBBISH)
def test_an_order_that_cannot_be_used_is_told_once(
    tmp_path: Path, said: list[Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    talk = Talk.loaded(tmp_path, *said, *said)
    for _ in range(2):
        assert talk.drive.recommended_order(EXTENTS) is None
    talk.script.is_over()
    assert [each.levelno for each in caplog.records if "access order" in each.message] == [logging.WARNING]


def test_errors_of_the_drive_are_raised(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (ASK_LIMITS, "check 04 44 00"), (ASK_LIMITS, "check 02 3a 00"))
    with pytest.raises(DeviceFailed):
        talk.drive.recommended_order(EXTENTS)
    with pytest.raises(NotReady):
        talk.drive.recommended_order(EXTENTS)


def test_it_is_asked_again_when_the_way_breaks(tmp_path: Path) -> None:
    settled: list[Exchange] = [
        at(0),
        ("5a 00 0f 00 00 00 00 02 00 00", "00 1e 00 10 00 00 00 08 60" + " 00" * 7 + "8f 0e c0 80" + " 00" * 12),
        ("1e 00 00 00 01 00", ""),
    ]
    whole = [LIMITS, (GENERATE, ""), (RECEIVE, answer(SECOND, FIRST))]
    talk = Talk.loaded(tmp_path, LIMITS, (GENERATE, "broken"), *settled, *whole)
    assert talk.drive.recommended_order(EXTENTS) == [1, 0]
    talk.script.is_over()
