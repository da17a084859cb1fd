"""A ledger of an earlier version, which has no indexes of its jobs: it is read all the same, and gets them once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import JobState
from tests.catalog.builders import NOW, job_of
from tests.catalog.lmdb_tools import dump, raw, run

INDEXES = ("jobs_by_state", "jobs_by_name", "jobs_to_check", "queue")

OPEN = """
import sys
from pathlib import Path
from catalog.lmdb_ledger import LmdbLedger
LmdbLedger.open(Path(sys.argv[1])).close()
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "ledger"
    with LmdbLedger.create(folder, NOW) as ledger:
        for name in ("a", "b", "c"):
            ledger.add_job(job_of(name))
        ledger.queue_job(ledger.jobs()[1].number, NOW)
    with raw(folder) as environment:
        for name in INDEXES:
            with environment.begin(write=True) as transaction:
                transaction.drop(environment.open_db(name.encode(), txn=transaction))
    return folder


def test_it_is_read_without_and_gets_them_when_it_is_opened_for_writing(old: Path) -> None:
    with LmdbLedger.open(old, readonly=True) as ledger:
        assert ledger.verify() == []
        assert [job.name for job in ledger.jobs_in([JobState.QUEUED])] == ["b"]
        assert [job.name for job in ledger.jobs_named("c")] == ["c"]
        assert not ledger.queue_state().is_paused
    with LmdbLedger.open(old) as ledger:
        assert ledger.verify() == []
        assert [job.name for job in ledger.jobs_in([JobState.QUEUED])] == ["b"]
    assert [len(dump(old)[name]) for name in INDEXES[:2]] == [3, 3]


@pytest.mark.parametrize("point", ["before", "after"])
def test_killed_meanwhile(old: Path, point: str, tmp_path: Path) -> None:
    done = tmp_path / "done"
    shutil.copytree(old, done)
    LmdbLedger.open(done).close()
    assert run(OPEN, old, TAPEFS_CRASH_AT=f"ledger.index_jobs.{point}")[0] == -9
    LmdbLedger.open(old).close()
    assert dump(old) == dump(done)


def test_an_index_that_is_wrong_is_found(old: Path) -> None:
    with LmdbLedger.open(old) as ledger:
        ledger.queue_job(ledger.jobs()[0].number, NOW)
    with raw(old) as environment:
        database = environment.open_db(b"jobs_by_state", create=False)
        with environment.begin(write=True) as transaction, transaction.cursor(db=database) as cursor:
            assert cursor.first()
            cursor.delete()
    with LmdbLedger.open(old, readonly=True) as ledger:
        assert any("jobs_by_state" in problem for problem in ledger.verify())
