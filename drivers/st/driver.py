"""The driver `st`: drives and a changer of the Linux kernel, as the settings name them. Blocking."""

from __future__ import annotations

from functools import partial

from drivers.config import LibraryConfig
from drivers.errors import DeviceFailed
from drivers.scsi.changer import ScsiChanger
from drivers.scsi.serials import Serials
from drivers.st import opening
from drivers.st.discovery import System
from drivers.st.drive import StDrive
from drivers.st.sg_io import SgIo

_SERIALS = "serials.json"


def check(library: LibraryConfig) -> None:
    """Raise ValueError with what to write instead when the settings make no sense. Looks for no device."""
    if not library.drives:
        raise ValueError(
            'the driver st needs `drives = ["/dev/tape/by-id/scsi-SERIAL-nst", ...]`, or serial numbers: lsscsi -g'
            " and ls /dev/tape/by-id show what there is"
        )
    if "" in library.drives:
        raise ValueError("a drive has an empty name in `drives`")


def open_drive(library: LibraryConfig, number: int) -> StDrive:
    """Open drive `number`, from 0. Raises DriveInUse, DeviceFailed, and ValueError when there is none."""
    if not 0 <= number < len(library.drives):
        raise ValueError(f"there is no drive {number}: tapefs.toml names {len(library.drives)}")
    return opening.open_drive(library.drives[number], library.folder)


def open_changer(library: LibraryConfig) -> ScsiChanger:
    """Open the changer, and find which of its drives is which. Raises DriveInUse, DeviceFailed."""
    system = System()
    found = system.changer(library.changer)
    if found.sg is None:
        raise DeviceFailed(f"{found.identity} has no sg node")
    library.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    serials = Serials(library.folder / _SERIALS)
    drives = [serials.of(name, partial(_serial, system, name)) for name in library.drives]
    transport = SgIo(found.sg)
    try:
        transport.lock()
    except BaseException:
        transport.close()
        raise
    return ScsiChanger(transport, drives)


def _serial(system: System, name: str) -> str:
    """Return a drive's serial number as the kernel knows it: nothing is asked of the drive, which may be busy."""
    return system.tape(name).serial
