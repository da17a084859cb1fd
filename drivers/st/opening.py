"""Opening a drive or a changer of the Linux kernel by its name. Blocking; any thread."""

from __future__ import annotations

import errno
from pathlib import Path

from drivers.errors import DeviceFailed, DeviceGone, DriveError, DriveInUse
from drivers.scsi.drive import ScsiDrive
from drivers.st.device import TapeNode
from drivers.st.discovery import System
from drivers.st.drive import StDrive
from drivers.st.sg_io import SgIo


def open_drive(name: str, folder: Path, *, system: System | None = None, reserve: bool = True) -> StDrive:
    """Take the drive that a setting names, see `System.tape`.

    `folder` keeps its lock, counters and reservation key. st gives a drive to one process of the host; `reserve` keeps
    other hosts away where the drive knows reservations. Raises DriveInUse, DeviceGone, DeviceFailed.
    """
    found = (system or System()).tape(name)
    if found.node is None:
        raise DeviceFailed(f"{found.identity} has no tape node")
    try:
        node = TapeNode(found.node)
    except OSError as error:
        raise _refused(found.node, error) from error
    try:
        # Without the sg module commands go through the tape's own node, which takes the right to send any.
        transport = SgIo(found.sg) if found.sg else SgIo(found.node, through=node.fileno)
        if found.sg:
            transport.lock()
        return StDrive(node, ScsiDrive(transport, folder, reserve=reserve))
    except BaseException:
        node.close()
        raise


def _refused(node: Path, error: OSError) -> DriveError:
    if error.errno == errno.EBUSY:
        return DriveInUse(f"{node} is in use by another process: lsof {node} tells which")
    if error.errno in (errno.ENXIO, errno.ENODEV, errno.ENOENT):
        return DeviceGone(f"{node}: the drive is not connected any more")
    if error.errno in (errno.EACCES, errno.EPERM):
        return DeviceFailed(f"{node}: no permission: add this user to the group that owns it (adduser USER tape)")
    return DeviceFailed(f"cannot open {node}: {error.strerror}")
