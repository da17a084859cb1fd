"""Whether the pools that a job names can be meant. Pure, but for the ledger that `Pools` was read from."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from catalog.pool_records import RetentionKind
from catalog.records import AS_POOL, Job
from sidecar.http.requests import Invalid
from sidecar.jobs.new import DEMANDED
from tapefs.client.job_fields import JobFields
from tapefs.retention.pools import SCRATCH, Pools


def with_pools(job: Job, fields: JobFields, pools: Pools, *, is_new: bool) -> Job:
    """Return the job with the pools it names checked. Raises Invalid.

    A new one that says nothing of retention leaves that to its pool, if the pool has a rule.
    """
    if fields.pool is not UNSET:
        _check(job.pool or pools.default, "pool", pools)
    if fields.copy_pools is not UNSET:
        for name in job.copy_pools:
            _check(name, "copy_pools", pools)
    if is_new and fields.retention_days is UNSET and "retention_days" not in DEMANDED.get(job.type, {}):
        pool = pools.find(job.pool)
        if pool is not None and pool.retention.kind is not RetentionKind.JOB:
            return msgspec.structs.replace(job, retention_days=AS_POOL)
    return job


def _check(name: str, field: str, pools: Pools) -> None:
    if name == SCRATCH:
        raise Invalid("value_error", ["body", field], "scratch lends its tapes to other pools: name one of those", name)
    if name not in pools:
        message = f"there is no pool {name!r}: see `tapefs pool list`, make one with `tapefs pool create`"
        raise Invalid("value_error", ["body", field], message, name)
