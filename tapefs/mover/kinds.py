"""Errors to the kinds that `Failed` carries: the mover's one table."""

from __future__ import annotations

import errno

from catalog.errors import CatalogError
from drivers.errors import CleaningUsedUp, DeviceFailed, DriveError, DriveInUse, NotReady, PositionLost, Undecryptable
from tapefs.errors import (
    Cancelled,
    HomeError,
    KeyMissing,
    KeyUnfit,
    NoTape,
    NotNow,
    NotVerified,
    SetDamaged,
    SourceError,
    TapeError,
    UsageError,
)

#: First match counts.
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (Cancelled, "cancelled"),
    (NoTape, "no_volume"),
    (KeyUnfit, "no_volume"),
    (KeyMissing, "wrong_tape"),
    (HomeError, "catalog"),
    (SourceError, "source"),
    (UsageError, "usage"),
    (NotNow, "refused"),
    (SetDamaged, "damaged"),
    (NotVerified, "not_verified"),
    (TapeError, "wrong_tape"),
    # A drive that lacks a key is not broken, nor is the tape.
    (Undecryptable, "wrong_tape"),
    (CleaningUsedUp, "used_up"),
    (DriveError, "drive"),
    (CatalogError, "catalog"),
)

#: What another drive need not meet: the drive at hand is to blame, or the way to it.
_OF_THE_DRIVE = (DeviceFailed, PositionLost, NotReady, DriveInUse)

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


def kind_of(error: BaseException) -> str:
    """Return the kind; `internal` for what nobody expected.

    If a set could not be read back because the drive failed, it is the drive's failure.
    """
    reason = error.__cause__ if isinstance(error, NotVerified) else error
    if isinstance(reason, _OF_THE_DRIVE):
        return "drive_failed"
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return "no_space"
    return next((kind for error_class, kind in _KINDS if isinstance(error, error_class)), "internal")
