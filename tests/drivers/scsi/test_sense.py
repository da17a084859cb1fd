"""Sense data of both formats."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import BadAnswer
from drivers.scsi.sense import Key, Sense, parse_sense

GOLDEN = {
    "filemark while reading 256 KiB": (
        "f0 00 80 00 04 00 00 0a 00 00 00 00 00 01 00 00 00 00",
        Sense(Key.NO_SENSE, 0, 1, filemark=True, information=0x40000),
    ),
    "block shorter by 100": (
        "f0 00 20 00 00 00 64 0a 00 00 00 00 00 00 00 00 00 00",
        Sense(Key.NO_SENSE, incorrect_length=True, information=100),
    ),
    "block longer by 500": (
        "f0 00 20 ff ff fe 0c 0a 00 00 00 00 00 00 00 00 00 00",
        Sense(Key.NO_SENSE, incorrect_length=True, information=-500),
    ),
    "early warning": (
        "f0 00 40 00 00 00 00 0a 00 00 00 00 00 02 00 00 00 00",
        Sense(Key.NO_SENSE, 0, 2, end_of_medium=True, information=0),
    ),
    "volume overflow": (
        "f0 00 4d 00 04 00 00 0a 00 00 00 00 00 02 00 00 00 00",
        Sense(Key.VOLUME_OVERFLOW, 0, 2, end_of_medium=True, information=0x40000),
    ),
    "end of data, no information": (
        "70 00 08 00 00 00 00 0a 00 00 00 00 00 05 00 00 00 00",
        Sense(Key.BLANK_CHECK, 0, 5),
    ),
    "deferred write error": (
        "71 00 03 00 00 00 00 0a 00 00 00 00 0c 00 00 00 00 00",
        Sense(Key.MEDIUM_ERROR, 0x0C, 0, deferred=True),
    ),
    "becoming ready, half done": (
        "70 00 02 00 00 00 00 0a 00 00 00 00 04 01 00 80 80 00",
        Sense(Key.NOT_READY, 4, 1, progress=0.5),
    ),
    "field pointer is no progress": (
        "70 00 05 00 00 00 00 0a 00 00 00 00 24 00 00 c0 00 02",
        Sense(Key.ILLEGAL_REQUEST, 0x24, 0),
    ),
    "cut behind the key": ("70 00 06 00 00 00 00 00", Sense(Key.UNIT_ATTENTION)),
    "cut in the middle of the codes": ("70 00 06 00 00 00 00 0a 00 00 00 00 29", Sense(Key.UNIT_ATTENTION, 0x29)),
    "bytes behind the additional length are none": (
        "70 00 06 00 00 00 00 05 00 00 00 00 29 77 77",
        Sense(Key.UNIT_ATTENTION, 0x29, 0),
    ),
    "descriptors: reset": ("72 06 29 02 00 00 00 00", Sense(Key.UNIT_ATTENTION, 0x29, 2)),
    "descriptors: block longer by 500": (
        "72 00 00 00 00 00 00 10 00 0a 80 00 ff ff ff ff ff ff fe 0c 04 02 00 20",
        Sense(Key.NO_SENSE, incorrect_length=True, information=-500),
    ),
    "descriptors: filemark and early warning, information not valid": (
        "72 00 00 01 00 00 00 10 04 02 00 c0 00 0a 00 00 00 00 00 00 00 00 00 01",
        Sense(Key.NO_SENSE, 0, 1, filemark=True, end_of_medium=True),
    ),
    "descriptors: progress": (
        "72 02 04 01 00 00 00 08 02 06 00 00 80 40 00 00",
        Sense(Key.NOT_READY, 4, 1, progress=0.25),
    ),
    "descriptors: deferred, an unknown one before the known": (
        "73 04 44 00 00 00 00 08 80 02 aa bb 04 02 00 40",
        Sense(Key.HARDWARE_ERROR, 0x44, 0, deferred=True, end_of_medium=True),
    ),
}


@pytest.mark.parametrize(("data", "sense"), GOLDEN.values(), ids=GOLDEN.keys())
def test_golden(data: str, sense: Sense) -> None:
    assert parse_sense(bytes.fromhex(data)) == sense


@pytest.mark.parametrize("data", ["", "70", "70 00 02", "00" * 18, "7f" + "00" * 17, "72 02 04"])
def test_what_is_no_sense_data_is_told(data: str) -> None:
    with pytest.raises(BadAnswer):
        parse_sense(bytes.fromhex(data))


@given(st.one_of(st.binary(max_size=64), st.binary(max_size=60).map(lambda rest: b"\x72\x02\x04\x01" + rest)))
def test_no_bytes_make_it_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(BadAnswer):
        assert isinstance(parse_sense(data), Sense)


def test_codes_are_written_as_manuals_do() -> None:
    assert Sense(Key.VOLUME_OVERFLOW, 0, 2).codes == "0D/00/02"
