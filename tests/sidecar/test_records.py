"""Records of the ledger that cannot be read: the sidecar starts without them, tells of them, and leaves them alone."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from catalog.ids import SetId, new_uuid
from catalog.ledger_store.tables import job_key, text_key
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import JobState, SetState
from catalog.task_records import TaskFamily
from sidecar.recovery import recover
from tapefs.home import Home
from tests.catalog.builders import job_of, pin_of, segment_of, set_of, uuid_of
from tests.catalog.ledger_steps import NIGHTLY, RECOVERY, RUN, STAGE, TASK
from tests.catalog.lmdb_tools import dump, store
from tests.sidecar.rig import make_home, running, wait_until

TABLES = ("schedules", "schedule_runs", "tasks", "recoveries", "pins", "stage_requests", "jobs")


def spoil_all(home: Home) -> dict[str, list[tuple[bytes, bytes]]]:
    """Have every record of TABLES be what no ledger has written; return them as they are then."""
    for table in TABLES:
        for key, value in dump(home.ledger)[table]:
            store(home.ledger, table, key, value[:-1] + bytes([value[-1] ^ 1]))
    return {table: dump(home.ledger)[table] for table in TABLES}


def test_the_sidecar_starts_without_what_cannot_be_read(tmp_path: Path) -> None:
    """Of everything that it takes up at its start one record: none is begun, changed or forgotten; new ones work."""
    home = make_home(tmp_path / "home")
    with LmdbLedger.open(home.ledger) as ledger:
        now_ns = time.time_ns()
        ledger.queue_job(ledger.add_job(job_of("damaged")).number, now_ns)
        ledger.put_schedule(None, NIGHTLY, now_ns)
        ledger.plan_schedule_runs(NIGHTLY.number, NIGHTLY.course.decided_ns, now_ns, [RUN], now_ns)
        for family in TaskFamily:
            ledger.add_task(msgspec.structs.replace(TASK, task_id=new_uuid(), family=family))
        ledger.put_recovery(RECOVERY)
        ledger.put_stage_request(STAGE)
        pin = pin_of("pin", segment_of("segment", set_of("set", job_of("damaged")), 0), (0, 1))
        ledger.put_pin(msgspec.structs.replace(pin, expires_at_ns=now_ns + 10**15))
    spoilt = spoil_all(home)
    with running(home) as rig:
        wait_until(lambda: "records of the ledger" in rig.unix("GET", "/health").body.get("troubles", {}), "not told")
        told = rig.unix("GET", "/health").body["troubles"]["records of the ledger"]
        assert "jobs['" in told
        assert f"and {len(TABLES) + len(TaskFamily) - 1 - 3} more" in told
        assert rig.unix("GET", "/health").body["status"] == "degraded"
        for target in ("jobs", "schedules", "restores", "verify"):
            listed = rig.unix("GET", f"/api/v1/{target}")
            assert (listed.status, listed.body) == (200, []), target
            assert int(listed.headers["x-unreadable-count"]) >= 1, target
        rig.wait_job(rig.submit("ok"), "completed")
    log = (home.path / "stderr.log").read_text()
    assert log.count("a record cannot be read, the others are worked with") >= len(TABLES)
    after = dump(home.ledger)
    for table in TABLES:
        assert [each for each in after[table] if each in spoilt[table]] == spoilt[table], table


@pytest.mark.log_warnings
def test_what_is_interrupted_is_brought_to_its_end_beside_a_damaged_job(tmp_path: Path) -> None:
    """Its set fails, and stays: its job may go on with it, for all that anybody knows."""
    home = make_home(tmp_path / "home")
    with LmdbLedger.open(home.ledger) as ledger:
        numbers = []
        for name in ("damaged", "sound"):
            number = ledger.add_job(job_of(name)).number
            ledger.queue_job(number, 1)
            ledger.begin_set(set_of(name, ledger.job(number)))
            numbers.append(number)
    key = job_key(numbers[0])
    value = dict(dump(home.ledger)["jobs"])[key]
    store(home.ledger, "jobs", key, value[:-1] + bytes([value[-1] ^ 1]))
    with LmdbLedger.open(home.ledger) as ledger:
        recover(home, ledger, time.time_ns())
        assert [each.state for each in ledger.backup_sets()] == [SetState.FAILED] * 2
        assert ledger.job(numbers[1]).state is JobState.QUEUED
    assert dict(dump(home.ledger)["jobs"])[key] == value[:-1] + bytes([value[-1] ^ 1])


@pytest.mark.log_warnings
def test_a_damaged_set_keeps_no_other_from_its_end(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with LmdbLedger.open(home.ledger) as ledger:
        for name in ("damaged", "sound"):
            number = ledger.add_job(job_of(name)).number
            ledger.queue_job(number, 1)
            ledger.begin_set(set_of(name, ledger.job(number)))
    damaged, sound = (SetId(uuid_of(name)) for name in ("damaged", "sound"))
    value = dict(dump(home.ledger)["sets"])[text_key(damaged)]
    store(home.ledger, "sets", text_key(damaged), value[:-1] + bytes([value[-1] ^ 1]))
    with LmdbLedger.open(home.ledger) as ledger:
        recover(home, ledger, time.time_ns())
        assert ledger.backup_set(sound).state is SetState.FAILED
        assert [each.set_id for each in ledger.readable_sets()] == [sound]
        assert [kind for kind, _ in ledger.unreadable_records()] == ["sets"]
