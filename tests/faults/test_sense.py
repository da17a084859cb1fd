"""Whatever a drive says, wherever in a task: what was acknowledged is on tape and equal, else there is a clear error.

The next run works, be it a new one or the same, resumed. And what comes of it is what docs/faults.md tells. Here a
sample of 2,367 cases is tried; `scripts/sweep-failures` tries all.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.outcomes import PARTS, documented, undocumented
from tests.faults.reading_sweep import ReadingSweep
from tests.faults.sense_sweep import FAULTS, SenseSweep

#: Of a backup a case takes half a second, of reading a fifth of that.
STEP, READING_STEP = 97, 29


@pytest.mark.log_warnings
@pytest.mark.parametrize("where", ["blank", "append"])
def test_a_drive_says_something_bad(tmp_path: Path, where: str) -> None:
    """While a tape is labelled and written, and while one that holds a set is appended to."""
    sweep = SenseSweep(tmp_path, where)
    sweep.prepare()
    known = {fault.name for fault in FAULTS}
    assert {fault.name for fault, _ in sweep.cases} == known
    results = list(sweep.results(range(STEP // 2, len(sweep.cases), STEP)))
    assert [each for each in results if "wrong" in each] == []
    assert all(each["struck"] for each in results)
    for each in results:
        # A failure names the sense data, so that an operator can look them up in docs/faults.md.
        assert not each["error"] or re.search(r"\[sense ..\/..\/..\]|PositionLost|no tape", str(each["error"])), each
    assert undocumented(results) == []  # type: ignore[arg-type]


@pytest.mark.log_warnings
def test_a_drive_says_something_bad_while_a_tape_is_read(tmp_path: Path) -> None:
    """Loaded, recalled from and read back: no wrong byte, no damage made up, none passed over."""
    sweep = ReadingSweep(tmp_path)
    sweep.prepare()
    results = list(sweep.results(range(READING_STEP // 2, len(sweep.cases), READING_STEP)))
    sweep.close()
    assert [each for each in results if "wrong" in each] == []
    assert all(each["struck"] for each in results)
    assert undocumented(results) == []  # type: ignore[arg-type]


def test_the_table_tells_of_every_fault_in_every_part() -> None:
    """Every code that a drive can say somewhere has its outcome there, and nothing else is told."""
    told = documented()
    assert {part for part, _ in told} == set(PARTS)
    codes = {fault.name.replace(" deferred", "d") for fault in FAULTS}
    assert set().union(*told.values()) == codes
    for part in PARTS:
        of_part = set().union(*(found for (each, _), found in told.items() if each == part))
        # Becoming ready, hardware, reset: what a drive can say to any command.
        assert {"02/04/01", "04/44/00", "06/29/00", "0B/47/00"} <= of_part, part
