"""A backup with a second drive, to be killed at a point: `python -m tests.along.crash_child HOME SOURCE`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.along.rig import Pair

if __name__ == "__main__":
    pair = Pair.existing(Path(sys.argv[1]))
    pair.backup(Path(sys.argv[2]), copy_pools=("vault",))
    pair.close()
