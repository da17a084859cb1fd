"""The product on the kernel's tape driver, from backup to restore, with a killed mover in between.

A file of its own, so that it runs beside the contracts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drivers.uml import guest
from tests.drivers.uml.machine import MKFS, make_disk, run, why_not

GIB = 1024**3
MISSING = why_not(MKFS, "iscsistart", "mt", "mtx", "zstd", "rsync", "setcap", "setfacl", "setfattr")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.mark.slow
def test_end_to_end(tmp_path: Path) -> None:
    """The product backs up, restores and mounts; mt, dd, zstd and tar read it, as the tape says; all is compared."""
    job = guest.product(GIB) + guest.script("end_to_end")
    ended = run(job, tmp_path / "share", disk=make_disk(tmp_path / "disk"))
    print(ended.output)
    assert ended.status == 0, ended.output
