"""Where a command works: the state folder, and for listings its catalog, read only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tapefs.home import Home, open_home

if TYPE_CHECKING:
    from catalog.ledger import Ledger
    from catalog.records import BackupSet
    from tapefs.vfs.archive import Archive


@dataclass(frozen=True, slots=True)
class Place:
    """The state folder that the command line named; it need not exist."""

    path: Path

    def home(self) -> Home:
        """Read its settings. Raises HomeError."""
        return open_home(self.path)


@dataclass(frozen=True, slots=True)
class Catalog:
    """What listings look things up in."""

    home: Home
    ledger: Ledger
    archive: Archive

    def any_set(self, text: str) -> BackupSet:
        """Return the set that `text` names; by an id or its beginning also one that is not complete.

        Raises NoSuchThing.
        """
        return self.archive.roster().find_any(text)


@contextmanager
def ledger_of(place: Place) -> Iterator[Ledger]:
    """Open the ledger for reading; no sidecar is needed. Raises HomeError, CatalogError."""
    from catalog.lmdb_ledger import LmdbLedger

    ledger = LmdbLedger.open(place.home().ledger, readonly=True)
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def catalog_of(place: Place) -> Iterator[Catalog]:
    """Open ledger and indexes for reading; no sidecar is needed. Raises HomeError, CatalogError."""
    from tapefs.vfs.archive import Archive

    with ledger_of(place) as ledger:
        home = place.home()
        archive = Archive(home, ledger)
        try:
            yield Catalog(home, ledger, archive)
        finally:
            archive.close()


def split_target(text: str) -> tuple[str, bytes]:
    """Return set and path of SET[:PATH]; the path is empty for the whole set. Job names hold no colon."""
    import os

    name, _, path = text.partition(":")
    return name, os.fsencode(path)
