"""A backup in a process, to be killed at a point: `python -m tests.backup.crash_child HOME SOURCE [WORD...]`.

With `verify` and `spool` the job asks for that. With `way` it leaves its drive to others twice, with `anew` full tapes
are begun anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

from catalog.records import VolumeState
from tests.backup.rig import Rig

if __name__ == "__main__":
    rig = Rig.existing(Path(sys.argv[1]))
    if "way" in sys.argv[3:]:
        rig.watcher.wanted = lambda: rig.watcher.gave_way < 2
    if "anew" in sys.argv[3:]:
        rig.watcher.anew = {each.volume_id for each in rig.ledger.volumes() if each.state is VolumeState.FULL}
    rig.backup(Path(sys.argv[2]), verify="verify" in sys.argv[3:], spool="spool" in sys.argv[3:])
    rig.close()
