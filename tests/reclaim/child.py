"""Reclaiming in a process of its own, to be killed: `python -m tests.reclaim.child HOME`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.backup.rig import Rig
from tests.reclaim.scene import reclaim


def main() -> None:
    rig = Rig.existing(Path(sys.argv[1]))
    reclaim(rig)
    rig.close()


if __name__ == "__main__":
    main()
