"""A backup in a process, to be killed at a point: `python -m tests.backup.crash_child HOME SOURCE [verify|spool|way]`.

With `way` it leaves its drive to others twice.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.backup.rig import Rig

if __name__ == "__main__":
    rig = Rig.existing(Path(sys.argv[1]))
    if "way" in sys.argv[3:]:
        rig.watcher.wanted = lambda: rig.watcher.gave_way < 2
    rig.backup(Path(sys.argv[2]), verify="verify" in sys.argv[3:], spool="spool" in sys.argv[3:])
    rig.close()
