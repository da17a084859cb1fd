"""The product on the kernel's tape driver with several tapes and drives.

A file of its own, so that it runs beside the others.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drivers.uml import guest
from tests.drivers.uml.machine import MKFS, make_disk, run, why_not

MIB = 1024**2
TAPES = 4
#: A thread for each device, and tapes on which a block of 256 KiB takes so long that others can be seen beside it.
DELAY = '{{"kind": "delay", "operation": "write_block", "barcode": "{}", "seconds": 1.0}}'
SLOW = f"""
export MOTION=scaled:100000
export TAPEFS_FAULTS='[{DELAY.format("TP0003L9")}, {DELAY.format("TP0004L9")}]'
"""
MISSING = why_not(MKFS, "iscsistart", "mt", "mtx", "lsscsi", "sg_inq", "zstd", "rsync", "setcap", "setfacl", "setfattr")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.mark.slow
def test_two_tapes_and_two_drives(tmp_path: Path) -> None:
    """Sets that span tapes, by mtx and by sg, read back by hand and by two drives; two drives that work at once."""
    job = SLOW + guest.product(32 * MIB, TAPES) + guest.script("two_tapes")
    ended = run(job, tmp_path / "share", disk=make_disk(tmp_path / "disk"))
    print(ended.output)
    assert ended.status == 0, ended.output
