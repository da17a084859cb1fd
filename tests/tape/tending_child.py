"""Tend a tape in a process, to be killed at a point: `python -m tests.tape.tending_child HOME LABEL TASK`."""

from __future__ import annotations

import sys
from pathlib import Path

from tapefs.tape.tending import Order, Task
from tests.tape.rig import NOW, TapeRig

if __name__ == "__main__":
    rig = TapeRig.existing(Path(sys.argv[1]))
    rig.tend(sys.argv[2], Order(Task(sys.argv[3]), identity=sys.argv[2]), NOW)
    rig.close()
