"""The rig itself: a job's output and status come out, and the tape drive is the kernel's."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.drivers.uml.machine import Machine, run, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def test_status_and_output_come_out_and_the_host_stays_as_it_was(tmp_path: Path) -> None:
    ended = run('echo from the guest; touch /etc/made-in-the-guest; echo kept >"$SHARE"/kept; exit 7', tmp_path)
    assert ended.status == 7
    assert "from the guest" in ended.output
    assert (tmp_path / "kept").read_text() == "kept\n"
    assert not Path("/etc/made-in-the-guest").exists()


def test_a_job_that_hangs_is_ended(tmp_path: Path) -> None:
    with Machine('echo begun; echo >"$SHARE"/begun; sleep 1000', tmp_path) as machine:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ended = machine.wait(0.1)
    assert ended.status is None
    assert "begun" in ended.output
