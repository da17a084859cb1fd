"""Errors to the kinds that `Failed` carries: the mover's one table."""

from __future__ import annotations

from catalog.errors import CatalogError
from drivers.errors import DriveError
from tapefs.errors import Cancelled, NoTape, SourceError, TapeError, UsageError

#: First match counts.
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (Cancelled, "cancelled"),
    (NoTape, "no_volume"),
    (SourceError, "source"),
    (UsageError, "source"),
    (TapeError, "wrong_tape"),
    (DriveError, "drive"),
    (CatalogError, "catalog"),
)


def kind_of(error: BaseException) -> str:
    """Return the kind; `internal` for what nobody expected."""
    return next((kind for error_class, kind in _KINDS if isinstance(error, error_class)), "internal")
