"""A whole virtual library served over iSCSI: the changer is LUN 0, the drives follow. One thread starts and ends it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from drivers.virtual.changer import VirtualChanger
from drivers.virtual.layout import read_library
from drivers.virtual.opening import open_virtual_drive
from drivers.vtl.changer import ChangerServer
from drivers.vtl.portal.chap import Credentials
from drivers.vtl.portal.target import Target
from drivers.vtl.tape import TapeServer

#: Names of targets begin so when nobody chooses one; the library's serial number follows.
NAME_PREFIX = "iqn.2026-01.local.tapefs:"


def default_name(folder: Path) -> str:
    """Return the name of the target of a library, always the same. Raises DeviceFailed."""
    return NAME_PREFIX + read_library(folder).serial.lower()


class LibraryTarget:
    """Opens robot and drives of a library and serves them until it is closed."""

    def __init__(self, folder: Path, motion: str, name: str, credentials: Credentials | None = None) -> None:
        """Open all devices. Raises ValueError for names and modes, DriveInUse, DeviceFailed."""
        library = read_library(folder)
        self.name = name
        with ExitStack() as stack:
            self.tapes = []
            for number in range(len(library.drives)):
                drive = open_virtual_drive(folder, number, motion)
                stack.callback(drive.close)
                self.tapes.append(TapeServer(drive, is_paced=motion != "account"))
            self.changer = ChangerServer(VirtualChanger(folder, motion), self.tapes, library.serial)
            stack.callback(self.changer.close)
            units = {0: self.changer, **dict(enumerate(self.tapes, 1))}
            self._target = Target(name, units, credentials)
            self._stack = stack.pop_all()

    def start(self, host: str, port: int) -> tuple[str, int]:
        """Serve from now on; return the address. Raises ValueError for one that is not safe, OSError.

        Cartridges that lie in drives are threaded, as drives do when they are switched on.
        """
        address = self._target.start(host, port)
        self._stack.callback(self._target.stop)
        for tape in self.tapes:
            tape.inserted()
        return address

    def close(self) -> None:
        """Say goodbye to the initiators, finish what was begun, and let go of the devices."""
        self._stack.close()

    def __enter__(self) -> LibraryTarget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
