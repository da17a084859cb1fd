"""Whatever a drive says, wherever in a backup: what was acknowledged is on tape and equal, else there is a clear error.

The next run works, be it a new one or the same, resumed. Here every forty-seventh of the 780 cases is tried;
`scripts/sweep-failures` tries all.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.sense_sweep import FAULTS, SenseSweep

STEP = 47


@pytest.mark.log_warnings
def test_a_drive_says_something_bad(tmp_path: Path) -> None:
    sweep = SenseSweep(tmp_path)
    sweep.prepare()
    assert {fault.name for fault, _ in sweep.cases} == {fault.name for fault in FAULTS}
    results = list(sweep.results(range(STEP // 2, len(sweep.cases), STEP)))
    assert [each for each in results if "wrong" in each] == []
    assert all(each["struck"] for each in results)
    assert {each["then"] for each in results} >= {"was done", "ran anew", "went on"}
    for each in results:
        # A failure names the sense data, so that an operator can look them up in docs/faults.md.
        assert not each["error"] or re.search(r"\[sense ..\/..\/..\]|PositionLost|no tape", str(each["error"])), each
