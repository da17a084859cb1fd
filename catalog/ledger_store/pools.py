"""Operations on pools, and on what pool and place a tape is in: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

import msgspec

from catalog.errors import Conflict
from catalog.ids import VolumeId
from catalog.ledger_store import appending, volumes
from catalog.ledger_store.tables import JOBS, POOLS, VOLUMES, text_key
from catalog.ledger_store.transaction import Reader, Writer, plain_text
from catalog.pool_records import Pool
from catalog.records import VolumeState


def all_by_name(tx: Reader) -> list[Pool]:
    """Return all pools that are recorded, by name."""
    return sorted((pool for _, pool in tx.scan(POOLS)), key=lambda pool: pool.name)


def put(tx: Writer, known: Pool | None, wanted: Pool, now_ns: int) -> Pool:
    """Record a pool, or change the one that is as `known`; the same again is harmless. Raises Conflict."""
    key = text_key(wanted.name)
    there = tx.find(POOLS, key)
    made_ns = there.created_at_ns if there is not None else now_ns
    stored = msgspec.structs.replace(wanted, description=plain_text(wanted.description), created_at_ns=made_ns)
    if there == stored:
        return stored
    if known is None and there is not None:
        raise Conflict(f"there is a pool {wanted.name} already, with other rules")
    if known is not None and there != known:
        raise Conflict(f"pool {wanted.name} was changed by somebody else meanwhile: look at it again")
    tx.put(POOLS, key, stored)
    tx.tell("pool.added" if there is None else "pool.changed", stored.name, "", now_ns)
    return stored


def delete(tx: Writer, name: str, now_ns: int) -> None:
    """Forget a pool; harmless when there is none. Raises Conflict while a tape, a job or another pool names it."""
    if tx.find(POOLS, text_key(name)) is None:
        return
    users = [f"tape {volume.label}" for _, volume in tx.scan(VOLUMES) if volume.pool == name]
    users += [f"job {job.number}" for _, job in tx.scan(JOBS) if name in (job.pool, *job.copy_pools)]
    users += [f"pool {pool.name}" for _, pool in tx.scan(POOLS) if name in pool.copy_pools]
    if users:
        more = f" and {len(users) - 1} more" if len(users) > 1 else ""
        raise Conflict(f"pool {name} is still used by {users[0]}{more}")
    tx.delete(POOLS, text_key(name))
    tx.tell("pool.deleted", name, "", now_ns)


def assign(tx: Writer, volume_id: VolumeId, pool: str, now_ns: int) -> None:
    """Put a blank tape into a pool; harmless when it is in it. Raises NotFound; Conflict once it has a label."""
    volume = volumes.get(tx, volume_id)
    if volume.pool == pool:
        return
    if volume.state is not VolumeState.BLANK or appending.intents_on(tx, volume_id):
        state = "being labelled" if volume.state is VolumeState.BLANK else volume.state.value
        raise Conflict(f"tape {volume.label} is {state}: it stays in pool {volume.pool}, as its label says")
    tx.put(VOLUMES, text_key(volume_id), msgspec.structs.replace(volume, pool=pool))
    tx.tell("volume.pool", volume_id, pool, now_ns)


def move(tx: Writer, volume_id: VolumeId, location: str, now_ns: int) -> None:
    """Note where a tape lies; empty: in the library. Harmless when it is noted. Raises NotFound."""
    volume = volumes.get(tx, volume_id)
    moved = msgspec.structs.replace(volume, location=plain_text(location))
    if moved == volume:
        return
    tx.put(VOLUMES, text_key(volume_id), moved)
    tx.tell("volume.location", volume_id, moved.location, now_ns)
