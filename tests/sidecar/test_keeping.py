"""Parts of the sidecar that fail unexpectedly, and records of the ledger that are damaged: the rest goes on."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from catalog.ids import JobNumber
from catalog.ledger_store.tables import job_key, schedule_key
from catalog.schedule_records import ScheduleNumber
from sidecar.keeping import LONGEST_PAUSE_S, SHOWN_S, Keeping
from tapefs.home import Home
from tapefs.mount.recalls import Recalls, Wanted
from tapefs.mount.sidecar_link import SidecarLink
from tests.catalog.lmdb_tools import dump, store
from tests.mount.test_recalls import CALLER, SEGMENT, FakeLink
from tests.sidecar.rig import Rig, make_home, running, wait_until
from tests.sidecar.schedules.test_schedules import URL, make, run


@pytest.mark.log_warnings
async def test_a_part_that_fails_is_begun_again_and_the_others_go_on(autojump_clock: trio.testing.MockClock) -> None:
    """Ever later, up to a minute; it is told as long as it was lately, and a cancel ends all at once."""
    keeping, began, ticks = Keeping(), [], 0

    async def broken() -> None:
        began.append(trio.current_time())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            if len(began) < 10:
                raise KeyError("one record")

    async def sound() -> None:
        nonlocal ticks
        while True:
            await trio.sleep(1)
            ticks += 1

    async def ends() -> None:
        """A part that has nothing more to do."""

    async with trio.open_nursery() as nursery:
        for name, part in (("broken", broken), ("sound", sound), ("ends", ends)):
            nursery.start_soon(keeping.keep, name, part)
        await trio.sleep(30.5)
        assert keeping.troubles() == {"broken": "KeyError: 'one record'"}
        await trio.sleep(300)
        assert len(began) == 10
        pauses = [round(after - before) for before, after in pairwise(began)]
        assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
        await trio.sleep(SHOWN_S)
        assert keeping.troubles() == {}
        assert ticks == int(trio.current_time())
        nursery.cancel_scope.cancel()


@pytest.mark.log_warnings
async def test_who_waits_for_tape_is_asked_for_again_when_that_part_has_failed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What came from tape in the meantime is told to nobody: so all who wait are posted once more."""
    async with trio.open_nursery() as nursery:
        keeping, link, results = Keeping(), FakeLink(), []
        waits, is_staged = Recalls(cast(SidecarLink, link), 10, 10), False

        async def wait(first: int) -> None:
            await waits.wait(Wanted(SEGMENT, first, first), CALLER, math.inf, lambda: is_staged)
            results.append(first)

        nursery.start_soon(keeping.keep, "reads", waits.run)
        nursery.start_soon(wait, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert [message.first for message in link.posted] == [3]
        link.bug = KeyError("nobody expected it")
        nursery.start_soon(wait, 5)
        await trio.testing.wait_all_tasks_blocked()
        assert keeping.troubles() == {"reads": "KeyError: 'nobody expected it'"}
        link.bug = None
        await trio.sleep(2)
        assert {message.first for message in link.posted[1:]} == {3, 5}
        is_staged = True
        link.tell(0, 9)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(results) == [3, 5]
        nursery.cancel_scope.cancel()


def health(rig: Rig) -> Any:
    return rig.unix("GET", "/health").body


def spoil(home: Home, table: str, key: bytes) -> bytes:
    """Have a record be what no ledger has written; return what it was."""
    value = dict(dump(home.ledger)[table])[key]
    store(home.ledger, table, key, value[: len(value) // 2] + b"\xff" + value[len(value) // 2 + 1 :])
    return value


def test_one_damaged_schedule_keeps_no_other_from_its_time(tmp_path: Path) -> None:
    """It is told by /health and in the log, stays as it is, and runs again when it is whole."""
    home = make_home(tmp_path / "home")
    with running(home) as rig:
        first, second = (make(rig, name=name)["number"] for name in ("first", "second"))
    key = schedule_key(ScheduleNumber(first))
    value = spoil(home, "schedules", key)
    with running(home) as rig:
        assert run(rig, second)["state"] == "completed"
        wait_until(lambda: health(rig)["status"] == "degraded", "nobody is told")
        assert "does not match its checksum" in health(rig)["troubles"]["schedules"]
        assert "schedules: failed lately" in " ".join(rig.unix("GET", "/api/v1/status").body["warnings"])
        listed = rig.unix("GET", URL)
        assert [each["number"] for each in listed.body] == [second]
        assert listed.headers["x-unreadable-count"] == "1"
        assert rig.unix("GET", "/api/system/health").body["checks"]["scheduler"] == "unhealthy"
        assert rig.process.poll() is None
    assert "schedules cannot be read, the others go on" in (home.path / "stderr.log").read_text()
    store(home.ledger, "schedules", key, value)
    with running(home) as rig:
        assert health(rig)["status"] == "ok"
        assert [each["number"] for each in rig.unix("GET", URL).body] == [first, second]
        assert run(rig, first)["state"] == "completed"


def test_a_bug_in_a_drives_task_is_as_a_drive_that_fails(tmp_path: Path) -> None:
    """Its job fails with the reason, and is not begun for ever; the drive works again, and the sidecar was there."""
    home = make_home(tmp_path / "home")
    bug = home.path / "bug"
    bug.touch()
    with running(home) as rig:
        job = rig.wait_job(rig.submit("ok"), "failed", "completed")
        assert "an error that nobody expected, KeyError: 'planted': see the log" in job["error"]
        assert (job["state"], job["runs"]) == ("failed", 1)
        wait_until(lambda: "planted" in str(rig.unix("GET", "/api/v1/drives").body[0]["failure"]), "nobody is told")
        bug.unlink()
        rig.unix("POST", "/api/v1/drives/drive0/retry")
        rig.wait_job(rig.submit("quick"), "completed")
        assert rig.process.poll() is None
        # The traceback is what is wanted here; `running` looks for those that nobody expects.
        log = home.path / "stderr.log"
        assert "a drive's task has failed unexpectedly" in log.read_text()
        log.write_text("")


def test_one_damaged_job_keeps_no_other_from_running(tmp_path: Path) -> None:
    """It is told, in lists too, and stays as it is; the places of the others are what they were."""
    home = make_home(tmp_path / "home")
    with running(home) as rig:
        before, number, behind = (rig.submit("quick") for _ in range(3))
        for each in (before, number, behind):
            rig.wait_job(each, "completed")
    key = job_key(JobNumber(number))
    value = spoil(home, "jobs", key)
    with running(home) as rig:
        wait_until(lambda: "records of the ledger" in health(rig).get("troubles", {}), "nobody is told")
        assert "jobs['" in health(rig)["troubles"]["records of the ledger"]
        listed = rig.unix("GET", "/api/v1/jobs")
        assert [each["number"] for each in listed.body] == [before, behind]
        assert listed.headers["x-unreadable-count"] == "1"
        pages, target = [], "/api/v1/jobs?limit=1"
        while target:
            page = rig.unix("GET", target)
            pages.append([each["number"] for each in page.body])
            target = page.headers.get("link", "").partition(">")[0].removeprefix("<")
        assert pages == [[before], [], [behind]]
        rig.wait_job(rig.submit("ok"), "completed")
    store(home.ledger, "jobs", key, value)
    with running(home) as rig:
        assert rig.job(number)["state"] == "completed"
        assert health(rig)["status"] == "ok"
