"""A power cut in the middle of a segment, on the kernel's tape driver; a file of its own, to run beside the others."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.drivers.uml import guest
from tests.drivers.uml.machine import LONG_S, MKFS, Machine, make_disk, run, why_not

GIB = 1024**3
MISSING = why_not(MKFS, "iscsistart", "mt", "zstd", "rsync", "sg_raw", "setcap", "setfacl", "setfattr")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
#: From the second set on a block of 256 KiB takes so long that its second segment, of 16 blocks, is sure to be cut off
#: in its middle, however slow the machine is that looks for that.
SLOW = """
export TAPEFS_FAULTS='[{"kind": "delay", "operation": "write_block", "from_block": 28, "seconds": 1.0}]'
"""


@pytest.mark.slow
def test_a_power_cut_within_a_segment(tmp_path: Path) -> None:
    """The set before it is there, the torn segment is not shown, and the resumed job and the next write over it."""
    disk, share = make_disk(tmp_path / "disk"), tmp_path / "share"
    with Machine(SLOW + guest.product(GIB) + guest.script("power_cut"), share, disk=disk) as machine:
        deadline_s = time.monotonic() + LONG_S
        while not (share / "cut").exists():
            assert time.monotonic() < deadline_s, (share / "output").read_text()
            assert not (share / "status").exists(), (share / "output").read_text()
            time.sleep(0.02)
        machine.cut_power()
    print((share / "output").read_text())
    ended = run(guest.product(GIB) + guest.script("power_back"), tmp_path / "back", disk=disk)
    print(ended.output)
    assert ended.status == 0, ended.output
