"""LMDB notices hardly any damage itself; the ledger must notice all of it in its records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import lmdb
import pytest

from catalog.errors import Damaged
from catalog.ids import SetId
from catalog.ledger_store.tables import DATABASES, text_key
from catalog.ledger_store.transaction import Reader
from catalog.ledger_store.verify import problems
from catalog.lmdb_ledger import LmdbLedger
from catalog.pool_records import Pool
from catalog.records import CopyState, JobState
from tests.catalog.builders import NOW, Stage, credential_of, end_of, index_of, job_of, pin_of, set_of, staged, user_of
from tests.catalog.contract_notices import new_of
from tests.catalog.ledger_steps import HELD, MOUNTING, NIGHTLY, RECOVERY, RUN, STAGE, TASK
from tests.catalog.lmdb_tools import Dump, dump, raw, store


@pytest.fixture
def stage(ledger: LmdbLedger) -> Stage:
    """A closed ledger with a record in every database."""
    stage = staged(ledger)
    segment = stage.commit(ledger, "segment", 0, 4, 2)
    ledger.mark_copy(segment.segment_id, stage.volume.volume_id, CopyState.DAMAGED, NOW)
    index = index_of("index", stage.backup_set, stage.volume, 10, 5)
    ledger.commit_index(index, stage.claim, end_of(12, 6), NOW)
    number = ledger.add_job(job_of("checked", then_verify="all")).number
    ledger.queue_job(number, NOW)
    checked = ledger.begin_set(set_of("checked set", ledger.job(number)))
    Stage(stage.volume, stage.claim, ledger.job(number), checked).seal(ledger, "checked index", 12, 6)
    ledger.complete_set(checked.set_id, NOW)
    ledger.finish_job(number, JobState.COMPLETED, "", NOW)
    ledger.open_intent(stage.intent("next", block=14), stage.claim)
    ledger.put_pool(None, Pool(name="monthly"), NOW)
    ledger.note_mounting(MOUNTING)
    ledger.add_credential(credential_of("session", ledger.put_user(None, user_of("ada"), NOW)))
    ledger.put_pin(pin_of("pin", ledger.segments(stage.backup_set.set_id)[0], (0, 1)))
    ledger.put_stage_request(STAGE)
    ledger.add_task(TASK)
    ledger.put_recovery(RECOVERY)
    ledger.hold_queue(HELD)
    ledger.put_schedule(None, NIGHTLY, NOW)
    ledger.plan_schedule_runs(NIGHTLY.number, NOW, NOW + 1, [RUN], NOW)
    ledger.post_notices([new_of("delivered and given up", channels=("mail", "ops"), raises="drive.failed drive0")])
    ledger.note_delivery(ledger.deliveries("mail")[0], NOW + 1)
    ledger.note_delivery(ledger.deliveries("ops")[0], NOW + 2, "nobody answers")
    assert ledger.verify() == []
    ledger.close()
    return stage


@contextmanager
def spoiling(folder: Path) -> Iterator[Callable[[str, bytes, bytes | None], list[str]]]:
    """Give a function that changes or deletes one value, reads the whole ledger and returns what was noticed."""
    with raw(folder) as environment:
        databases = {name: environment.open_db(name.encode(), create=False) for name in DATABASES}

        def spoil(name: str, key: bytes, value: bytes | None) -> list[str]:
            transaction: lmdb.Transaction[bytes] = environment.begin(write=True)
            try:
                if value is None:
                    assert transaction.delete(key, db=databases[name])
                else:
                    assert transaction.put(key, value, db=databases[name])
                return problems(Reader(transaction, databases))
            finally:
                transaction.abort()

        yield spoil


def _everything(folder: Path) -> Dump:
    values = dump(folder)
    assert all(values.values()), "every database should have a record"
    return values


def test_a_flipped_bit_in_any_stored_byte_is_noticed(folder: Path, stage: Stage) -> None:
    """Every byte of every value of every database, put back through LMDB with one bit flipped."""
    values, flips = _everything(folder), 0
    with spoiling(folder) as spoil:
        for name in DATABASES:
            for key, value in values[name]:
                assert spoil(name, key, value) == []
                for offset in range(len(value)):
                    flipped = bytearray(value)
                    flipped[offset] ^= 1 << offset % 8
                    assert spoil(name, key, bytes(flipped)), f"{name} {key!r}: byte {offset} changed unnoticed"
                    flips += 1
    assert flips > 3000


def test_values_under_each_others_keys_are_noticed(folder: Path, stage: Stage) -> None:
    """LMDB would hand them out as if nothing had happened."""
    values = [(name, key, value) for name, pairs in _everything(folder).items() for key, value in pairs]
    with spoiling(folder) as spoil:
        for (name, key, _), (_, _, other) in pairwise(values):
            assert spoil(name, key, other)


def test_a_lost_record_is_noticed(folder: Path, stage: Stage) -> None:
    values = _everything(folder)
    # A pin or a request to stage has no second witness: who loses one loses a wish, and asks again. Nor has a pool:
    # jobs go on with the rules of one that was never recorded, and no tape of it is overwritten by itself. Nor has the
    # hold on the queue, which goes on then, nor a schedule's run, which is history. A lost credential lets nobody in.
    # Who asked for a task that is lost asks again.
    alone = {"meta", "events", "intents", "index_copies", "pins", "pools", "queue", "stage_requests", "schedule_runs"}
    alone |= {"recoveries"}  # Whoever wants the files asks again.
    # What people were told already, what they are to be told still, how often that went well, and what they know of
    # stand for themselves: who loses one is told once too few or once too often.
    alone |= {"credentials", "tasks", "notices", "deliveries", "channels", "conditions"}
    with spoiling(folder) as spoil:
        for name in set(DATABASES) - alone:
            for key, _ in values[name]:
                assert spoil(name, key, None), f"{name} {key!r} lost unnoticed"


def test_damage_names_table_and_key(folder: Path, stage: Stage) -> None:
    set_id: SetId = stage.backup_set.set_id
    key = text_key(set_id)
    value = dict(dump(folder)["sets"])[key]
    store(folder, "sets", key, value[:-1] + b"\xc1")
    with LmdbLedger.open(folder) as ledger:
        for ask in (lambda: ledger.backup_set(set_id), ledger.backup_sets, lambda: ledger.complete_set(set_id, NOW)):
            with pytest.raises(Damaged) as caught:
                ask()
            assert caught.value.where == f"sets['{set_id}']"
        assert len(ledger.volumes()) == 1, "the rest can be read"


def test_a_pointer_to_nothing_is_damage(folder: Path, stage: Stage) -> None:
    store(folder, "volumes", text_key(stage.volume.volume_id), None)
    with LmdbLedger.open(folder) as ledger:
        with pytest.raises(Damaged, match="points to a record that is missing"):
            ledger.volume_by_label(stage.volume.label)
        assert ledger.verify() != []
