"""Where a command works: the state folder and for listings its catalog, read only; or a sidecar at an address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tapefs.errors import UsageError
from tapefs.home import Home, open_home

if TYPE_CHECKING:
    from catalog.ledger import Ledger
    from catalog.records import BackupSet
    from tapefs.client.address import Address
    from tapefs.client.api import Client
    from tapefs.vfs.archive import Archive


@dataclass(frozen=True, slots=True)
class Place:
    """The state folder that the command line named; it need not exist."""

    folder: Path
    #: Of the sidecar that is asked instead of the folder.
    address: Address | None = None

    @property
    def path(self) -> Path:
        """Return the state folder. Raises UsageError with an address: this command works beside the folder."""
        if self.address is not None:
            raise UsageError(
                f"this works beside the state folder only: run it on the machine of {self.address}, "
                "or without --url and TAPEFS_URL"
            )
        return self.folder

    def home(self) -> Home:
        """Read its settings. Raises HomeError; UsageError as `path`."""
        return open_home(self.path)

    @property
    def is_here(self) -> bool:
        """Is the state folder asked, not a sidecar somewhere?"""
        return self.address is None


@contextmanager
def sidecar_of(place: Place) -> Iterator[Client]:
    """Be with the sidecar at the address, or with that of the state folder, which is started if none runs.

    Raises HomeError, Unreachable.
    """
    if place.address is not None:
        from tapefs.client.api import Client

        with Client(place.address) as client:
            yield client
        return
    from tapefs.client.presence import connected

    with connected(place.home()) as presence:
        yield presence.client


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
