"""A ledger of an earlier version, without indexes of jobs and their sets: it is read all the same, and gets them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import JobState
from tests.catalog.builders import NOW, job_of, started
from tests.catalog.lmdb_tools import dump, raw, run

INDEXES = ("jobs_by_state", "jobs_by_name", "sets_by_job", "jobs_to_check", "queue")

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
        for name in ("d", "e"):
            started(ledger, name)
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
        (job,) = ledger.jobs_named("d")
        assert [each.set_id for each in ledger.sets_of(job.job_id)] == [job.set_id]
        assert not ledger.queue_state().is_paused
    with LmdbLedger.open(old) as ledger:
        assert ledger.verify() == []
        assert [job.name for job in ledger.jobs_in([JobState.QUEUED])] == ["b"]
        assert [each.set_id for each in ledger.sets_of(job.job_id)] == [job.set_id]
    assert [len(dump(old)[name]) for name in INDEXES[:3]] == [5, 5, 2]


@pytest.mark.parametrize("index", ["jobs", "sets"])
@pytest.mark.parametrize("point", ["before", "after"])
def test_killed_meanwhile(old: Path, index: str, point: str, tmp_path: Path) -> None:
    done = tmp_path / "done"
    shutil.copytree(old, done)
    LmdbLedger.open(done).close()
    assert run(OPEN, old, TAPEFS_CRASH_AT=f"ledger.index_{index}.{point}")[0] == -9
    LmdbLedger.open(old).close()
    assert dump(old) == dump(done)


@pytest.mark.parametrize("name", ["jobs_by_state", "sets_by_job"])
def test_an_index_that_is_wrong_is_found(old: Path, name: str) -> None:
    with LmdbLedger.open(old) as ledger:
        ledger.queue_job(ledger.jobs()[0].number, NOW)
    with raw(old) as environment:
        database = environment.open_db(name.encode(), create=False)
        with environment.begin(write=True) as transaction, transaction.cursor(db=database) as cursor:
            assert cursor.first()
            cursor.delete()
    with LmdbLedger.open(old, readonly=True) as ledger:
        assert any(name in problem for problem in ledger.verify())
