"""In the guest: make a virtual library and serve it over iSCSI, as `tapefs vtl` does but without its second of imports.

serve_library.py FOLDER PORT: three slots, two drives, cartridges in slots 0 and 1, 16 MiB each. LUN 0 is the changer.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.library import create_library, take_out
from drivers.vtl.changer import ChangerServer
from drivers.vtl.portal.target import Target
from drivers.vtl.tape import TapeServer
from drivers.vtl.unit import LogicalUnit

TARGET = "iqn.2026-11.test:library"
DRIVES = 2
CARTRIDGE_BYTES = 16 * 1024 * 1024


def main(folder: Path, port: int, cartridge_bytes: int = CARTRIDGE_BYTES) -> None:
    create_library(folder, tapes=3, tape_bytes=cartridge_bytes, drives=DRIVES, generation=9)
    take_out(folder, "TP0003L9", folder.parent / "shelf")
    tapes = [TapeServer(VirtualDrive(folder, number)) for number in range(DRIVES)]
    units: dict[int, LogicalUnit] = {0: ChangerServer(VirtualChanger(folder), tapes, "TL0001")}
    units.update(enumerate(tapes, 1))
    Target(TARGET, units).start("127.0.0.1", port)
    print("serving", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *map(int, sys.argv[3:]))
