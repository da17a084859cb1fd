"""The product on the kernel's tape driver, and a drive that encrypts: `stenc`, `mt` and `dd` read it with the key.

A file of its own, so that it runs beside the contracts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drivers.uml import guest
from tests.drivers.uml.machine import MKFS, make_disk, run, why_not

GIB = 1024**3
MISSING = why_not(MKFS, "iscsistart", "mt", "mtx", "zstd", "rsync", "setcap", "setfacl", "setfattr", "stenc")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.mark.slow
def test_stenc_reads_what_the_drive_has_encrypted(tmp_path: Path) -> None:
    """With the key of the tape, and with nothing else; what is plain says how to make it."""
    job = guest.product(GIB) + guest.script("drive_key")
    ended = run(job, tmp_path / "share", disk=make_disk(tmp_path / "disk"))
    print(ended.output)
    assert ended.status == 0, ended.output
