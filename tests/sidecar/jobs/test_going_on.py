"""What becomes of runs that stop: how often they are tried, after how long, and when that ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from catalog.ids import JobNumber
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import JobState, SetState
from sidecar.jobs import going_on
from tapefs.home import Home
from tests.catalog.builders import job_of
from tests.sidecar import seeds
from tests.sidecar.rig import make_home

S = 10**9


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


@pytest.fixture
def ledger(home: Home) -> Iterator[LmdbLedger]:
    with LmdbLedger.open(home.ledger) as ledger:
        yield ledger


def begun(ledger: LmdbLedger, **fields: object) -> JobNumber:
    number = ledger.add_job(replace(job_of("job"), **fields)).number
    seeds.begin(ledger, ledger.queue_job(number, S), S)
    return number


def go_on(ledger: LmdbLedger, number: JobNumber, now_ns: int) -> None:
    set_id = ledger.job(number).set_id
    assert set_id is not None
    ledger.resume_set(set_id, now_ns)


def test_a_run_that_ends_the_sidecar_each_time_is_not_run_for_ever(home: Home, ledger: LmdbLedger) -> None:
    number = begun(ledger)
    for count, pause_s in enumerate((0, 10, 60), start=1):
        job = going_on.interrupt(home, ledger, number, "killed", count * 1000 * S)
        assert (job.state, len(job.tries)) == (JobState.QUEUED, count)
        assert job.not_before_ns == (count * 1000 + pause_s) * S
        go_on(ledger, number, S)
    job = going_on.interrupt(home, ledger, number, "killed", 4000 * S)
    assert job.state is JobState.FAILED
    assert job.error.startswith("interrupted 4 times, and nothing was brought to tape between")
    assert f"`tapefs job resume {number}`" in job.error
    assert ledger.queue_job(number, 5000 * S, resume=True).tries == ()


def test_a_run_that_gets_on_is_interrupted_as_often_as_need_be(home: Home, ledger: LmdbLedger) -> None:
    number = begun(ledger)
    set_id = ledger.job(number).set_id
    assert set_id is not None
    tape = ledger.volumes()[0].volume_id
    claim = ledger.claim_volume(tape)
    for count in range(6):
        if count == 0:
            seeds._open(ledger, ledger.backup_set(set_id), tape, claim, str(tape), seeds.IntentKind.LABEL)
            ledger.label_volume(tape, claim, seeds.end_of(4, 2), S)
        seeds._commit(ledger, ledger.backup_set(set_id), tape, claim, count, 8, (2, 2))
        assert going_on.interrupt(home, ledger, number, "killed", (count + 1) * S).state is JobState.QUEUED
        go_on(ledger, number, S)


@pytest.mark.parametrize("kind", ["usage", "no_volume", "damaged", "internal", "catalog", "refused", "wrong_tape", ""])
def test_what_does_not_pass_is_not_tried_again(home: Home, ledger: LmdbLedger, kind: str) -> None:
    number = begun(ledger, retries=5)
    assert going_on.fail(home, ledger, number, "no", kind, S).state is JobState.FAILED


def test_pauses_grow_to_the_longest(home: Home, ledger: LmdbLedger) -> None:
    number = begun(ledger, retries=4, retry_first_s=60, retry_longest_s=200)
    for count, pause_s in enumerate((60, 120, 200, 200)):
        job = going_on.fail(home, ledger, number, "gone", "source", count)
        assert (job.state, job.not_before_ns) == (JobState.QUEUED, pause_s * S + count)
        assert ledger.backup_set(job.set_id).state is SetState.FAILED  # type: ignore[arg-type]
        go_on(ledger, number, S)
    job = going_on.fail(home, ledger, number, "gone", "source", 9 * S)
    assert (job.state, job.error) == (JobState.FAILED, "gone (tried 5 times)")
