"""The product on the kernel's tape driver, from backup to restore, with a killed mover in between.

A file of its own, so that it runs beside the contracts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drivers.uml import guest
from tests.drivers.uml.machine import run, why_not

GIB = 1024**3
MISSING = why_not("iscsistart", "mt", "mtx", "zstd", "rsync", "setcap", "setfacl")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.mark.slow
def test_end_to_end(tmp_path: Path) -> None:
    """Backups by the product, read by mt, dd, zstd and tar typed from what the tape says; compared by rsync."""
    ended = run(guest.attached(GIB) + guest.script("end_to_end"), tmp_path, timeout_s=300, memory_mib=768)
    print(ended.output)
    assert ended.status == 0, ended.output
