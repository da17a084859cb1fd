"""A backup by a drive that encrypts, to be killed: `python -m tests.keys.drive_crash_child HOME SOURCE KEY`."""

from __future__ import annotations

import sys
from pathlib import Path

from tapefs.keys.identity import Identity
from tests.backup.rig import Rig

if __name__ == "__main__":
    rig = Rig.existing(Path(sys.argv[1]))
    rig.home.keyring.add(Identity.parse(Path(sys.argv[3]).read_text()))
    rig.backup(Path(sys.argv[2]))
    rig.close()
