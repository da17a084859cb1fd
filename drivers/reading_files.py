"""What an error of the system means for whoever reads a block from a file: is the medium to blame, or this machine?

Pure; any thread.
"""

from __future__ import annotations

import errno
import os

from drivers.errors import DeviceFailed, DeviceGone, DriveError, ReadFailed

#: The disk, or the file system on it, says that what lies there cannot be read; or it is not there.
_OF_THE_MEDIUM = frozenset(
    {errno.EIO, errno.ENODATA, errno.EREMOTEIO, errno.EBADMSG, errno.EUCLEAN, errno.EILSEQ, errno.ENOENT}
)
#: The way to a mounted volume is gone.
_GONE = frozenset({errno.ENOTCONN, errno.ENODEV, errno.ESTALE, errno.ESHUTDOWN})


def read_error(path: str | os.PathLike[str], error: OSError, block: int) -> DriveError:
    """Return what to raise for a block that a file did not give.

    Too many open files, say, are no damage: only what the medium is to blame for is ReadFailed.
    """
    message = f"{path}: {error.strerror or error}"
    if error.errno in _OF_THE_MEDIUM:
        return ReadFailed(message, block)
    return (DeviceGone if error.errno in _GONE else DeviceFailed)(message)
