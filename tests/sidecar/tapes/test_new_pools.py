"""What makes a pool, and the pools of a job, acceptable."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.pool_records import Pool, RetentionKind, RetentionRule
from catalog.records import AS_POOL
from sidecar.http.requests import Invalid
from sidecar.jobs.pools import with_pools
from sidecar.tapes.new_pools import changed_pool, check_name
from tapefs.client.job_fields import JobFields, asked_of
from tapefs.client.pools import PoolFields
from tapefs.retention.pools import SCRATCH, Pools
from tapefs.retention.rules import allocation_text, retention_text
from tests.catalog.builders import job_of

KEEPS = Pool(name="keeps", retention=RetentionRule(kind=RetentionKind.DAYS, count=30), copy_pools=("far",))
POOLS = Pools([KEEPS, Pool(name="far"), Pool(name=SCRATCH)], "default")


def test_what_is_not_named_stays() -> None:
    fields = PoolFields(
        retention="6m", allocation="per weekly", copy_pools=["far", "far"], reuse=True, vault=" Berlin "
    )
    changed = changed_pool(Pool(name="p", reuse_grace_days=3, vault_after_days=0), fields, POOLS)
    assert (retention_text(changed.retention), allocation_text(changed.allocation)) == ("6 months", "per weekly")
    assert (changed.copy_pools, changed.reuse, changed.reuse_grace_days, changed.vault) == (("far",), True, 3, "Berlin")
    assert changed_pool(changed, PoolFields(), POOLS) == changed
    assert changed_pool(changed, PoolFields(copy_pools=[]), POOLS).copy_pools == ()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"retention": "6 weeks"}, "retention"),
        ({"allocation": "per Blursday"}, "allocation"),
        ({"copy_pools": ["p"]}, "copy_pools"),
        ({"copy_pools": ["nope"]}, "copy_pools"),
        ({"copy_pools": [SCRATCH]}, "copy_pools"),
        ({"copy_pools": ["far"] * 9}, "copy_pools"),
        ({"reuse_grace_days": -1}, "reuse_grace_days"),
        ({"reuse_grace_days": 40_000}, "reuse_grace_days"),
        ({"vault_after_days": 3}, "vault_after_days"),
        ({"vault": "a\nb"}, "vault"),
        ({"description": "x" * 1001}, "description"),
    ],
)
def test_what_a_pool_cannot_be(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        changed_pool(Pool(name="p"), PoolFields(**fields), POOLS)
    assert caught.value.problem["loc"] == ["body", field]


def test_scratch_has_no_rules() -> None:
    assert changed_pool(Pool(name=SCRATCH), PoolFields(description="blank ones"), POOLS).description == "blank ones"
    for fields in (PoolFields(reuse=True), PoolFields(retention="1d"), PoolFields(vault="Berlin")):
        with pytest.raises(Invalid, match="has no rules"):
            changed_pool(Pool(name=SCRATCH), fields, POOLS)


@pytest.mark.parametrize("name", ["", " a", "a/b", "a\tb", "x" * 65])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(Invalid):
        check_name(name)


@pytest.mark.parametrize(
    ("job", "fields", "days"),
    [
        ({"pool": "keeps"}, {"pool": "keeps"}, AS_POOL),
        ({"pool": "keeps", "retention_days": 0}, {"pool": "keeps", "retention_days": 0}, 0),
        ({"pool": "far"}, {"pool": "far"}, 0),
        ({}, {}, 0),
        ({"pool": "keeps", "type": "archive"}, {"pool": "keeps"}, 0),
    ],
)
def test_a_new_job_leaves_its_retention_to_a_pool_with_a_rule(
    job: dict[str, Any], fields: dict[str, Any], days: int
) -> None:
    made = with_pools(job_of("job", **job), JobFields(**fields), POOLS, is_new=True)
    assert made.retention_days == days
    edited = with_pools(job_of("job", **job), JobFields(**fields), POOLS, is_new=False)
    assert edited.retention_days == 0, "a job that is there keeps what it asked for"


@pytest.mark.parametrize("fields", [{"pool": "nope"}, {"pool": SCRATCH}, {"copy_pools": ["far", "nope"]}])
def test_pools_that_a_job_cannot_name(fields: dict[str, Any]) -> None:
    job = job_of("job", **{name: tuple(value) if name == "copy_pools" else value for name, value in fields.items()})
    with pytest.raises(Invalid):
        with_pools(job, JobFields(**fields), POOLS, is_new=True)


def test_as_the_pool_says_is_a_word() -> None:
    assert JobFields(retention_days="pool").changes() == {"retention_days": AS_POOL}
    assert asked_of(job_of("job", retention_days=AS_POOL))["retention_days"] == "pool"
    assert asked_of(job_of("job", retention_days=3))["retention_days"] == 3


def test_copies_go_where_pool_and_job_say() -> None:
    assert POOLS.copy_pools_of(job_of("job", pool="keeps", copy_pools=("default", "keeps", "far"))) == (
        "far",
        "default",
    )
    assert POOLS.copy_pools_of(job_of("job", copy_pools=("default",))) == ()
