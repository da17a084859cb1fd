"""Checksums of frames, and the checks over a whole table of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapefs.errors import BadStructure
from tapefs.format.frames import (
    check_frame,
    check_frames,
    frame_checksum,
    read_seek_table,
    seek_table,
    seek_table_bytes,
)
from tapefs.format.records import End, FrameLine
from tests.format.examples import SEGMENT

lengths = st.tuples(st.integers(1, 2**32 - 1), st.integers(0, 2**32 - 1))


def test_the_checksum_is_that_of_xxh128sum() -> None:
    assert frame_checksum(b"tape\n").hex() == "abc5299be6307313f96e031b5486126e"
    with pytest.raises(BadStructure):
        check_frame(b"tape", frame_checksum(b"tapf"))
    check_frame(b"tape", frame_checksum(b"tape"))


@given(st.lists(lengths, max_size=50), st.binary(max_size=50))
def test_seek_tables_come_back_from_behind_anything(frames: list[tuple[int, int]], before: bytes) -> None:
    table = seek_table(frames)
    assert len(table) == seek_table_bytes(len(frames))
    assert read_seek_table(before + table) == frames


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda b: b + b"\xb1\xea\x92\x8f"))
def test_what_is_no_seek_table_is_refused(end: bytes) -> None:
    with pytest.raises(BadStructure):
        read_seek_table(end)


def test_cut_seek_tables_are_refused() -> None:
    table = seek_table([(1, 2), (3, 4)])
    for length in range(len(table)):
        with pytest.raises(BadStructure):
            read_seek_table(table[length + 1 :])
        with pytest.raises(BadStructure):
            read_seek_table(table[:length])


def _end(frames: int, plain: int, payload: int) -> End:
    return End(
        segment=SEGMENT,
        number=0,
        payload_sha256=bytes(32),
        payload_bytes=payload,
        payload_blocks=1,
        plain_bytes=plain,
        members=1,
        frames=frames,
    )


def _frame(at: int, stored: int, plain: int) -> FrameLine:
    return FrameLine(at=at, stored=stored, plain=plain, sum=bytes(16))


def test_frames_must_lie_end_to_end_and_add_up() -> None:
    good = [_frame(0, 10, 100), _frame(10, 20, 200)]
    check_frames(good, _end(2, 300, 30))
    check_frames(good, _end(2, 300, 63))
    check_frames([], _end(0, 0, 0))
    for frames, end in (
        (good, _end(3, 300, 30)),
        (good, _end(2, 301, 30)),
        (good, _end(2, 300, 29)),
        ([_frame(0, 10, 100), _frame(11, 20, 200)], _end(2, 300, 31)),
        ([_frame(0, 10, 100), _frame(0, 20, 200)], _end(2, 300, 30)),
        ([_frame(0, 0, 100), _frame(0, 20, 200)], _end(2, 300, 30)),
        (good[1:], _end(1, 200, 30)),
    ):
        with pytest.raises(BadStructure):
            check_frames(frames, end)
