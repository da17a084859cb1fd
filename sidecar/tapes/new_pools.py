"""What makes a pool acceptable: the only place that checks. Pure, but for the ledger that `Pools` was read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import msgspec

from catalog.pool_records import Pool
from sidecar.http.requests import Invalid
from tapefs.client.pools import PoolFields
from tapefs.errors import UsageError
from tapefs.retention.pools import SCRATCH, Pools
from tapefs.retention.rules import MOST_DAYS, allocation_rule, retention_rule

LONGEST_NAME = 64
LONGEST_TEXT = 1000
MOST_COPY_POOLS = 8


def check_name(name: str) -> str:
    """Return the name of a new pool. Raises Invalid."""
    if not name or name != name.strip() or "/" in name or not name.isprintable() or len(name) > LONGEST_NAME:
        _refuse("name", f"must be 1 to {LONGEST_NAME} printable characters without a slash or blanks around them", name)
    return name


def changed_pool(pool: Pool, fields: PoolFields, pools: Pools) -> Pool:
    """Return the pool with what `fields` sets, checked. Raises Invalid."""
    changes = fields.changes()
    if isinstance(fields.retention, str):
        changes["retention"] = _rule("retention", retention_rule, fields.retention)
    if isinstance(fields.allocation, str):
        changes["allocation"] = _rule("allocation", allocation_rule, fields.allocation)
    if isinstance(fields.copy_pools, list):
        changes["copy_pools"] = _copy_pools(pool.name, fields.copy_pools, pools)
    for field in ("description", "vault"):
        if field in changes:
            changes[field] = check_text(str(changes[field]), field)
    for field in ("reuse_grace_days", "vault_after_days"):
        days = changes.get(field)
        if isinstance(days, int) and not 0 <= days <= MOST_DAYS:
            _refuse(field, f"must be 0 to {MOST_DAYS} days", days)
    changed = msgspec.structs.replace(pool, **changes)
    if pool.name == SCRATCH and _rules(changed) != _rules(Pool(name=SCRATCH)):
        _refuse("name", f"pool {SCRATCH} has no rules: those of the pool count that takes a tape from it", pool.name)
    if changed.vault_after_days and not changed.vault:
        _refuse("vault_after_days", "means nothing without a vault", changed.vault_after_days)
    return changed


def check_text(text: str, field: str) -> str:
    """Return a text for people without blanks around it. Raises Invalid."""
    plain = text.strip()
    if len(plain) > LONGEST_TEXT or not plain.isprintable():
        _refuse(field, f"must be at most {LONGEST_TEXT} printable characters", text)
    return plain


def _rules(pool: Pool) -> Pool:
    return msgspec.structs.replace(pool, description="", created_at_ns=0)


def _rule(field: str, parse: Callable[[str], object], text: str) -> object:
    try:
        return parse(text)
    except UsageError as error:
        raise Invalid("value_error", ["body", field], str(error), text) from error


def _copy_pools(own: str, names: list[str], pools: Pools) -> tuple[str, ...]:
    if len(names) > MOST_COPY_POOLS:
        _refuse("copy_pools", f"must name at most {MOST_COPY_POOLS}", names)
    for name in names:
        if name in (own, SCRATCH):
            _refuse("copy_pools", f"copies cannot go to {name}: name another pool", name)
        if name not in pools:
            _refuse("copy_pools", f"there is no pool {name!r}: make it first", name)
    return tuple(dict.fromkeys(names))


def _refuse(field: str, message: str, value: object) -> NoReturn:
    raise Invalid("value_error", ["body", field], message, value)
