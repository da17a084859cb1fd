"""In the guest: make a virtual library and serve it over iSCSI, as `tapefs vtl` does but without its second of imports.

serve_library.py FOLDER PORT BYTES [TAPES]: two drives, two cartridges of that size or as many as told, and a slot more
than cartridges. LUN 0 is the changer. A library that is there already is served as it is, and TAPEFS_FAULTS works as
for `tapefs vtl`. With MOTION=scaled:N in the environment each device has a thread: none waits for another.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from drivers.virtual.library import create_library, take_out
from drivers.vtl.serving import LibraryTarget

TARGET = "iqn.2026-11.test:library"
DRIVES = 2


def main(folder: Path, port: int, cartridge_bytes: int, tapes: int = 2) -> None:
    if not folder.exists():
        made = create_library(folder, tapes=tapes + 1, tape_bytes=cartridge_bytes, drives=DRIVES, generation=9)
        take_out(folder, made[-1], folder.parent / "shelf")
    with LibraryTarget(folder, os.environ.get("MOTION", "account"), TARGET) as target:
        target.start("127.0.0.1", port)
        print("serving", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *map(int, sys.argv[3:]))
