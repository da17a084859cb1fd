"""Which drive uses which cartridge."""

from __future__ import annotations

import pytest

from drivers.lto import READS, WRITES, Use, can_read, can_write, use

#: Drive: what it reads, what it writes, as its maker states.
FACTS = {
    5: ({3, 4, 5}, {4, 5}),
    6: ({4, 5, 6}, {5, 6}),
    7: ({5, 6, 7}, {6, 7}),
    8: ({7, 8}, {7, 8}),
    9: ({8, 9}, {8, 9}),
    10: ({10}, {10}),
}


@pytest.mark.parametrize("drive", FACTS)
def test_what_drives_read_and_write(drive: int) -> None:
    reads, writes = FACTS[drive]
    assert {medium for medium in READS if can_read(drive, medium)} == reads
    assert {medium for medium in READS if can_write(drive, medium)} == writes


def test_what_is_written_is_read() -> None:
    assert all(set(WRITES[drive]) <= set(READS[drive]) for drive in READS)


def test_type_m_is_for_lto_8_only() -> None:
    uses = {drive: use(drive, 8, is_type_m=True) for drive in READS}
    assert uses.pop(8) is Use.WRITING
    assert set(uses.values()) == {Use.NOTHING}


def test_of_an_unknown_generation_the_drive_says_itself() -> None:
    assert use(0, 9) is use(9, 0) is use(11, 9) is Use.WRITING
