"""The kernel's st and sg drivers against tgt, which nobody here wrote. What runs in the guest is in `guest/`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drivers.uml import guest
from tests.drivers.uml.machine import run, why_not

MISSING = why_not("tgtd", "tgtadm", "tgtimg", "iscsistart")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

JOB = """
load_tape_modules
start_tgt
tgt_tape 1 /tmp/tape TP0001L6 32
attach
"""


def test_nodes_and_what_of_the_contract_tgt_can_show(tmp_path: Path) -> None:
    ended = run(JOB + guest.selection("nodes", "contract_tgt"), tmp_path)
    print(ended.output)
    assert ended.status == 0, ended.output
