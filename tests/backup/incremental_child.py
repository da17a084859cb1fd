"""An incremental backup in a process, to be killed at a point: `python -m tests.backup.incremental_child HOME`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.backup.rig import Rig

if __name__ == "__main__":
    rig = Rig.existing(Path(sys.argv[1]))
    rig.again(rig.ledger.jobs()[0], type="incremental")
    rig.close()
