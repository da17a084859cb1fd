"""The index of segments without a good copy: of a ledger of an earlier version, of a wrong one, of one that is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from catalog.errors import Damaged
from catalog.ids import SetId
from catalog.ledger_store.tables import DAMAGED_SEGMENTS_KEY
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import CopyState
from tests.catalog.builders import NOW, staged
from tests.catalog.lmdb_tools import dump, raw, run, store
from tests.catalog.test_job_indexes import OPEN

TABLE = "damaged_segments"


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, SetId]:
    """A ledger with one segment that has no good copy, and one that has, and the set of both."""
    folder = tmp_path / "ledger"
    with LmdbLedger.create(folder, NOW) as ledger:
        stage = staged(ledger)
        bad = stage.commit(ledger, "bad", 0, 4, 2)
        stage.commit(ledger, "good", 1, 10, 5)
        ledger.mark_copy(bad.segment_id, stage.volume.volume_id, CopyState.DAMAGED, NOW)
    return folder, stage.backup_set.set_id


@pytest.fixture
def old(made: tuple[Path, SetId]) -> tuple[Path, SetId]:
    """The same as an earlier version leaves it."""
    store(made[0], "meta", DAMAGED_SEGMENTS_KEY, None)
    with raw(made[0]) as environment, environment.begin(write=True) as transaction:
        transaction.drop(environment.open_db(TABLE.encode(), txn=transaction))
    return made


def test_an_old_ledger_is_read_without_and_gets_it_when_it_is_opened_for_writing(old: tuple[Path, SetId]) -> None:
    folder, set_id = old
    with LmdbLedger.open(folder, readonly=True) as ledger:
        assert ledger.verify() == []
        assert ledger.damaged_sets() == {set_id}
    LmdbLedger.open(folder).close()
    assert len(dump(folder)[TABLE]) == 1
    with LmdbLedger.open(folder, readonly=True) as ledger:
        assert ledger.verify() == []
        assert ledger.damaged_sets() == {set_id}


@pytest.mark.parametrize("point", ["before", "after"])
def test_killed_meanwhile(old: tuple[Path, SetId], point: str, tmp_path: Path) -> None:
    folder, done = old[0], tmp_path / "done"
    shutil.copytree(folder, done)
    LmdbLedger.open(done).close()
    assert run(OPEN, folder, TAPEFS_CRASH_AT=f"ledger.index_damage.{point}")[0] == -9
    LmdbLedger.open(folder).close()
    assert dump(folder) == dump(done)


def test_an_index_that_lacks_a_segment_is_found_and_not_trusted_by_who_asks_the_copies(
    made: tuple[Path, SetId],
) -> None:
    folder, set_id = made
    ((key, _),) = dump(folder)[TABLE]
    store(folder, TABLE, key, None)
    with LmdbLedger.open(folder) as ledger:
        assert ["lacks segment" in problem for problem in ledger.verify()] == [True]
        assert ledger.damaged_sets() == frozenset()
        assert ledger.damaged_sets(by_copies=True) == {set_id}


def test_an_index_that_names_a_whole_segment_is_found(made: tuple[Path, SetId]) -> None:
    folder, _ = made
    with LmdbLedger.open(folder) as ledger:
        (copy,) = (each for each in ledger.copies_on(ledger.volumes()[0].volume_id) if each.state is CopyState.DAMAGED)
    entries = dump(folder)[TABLE]
    with LmdbLedger.open(folder) as ledger:
        ledger.mark_copy(copy.segment_id, copy.volume_id, CopyState.GOOD, NOW)
    store(folder, TABLE, *entries[0])
    with LmdbLedger.open(folder) as ledger:
        assert ["has a good copy" in problem for problem in ledger.verify()] == [True]


@pytest.mark.parametrize("what", [TABLE, "meta"])
def test_an_index_that_cannot_be_read_is_done_without(made: tuple[Path, SetId], what: str) -> None:
    folder, set_id = made
    key, value = next(each for each in dump(folder)[what] if what == TABLE or each[0] == DAMAGED_SEGMENTS_KEY)
    store(folder, what, key, value[:-1] + bytes([value[-1] ^ 1]))
    with LmdbLedger.open(folder, readonly=True) as ledger:
        assert ledger.verify() != []
        assert ledger.damaged_sets() == {set_id}


def test_a_damaged_copy_keeps_no_old_ledger_closed(old: tuple[Path, SetId]) -> None:
    """The index cannot be made then; who needs the copy is told."""
    folder, _ = old
    key, value = dump_without_index(folder, "copies")[0]
    store(folder, "copies", key, value[:-1] + bytes([value[-1] ^ 1]))
    with LmdbLedger.open(folder) as ledger:
        assert len(ledger.backup_sets()) == 1
        with pytest.raises(Damaged, match="copies"):
            ledger.damaged_sets()


def dump_without_index(folder: Path, name: str) -> list[tuple[bytes, bytes]]:
    with raw(folder) as environment:
        database = environment.open_db(name.encode(), create=False)
        with environment.begin() as transaction:
            return list(transaction.cursor(db=database))
