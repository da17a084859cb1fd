"""The operations on pools, and which tape belongs where.

See `catalog.lmdb_ledger` for threads and durability.
"""

from __future__ import annotations

from catalog.ids import VolumeId
from catalog.ledger_store import pools
from catalog.ledger_store.environment import operation
from catalog.lmdb_ledger.base import LmdbBase
from catalog.pool_records import Pool

_PUT_POOL = operation("put_pool")
_DELETE_POOL = operation("delete_pool")
_ASSIGN_VOLUME = operation("assign_volume")
_MOVE_VOLUME = operation("move_volume")


class PoolOperations(LmdbBase):
    """See `catalog.ledger.Ledger` for what they do and raise."""

    def pools(self) -> list[Pool]:
        """Return the pools that were recorded, by name."""
        return self._read(pools.all_by_name)

    def put_pool(self, known: Pool | None, wanted: Pool, now_ns: int) -> Pool:
        """Record a pool, or change the one that is as `known`. Raises Conflict."""
        return self._write(_PUT_POOL, pools.put, known, wanted, now_ns)

    def delete_pool(self, name: str, now_ns: int) -> None:
        """Forget a pool that nobody names. Idempotent. Raises Conflict."""
        self._write(_DELETE_POOL, pools.delete, name, now_ns)

    def assign_volume(self, volume_id: VolumeId, pool: str, now_ns: int) -> None:
        """Put a BLANK tape into a pool. Idempotent. Raises NotFound, Conflict."""
        self._write(_ASSIGN_VOLUME, pools.assign, volume_id, pool, now_ns)

    def move_volume(self, volume_id: VolumeId, location: str, now_ns: int) -> None:
        """Note where a tape lies. Idempotent. Raises NotFound."""
        self._write(_MOVE_VOLUME, pools.move, volume_id, location, now_ns)
