"""What a driver is told about the library that it drives. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryConfig:
    """A library: one driver for its drives and its changer."""

    #: A name of the table in `drivers.registry`.
    driver: str = "virtual"
    #: Folder of the virtual library, or for what a driver has to note.
    folder: Path
    #: How drives and changer are reached, in the driver's own way: by number from 0. Empty for the virtual library,
    #: whose folder tells all.
    drives: tuple[str, ...] = ()
    changer: str = ""
    #: Virtual drives only: `account`, `real` or `scaled:N`.
    motion: str = "account"
