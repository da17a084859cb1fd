"""Checksums of frames, and the seek table behind the last one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapefs.errors import BadStructure
from tapefs.format.frames import (
    frame_checksum,
    read_seek_table,
    seek_table,
    seek_table_bytes,
)

lengths = st.tuples(st.integers(1, 2**32 - 1), st.integers(0, 2**32 - 1))


def test_the_checksum_is_that_of_xxh128sum() -> None:
    assert frame_checksum(b"tape\n").hex() == "abc5299be6307313f96e031b5486126e"


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
