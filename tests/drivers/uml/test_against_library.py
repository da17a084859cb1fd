"""The kernel's st, sg and ch drivers against the virtual library over iSCSI: each judges the other.

The contracts of drives and changers run in the guest, without any skip; see `guest/inside_contract.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drivers.uml import guest
from tests.drivers.uml.machine import run, why_not

MIB = 1024 * 1024
MISSING = why_not("iscsistart", "mt", "mtx", "lsscsi", "stenc")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

#: By sg alone only what sg itself can get wrong: ScsiDrive has the whole contract in process and over iSCSI.
IN_FULL = "not BySg or memoryviews or block_by_block or larger_than or every_block or one_process or early_warning"
#: A cartridge that can be written once would serve one test only.
SELECTED = f"({IN_FULL}) and not written_once"


@pytest.mark.slow
def test_contracts_of_drive_and_changer(tmp_path: Path) -> None:
    job = guest.attached(16 * MIB) + guest.selection("contract", arguments=f"-k '{SELECTED}'")
    ended = run(job, tmp_path)
    print(ended.output)
    assert ended.status == 0, ended.output
    assert "skipped" not in ended.output
