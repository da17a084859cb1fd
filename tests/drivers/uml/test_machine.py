"""The rig itself: a job's output and status come out, and the tape drive is the kernel's."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.drivers.uml.machine import Machine, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def test_a_job_that_hangs_is_ended_and_the_host_stays_as_it_was(tmp_path: Path) -> None:
    job = 'echo begun; touch /etc/made-in-the-guest; echo kept >"$SHARE"/kept; sleep 1000'
    with Machine(job, tmp_path) as machine:
        deadline = time.monotonic() + 60
        while not (tmp_path / "kept").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ended = machine.wait(0.1)
    assert ended.status is None
    assert "begun" in ended.output
    assert not Path("/etc/made-in-the-guest").exists()
