"""What lies between host and drive breaks in the middle of a backup; a file of its own, to run beside the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drivers.uml import guest
from tests.drivers.uml.machine import MKFS, make_disk, run, why_not

GIB = 1024**3
MISSING = why_not(MKFS, "iscsistart", "sg_reset", "lsscsi", "mt", "rsync")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
#: A block of 256 KiB takes so long.
SLOW = """
export TAPEFS_FAULTS='[{"kind": "delay", "operation": "write_block", "seconds": 0.15}]'
"""


@pytest.mark.slow
def test_a_reset_within_a_segment(tmp_path: Path) -> None:
    """A reset by somebody else, told by the real st: the job goes on by itself, and everything is on tape."""
    job = SLOW + guest.product(GIB) + guest.script("fabric")
    ended = run(job, tmp_path / "share", disk=make_disk(tmp_path / "disk"))
    print(ended.output)
    assert ended.status == 0, ended.output
