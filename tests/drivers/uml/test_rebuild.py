"""The catalog comes back from the tape alone, on the kernel's tape driver.

A file of its own, so that it runs beside the others.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drivers.uml import guest
from tests.drivers.uml.machine import MKFS, make_disk, run, why_not

GIB = 1024**3
MISSING = why_not(MKFS, "iscsistart", "mt", "rsync", "setcap", "setfacl", "setfattr")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.mark.slow
def test_rebuild(tmp_path: Path) -> None:
    """By each of the three ways and from an old copy every record, number, attribute and byte is as before; then the
    next backup goes on, and untape.py alone restores all of it."""
    job = guest.product(GIB) + guest.script("rebuild")
    ended = run(job, tmp_path / "share", disk=make_disk(tmp_path / "disk"))
    print(ended.output)
    assert ended.status == 0, ended.output
