"""An archive in a process of its own, to be killed: `python -m tests.backup.archive_child HOME [SOURCE]`.

Without SOURCE it goes on with the set that is complete.
"""

from __future__ import annotations

import sys
from pathlib import Path

from catalog.records import SetState
from tapefs.backup.read_back import read_back
from tests.backup.rig import Rig


def main() -> None:
    rig = Rig.existing(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        rig.backup(Path(sys.argv[2]), type="archive", verify=True, copies=2)
    else:
        (backup_set,) = rig.ledger.backup_sets()
        assert backup_set.state is SetState.COMPLETE
        job = rig.ledger.job(backup_set.job_number)
        read_back(rig.home, rig.ledger, rig.drive, job, backup_set.set_id, rig.watcher)
    rig.close()


if __name__ == "__main__":
    main()
