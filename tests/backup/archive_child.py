"""An archive in a process of its own, to be killed: `python -m tests.backup.archive_child HOME [SOURCE]`.

Without SOURCE the interrupted job goes on, as it does after the sidecar has started again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from catalog.records import JobState, SetState
from tests.backup.rig import Rig


def main() -> None:
    rig = Rig.existing(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        rig.backup(Path(sys.argv[2]), type="archive", verify=True, copies=2)
    else:
        (backup_set,) = rig.ledger.backup_sets()
        if backup_set.state is SetState.RUNNING:
            rig.ledger.fail_set(backup_set.set_id, "killed", time.time_ns())
        rig.ledger.finish_job(backup_set.job_number, JobState.FAILED, "killed", time.time_ns())
        rig.run(rig.ledger.queue_job(backup_set.job_number, time.time_ns(), resume=True))
    rig.close()


if __name__ == "__main__":
    main()
