"""What a running sidecar tells of, and that what is secret stays so."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from catalog.lmdb_ledger import LmdbLedger
from sidecar.notices import watching
from sidecar.notices.events import Events
from sidecar.notices.watching import Watching
from tapefs.home import Home, open_home
from tapefs.log_ring import LogRing
from tests.notices.receiver import Receiver, receiving
from tests.sidecar.rig import Rig, make_home, running, wait_until


def home_with(folder: Path, receiver: Receiver, *lines: str) -> Home:
    home = make_home(folder / "home")
    with (home.path / "tapefs.toml").open("a") as file:
        file.write("\n".join(["", *lines]) + "\n")
        file.write(f'[[notify]]\nname = "ops"\nkind = "webhook"\nurl = "{receiver.url}/canary"\n')
        file.write('secret = "canary"\nevents = ["backup.*", "drive.*", "system.*"]\n')
    return open_home(home.path)


def kinds(receiver: Receiver) -> list[str]:
    return [json.loads(posted.body)["kind"] for posted in receiver.posted]


def notices(rig: Rig, since: int = 0) -> list[Any]:
    return list(rig.unix("GET", f"/api/v1/notices?since={since}").body)


def test_a_job_is_told_of_from_its_start_to_its_end(tmp_path: Path) -> None:
    with receiving() as receiver:
        home = home_with(tmp_path, receiver)
        with running(home) as rig:
            number = rig.submit("home")
            rig.wait_job(number, "completed")
            wait_until(lambda: "backup.succeeded" in kinds(receiver), f"{kinds(receiver)}")
            told = notices(rig)
            assert [each["number"] for each in told] == list(range(1, len(told) + 1))
            done = next(each for each in told if each["kind"] == "backup.succeeded")
            assert done["facts"]["job"] == number
            assert done["gravity"] == "news"
            assert notices(rig, since=done["number"]) == [each for each in told if each["number"] > done["number"]]
            (channel,) = rig.unix("GET", "/api/v1/notify").body
            assert (channel["name"], channel["leads_to"]) == ("ops", "http://127.0.0.1/…")
            assert channel["is_signed"]
            shown = rig.unix("GET", "/api/v1/notify/ops")
            assert "canary" not in json.dumps([channel, shown.body])
            assert rig.unix("POST", "/api/v1/notify/ops/test").body == {"name": "ops", "delivered": True, "error": ""}
            assert kinds(receiver)[-1] == "test"
            assert rig.unix("GET", "/api/v1/notify/none").status == 404
        wait_until(lambda: kinds(receiver)[-1] == "system.stopping", f"{kinds(receiver)}")
        order = [kind for kind in kinds(receiver) if kind.startswith(("backup.", "system."))]
        assert order == ["system.started", "backup.queued", "backup.started", "backup.succeeded", "system.stopping"]
        assert "canary" not in (home.path / "stderr.log").read_text()


def test_what_was_not_told_before_a_kill_is_told_behind_it(tmp_path: Path) -> None:
    """Nothing twice, nothing forgotten."""
    with receiving() as receiver:
        home = home_with(tmp_path, receiver)
        receiver.answers = [(503, {}, b"")]
        with running(home) as rig:
            rig.wait_job(rig.submit("home"), "completed")
            rig.process.send_signal(signal.SIGKILL)
            rig.process.wait(60)
        receiver.posted.clear()
        receiver.answers = [(200, {}, b"")]
        with running(home) as rig:
            wait_until(lambda: kinds(receiver).count("backup.succeeded") == 1, f"{kinds(receiver)}")
            told = [each["kind"] for each in notices(rig)]
            assert told.count("backup.succeeded") == told.count("backup.started") == 1


def test_webhooks_are_set_over_http(tmp_path: Path) -> None:
    with receiving() as receiver:
        home = home_with(tmp_path, receiver, "[notices]", "allow_private = true", "allow_http = true")
        with running(home) as rig:
            body = {"url": f"{receiver.url}/hook", "secret": "canary", "events": ["backup.*"]}
            put = rig.unix("PUT", "/api/v1/notify/mine", body)
            assert (put.status, put.body["origin"], put.body["events"]) == (200, "http", ["backup.*"])
            assert "canary" not in json.dumps(put.body)
            assert home.notify.stat().st_mode & 0o777 == 0o600
            rig.wait_job(rig.submit("home"), "completed")
            wait_until(lambda: any(each.path == "/hook" for each in receiver.posted), "nothing came")
            assert rig.unix("DELETE", "/api/v1/notify/mine").status == 204
            assert rig.unix("DELETE", "/api/v1/notify/mine").status == 404
            assert rig.unix("DELETE", "/api/v1/notify/ops").status == 409


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("mine", {"url": "http://example.org/"}),
        ("mine", {"url": "https://user:pw@example.org/"}),
        ("mine", {"url": "https://example.org/", "events": ["nothing.*"]}),
        ("mine", {"url": ""}),
        ("mine", {"url": "https://example.org/", "more": 1}),
        ("NO NAME", {"url": "https://example.org/"}),
    ],
)
def test_webhooks_that_make_no_sense(rig: Rig, name: str, body: object) -> None:
    answer = rig.unix("PUT", f"/api/v1/notify/{name.replace(' ', '%20')}", body)
    assert answer.status == 422, answer
    assert rig.unix("GET", "/api/v1/notify").body == []


@pytest.mark.log_warnings
async def test_errors_in_the_log_are_told_once_in_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    ring = LogRing()
    monkeypatch.setattr(watching, "RING", ring)
    logger = logging.getLogger("tests.trouble")
    logger.addHandler(ring)
    try:
        with LmdbLedger.create(tmp_path / "ledger", 1) as ledger:
            events = Events(ledger)
            looks = Watching(None, ledger, None, [], None, None, events)  # type: ignore[arg-type]
            for number in range(3):
                logger.error("it broke, no. %d", number)
            logging.getLogger("tests.trouble.notices").error("of notices themselves")
            await looks._tell_errors()
            logger.error("again")
            await looks._tell_errors()
            await trio.sleep(watching.ERRORS_S + 1)
            await looks._tell_errors()
            await looks._tell_errors()
            texts = [notice.text for notice in ledger.notices_since(0)]
    finally:
        logger.removeHandler(ring)
    assert texts == ["it broke, no. 2: see the log (2 more before it)", "again: see the log"]
