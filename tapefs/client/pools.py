"""Pools, places and reasons, as the sidecar tells them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from tapefs.client.calling import Ask, Family, Steps, WaitingFamily, call, every, in_path


class PoolFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules of a pool, every one optional: one that is not set stays as it is, or takes its default.

    What they mean stands at `catalog.pool_records.Pool`, the texts of rules at `tapefs.retention.rules`.
    """

    description: str | UnsetType = UNSET
    retention: str | UnsetType = UNSET
    allocation: str | UnsetType = UNSET
    copy_pools: list[str] | UnsetType = UNSET
    use_scratch: bool | UnsetType = UNSET
    reuse: bool | UnsetType = UNSET
    reuse_grace_days: int | UnsetType = UNSET
    vault: str | UnsetType = UNSET
    vault_after_days: int | UnsetType = UNSET

    def changes(self) -> dict[str, object]:
        """Return the fields that are set."""
        values = ((field, getattr(self, field)) for field in PoolFields.__struct_fields__)
        return {field: value for field, value in values if value is not UNSET}


class TapeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a tape when one is to be written."""

    tape: str
    pool: str
    state: str
    #: `begun`, `blank`, `scratch` or `reused`; None: it is not taken.
    source: str | None
    reason: str


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as the sidecar tells it."""

    name: str
    description: str
    retention: str
    allocation: str
    copy_pools: list[str]
    use_scratch: bool
    reuse: bool
    reuse_grace_days: int
    vault: str
    vault_after_days: int
    #: It is the pool of the settings.
    is_default: bool
    #: How many tapes it has, by state.
    tapes: dict[str, int]
    #: Label of the tape that is written next, and what is said of all; only of a pool that is shown alone.
    next: str | None = None
    answers: list[TapeAnswer] = []


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A tape, where it lies, and where it should."""

    tape: str
    pool: str
    #: Empty: in the library.
    location: str
    should: str
    is_due: bool
    reason: str


class _Explained(msgspec.Struct, frozen=True, kw_only=True):
    sentences: list[str]


class _Assigned(msgspec.Struct, frozen=True, kw_only=True):
    tapes: list[str]


#: `list` is a call there.
_Pools = list[PoolView]


class PoolCalls:
    """The calls. Each may raise Unreachable, NoSuchThing, NotNow and UsageError."""

    @call
    @staticmethod
    def list() -> Steps[_Pools]:
        """Ask for all pools, by name."""
        return every("/api/v1/pools", PoolView)

    @call
    @staticmethod
    def show(name: str) -> Ask[PoolView]:
        """Ask for one, and for what is said of its tapes."""
        return Ask("GET", f"/api/v1/pools/{in_path(name)}", None, PoolView)

    @call
    @staticmethod
    def create(name: str, fields: PoolFields) -> Ask[PoolView]:
        """Make a pool."""
        return Ask("POST", "/api/v1/pools", {"name": name, **fields.changes()}, PoolView)

    @call
    @staticmethod
    def edit(name: str, fields: PoolFields) -> Ask[PoolView]:
        """Change the rules of a pool."""
        return Ask("PATCH", f"/api/v1/pools/{in_path(name)}", fields.changes(), PoolView)

    @call
    @staticmethod
    def delete(name: str) -> Ask[None]:
        """Forget a pool that nobody uses."""
        return Ask("DELETE", f"/api/v1/pools/{in_path(name)}", None, type(None))

    @call
    @staticmethod
    def assign(name: str, tapes: Sequence[str]) -> Ask[Sequence[str]]:
        """Put blank tapes into a pool; returns their labels."""
        body = {"tapes": list(tapes)}
        return Ask("POST", f"/api/v1/pools/{in_path(name)}/tapes", body, _Assigned).giving(lambda told: told.tapes)

    @call
    @staticmethod
    def move(tape: str, location: str) -> Ask[None]:
        """Note where a tape lies; empty for the library."""
        return Ask("PUT", f"/api/v1/tapes/{in_path(tape)}/location", {"location": location}, type(None))

    @call
    @staticmethod
    def vault() -> Steps[Sequence[Due]]:
        """Ask where tapes lie, and where they should."""
        return (yield from every("/api/v1/vault", Due))

    @call
    @staticmethod
    def explain(what: str) -> Ask[Sequence[str]]:
        """Ask for all that is to be said of a tape or a set."""
        return Ask("GET", f"/api/v1/explain/{in_path(what)}", None, _Explained).giving(lambda told: told.sentences)


class PoolClient(PoolCalls, Family):
    """The calls, by a blocking client."""


class WaitingPoolClient(PoolCalls, WaitingFamily):
    """The calls, by a trio client."""
