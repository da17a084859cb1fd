"""The pools that there are. Blocking; reads the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from catalog.ledger import Ledger
from catalog.pool_records import Pool
from catalog.records import Job
from tapefs.errors import NoSuchThing
from tapefs.home import Home

#: Its blank tapes serve every pool that allows it; nothing is written for it.
SCRATCH = "scratch"


class Pools:
    """All pools as they are now: the one of the settings is always there, recorded or not."""

    def __init__(self, recorded: Iterable[Pool], default: str) -> None:
        self._pools = {pool.name: pool for pool in [Pool(name=default), *recorded]}
        #: Name of the pool of the settings.
        self.default = default

    @classmethod
    def of(cls, home: Home, ledger: Ledger) -> Pools:
        """Read them."""
        return cls(ledger.pools(), home.settings.backup.pool)

    def __iter__(self) -> Iterator[Pool]:
        """Go through them by name."""
        return iter(sorted(self._pools.values(), key=lambda pool: pool.name))

    def __contains__(self, name: str) -> bool:
        """Is there a pool of that name?"""
        return name in self._pools

    def find(self, name: str) -> Pool | None:
        """Return the pool of that name; the one of the settings for none."""
        return self._pools.get(name or self.default)

    def get(self, name: str) -> Pool:
        """Return the pool of that name; the one of the settings for none. Raises NoSuchThing."""
        pool = self.find(name)
        if pool is None:
            raise NoSuchThing(f"there is no pool {name}: see `tapefs pool list`, make one with `tapefs pool create`")
        return pool

    def copy_pools_of(self, job: Job) -> tuple[str, ...]:
        """Return where copies of the job's sets go: what its pool says, and what it says itself. Raises NoSuchThing."""
        pool = self.get(job.pool)
        return tuple(dict.fromkeys(name for name in (*pool.copy_pools, *job.copy_pools) if name != pool.name))
