"""The one table from errors to errno values of the mount."""

from __future__ import annotations

import errno

from catalog.errors import CatalogError, Conflict, NotFound
from drivers.errors import DriveError
from tapefs.errors import (
    Cancelled,
    NoSuchThing,
    NotNow,
    RecallDeferred,
    RecallDenied,
    RecallFailed,
    RecallLocked,
    RecallOverLimit,
    RecallTimedOut,
    TapefsError,
    Unreachable,
    UsageError,
)


class ReaderGone(TapefsError):
    """The process that waits for a read is being ended by a signal."""


#: The nearest class in an error's method resolution order counts.
_ERRNOS: dict[type[BaseException], int] = {
    NoSuchThing: errno.ENOENT,
    NotNow: errno.EBUSY,
    UsageError: errno.EINVAL,
    Cancelled: errno.EINTR,
    ReaderGone: errno.EINTR,
    RecallTimedOut: errno.ETIMEDOUT,
    # Not EACCES, which would have people look at the file's mode.
    RecallDenied: errno.EPERM,
    RecallOverLimit: errno.EDQUOT,
    RecallDeferred: errno.EAGAIN,
    # "Required key not available": what fscrypt answers for a file whose key is locked.
    RecallLocked: errno.ENOKEY,
    RecallFailed: errno.EIO,
    Unreachable: errno.EIO,
    TapefsError: errno.EIO,
    NotFound: errno.ENOENT,
    Conflict: errno.EBUSY,
    CatalogError: errno.EIO,
    DriveError: errno.EIO,
    MemoryError: errno.ENOMEM,
}

#: Of an OSError within the mount, what the caller may know; the rest would mislead him.
_PASSED_ON = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def errno_of(error: Exception) -> int | None:
    """Return the errno for an error, or None for one that nobody foresaw: a defect, which is EIO and logged."""
    if isinstance(error, OSError):
        return error.errno if error.errno in _PASSED_ON else errno.EIO
    for kind in type(error).__mro__:
        if kind in _ERRNOS:
            return _ERRNOS[kind]
    return None
