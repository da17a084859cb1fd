"""A whole sidecar with real movers whose tapes a human puts in; the test is the human."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from drivers.registry import open_drive
from drivers.virtual.condition import read_alerts, write_alerts
from drivers.virtual.library import add_blank
from tapefs.home import Home
from tapefs.setup_home import NewHome, create_home
from tests.drivers.human.player import Hands
from tests.ports import free_port
from tests.sidecar.rig import ROOT, Rig, make_home, wait_until
from tests.tape.foreign import FOREIGN, write


@contextmanager
def serving(home: Home) -> Iterator[Rig]:
    reader, writer = os.pipe()
    log = home.path / "stderr.log"
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tapefs", "--home", str(home.path), "serve", "--listen", f"127.0.0.1:{free_port()}"],
            cwd=ROOT,
            env=os.environ | {"TAPEFS_READY_FD": str(writer)},
            pass_fds=[writer],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
        )
    os.close(writer)
    try:
        with os.fdopen(reader) as words:
            assert words.readline() == "ready\n", log.read_text()
        yield Rig(home, process, 0)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    wanted = NewHome(path=tmp_path / "home", tapes=3, tape_bytes=64 * 1024**2, drives=1)
    home = create_home(wanted, time.time_ns())
    config = home.path / "tapefs.toml"
    text = config.read_text()
    assert "[library]" in text
    config.write_text(text.replace("[library]", '[library]\nchanger = "human"', 1))
    return home


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(100_000))
    return folder


def wait_text(rig: Rig, part: str) -> dict[str, Any]:
    """Wait for a prompt with that in its text."""
    found: list[dict[str, Any]] = []

    def has_come() -> bool:
        found[:] = [each for each in rig.unix("GET", "/api/v1/prompts").body if part in each["text"]]
        return bool(found)

    wait_until(has_come, f"no prompt with {part}")
    return found[0]


def completed(rig: Rig, number: int) -> bool:
    job = rig.wait_job(number, "completed", "failed")
    assert job["state"] == "completed", job
    return True


def command(home: Home, *words: str) -> str:
    line = [sys.executable, "-m", "tapefs", "--home", str(home.path), *words]
    ended = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended
    return ended.stdout + ended.stderr


def test_a_backup_asks_for_its_tape_and_refuses_another(home: Home, source: Path) -> None:
    """The whole way: tapes named, the wrong one put in, then the right one; the next job finds it in the drive."""
    hands = Hands(home.library)
    with serving(home) as rig:
        assert "2 new" in command(home, "tape", "add", "TP0001L9", "TP0002L9")
        number = rig.submit("first", source)
        wait_text(rig, "put TP0001L9 into drive0")
        assert "put TP0001L9 into drive0" in command(home, "prompts")
        hands.put_in("TP0003L9", 0)
        wait_text(rig, "TP0003L9 is in drive0, not TP0001L9")
        hands.take_out(0)
        hands.put_in("TP0001L9", 0)
        assert completed(rig, number)
        assert rig.unix("GET", "/api/v1/prompts").body == []
        again = rig.submit("second", source)
        assert completed(rig, again)
    states = {each["label"]: each["state"] for each in json.loads(command(home, "tapes", "--json"))}
    assert states == {"TP0001L9": "appendable", "TP0002L9": "blank", "TP0003L9": "blank"}


def test_who_is_to_put_a_tape_in_is_told_where_it_lies(home: Home, source: Path) -> None:
    """Nothing is written to it meanwhile, even if it is still in the drive."""
    hands = Hands(home.library)
    with serving(home) as rig:
        command(home, "tape", "add", "TP0001L9", "TP0002L9")
        first = rig.submit("first", source)
        wait_text(rig, "put TP0001L9 into drive0")
        hands.put_in("TP0001L9", 0)
        assert completed(rig, first)
        assert rig.unix("PUT", "/api/v1/tapes/TP0001L9/location", {"location": "the bank"}).status == 204
        second = rig.submit("second", source)
        asked = wait_text(rig, "put TP0002L9 into drive0")
        assert "the bank" not in asked["text"]
        hands.take_out(0)
        hands.put_in("TP0002L9", 0)
        assert completed(rig, second)
        body = {"sets": [], "tapes": ["TP0001L9"], "all": False, "since": None}
        assert rig.unix("POST", "/api/v1/verify", body).status == 202
        assert wait_text(rig, "put TP0001L9 into drive0")["text"].endswith("; it lies in the bank")


def test_the_progress_of_a_backup_tells_what_is_to_be_done(home: Home, source: Path) -> None:
    """Where the command runs, and over HTTP; a cancelled one says so once."""
    with serving(home) as rig:
        command(home, "tape", "add", "TP0001L9")
        line = [sys.executable, "-m", "tapefs", "--home", str(home.path), "backup", str(source)]
        with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT) as backup:
            assert backup.stderr is not None
            told = next(line for line in backup.stderr if "waits" in line)
            assert told.endswith("waits for somebody: put TP0001L9 into drive0\n")
            assert rig.job(1)["waits_for"] == "for somebody: put TP0001L9 into drive0"
            backup.send_signal(signal.SIGINT)
            last = backup.stderr.readlines()[-1]
        assert backup.returncode == 1
        assert last == "tapefs: job 1 was cancelled; nothing of it is shown; `tapefs job resume 1` goes on with it\n"
        assert rig.job(1)["waits_for"] is None


def test_a_tape_that_cannot_be_had_fails_the_job_and_a_cancelled_job_asks_no_more(home: Home, source: Path) -> None:
    with serving(home) as rig:
        command(home, "tape", "add", "TP0001L9")
        number = rig.submit("first", source)
        wait_text(rig, "put TP0001L9")
        command(home, "tape", "missing", "drive0")
        failed = rig.wait_job(number, "completed", "failed")
        assert failed["state"] == "failed"
        assert "says the operator" in failed["error"]
        number = rig.submit("second", source)
        wait_text(rig, "put TP0001L9")
        rig.unix("POST", f"/api/v1/jobs/{number}/cancel")
        assert rig.wait_job(number, "cancelled", "failed")["state"] == "cancelled"
        wait_until(lambda: rig.unix("GET", "/api/v1/prompts").body == [], "the prompt stays")


def test_a_sidecar_that_waits_for_a_human_ends_at_once(home: Home, source: Path) -> None:
    with serving(home) as rig:
        command(home, "tape", "add", "TP0001L9")
        rig.submit("first", source)
        wait_text(rig, "put TP0001L9")
        code, seconds = rig.stop()
    assert code == 0
    assert seconds < 10
    assert '"human"' in (home.path / "tapefs.toml").read_text()


def test_without_a_human_nothing_is_asked(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with serving(home) as rig:
        assert rig.unix("GET", "/api/v1/prompts").body == []
        answer = rig.unix("POST", "/api/v1/shelf", {"tapes": ["TP0001L9"]})
        assert answer.status == 422
        assert "a robot moves the tapes" in answer.detail


def test_a_foreign_tape_is_identified_and_overwritten(home: Home) -> None:
    """Whatever the human puts in is taken when somebody wants to know what it is, but for another tape of ours."""
    hands = Hands(home.library)
    hands.put_in("TP0003L9", 0)
    drive = open_drive(home.library_config, 0)
    drive.load()
    write(drive, FOREIGN["amanda"].make())
    drive.unload()
    drive.close()
    hands.take_out(0)
    with serving(home) as rig:
        command(home, "tape", "add", "TP0002L9", "TP0003L9")
        started = rig.unix("POST", "/api/v1/tapes/identify", {"tape": "TP0003L9"}).body["number"]
        wait_text(rig, "put TP0003L9 into drive0")
        hands.put_in("TP0002L9", 0)
        wait_text(rig, "TP0002L9 is in drive0, not TP0003L9")
        hands.take_out(0)
        hands.put_in("TP0003L9", 0)
        path = f"/api/v1/tape-tasks/{started}"
        wait_until(lambda: rig.unix("GET", path).body["state"] not in ("waiting", "running"), "it does not end", 60)
        found = rig.unix("GET", path).body
        assert found["state"] == "done", found
        assert found["found"]["names"] == ["DailySet1-01"]
        told = command(home, "tape", "relabel", "TP0003L9", "--yes-it-is", "DailySet1-01", "--force")
        assert "relabelled TP0003L9; it was AMANDA, called DailySet1-01" in told


def test_a_cleaning_cartridge_is_asked_for_by_name(home: Home) -> None:
    """A tape with data in its place is refused; the cartridge is to be taken out again."""
    hands = Hands(home.library)
    add_blank(home.library, tape_bytes=1024**2, barcode="CLNU01L1")
    write_alerts(home.library, 0, [21])
    with serving(home) as rig:
        assert "drive0 asks to be cleaned soon" in command(home, "prompts")
        refused = rig.unix("POST", "/api/v1/drives/drive0/clean", {})
        assert (refused.status, refused.detail) == (409, "no cleaning cartridge is in the library: put one in")
        command(home, "tape", "add", "CLNU01L1", "TP0001L9")
        started = rig.unix("POST", "/api/v1/drives/drive0/clean", {}).body["number"]
        wait_text(rig, "put CLNU01L1 into drive0")
        hands.put_in("TP0001L9", 0)
        wait_text(rig, "TP0001L9 is in drive0, not CLNU01L1")
        hands.take_out(0)
        hands.put_in("CLNU01L1", 0)
        path = f"/api/v1/cleanings/{started}"
        wait_until(lambda: rig.unix("GET", path).body["state"] not in ("waiting", "running"), "it does not end", 60)
        assert rig.unix("GET", path).body["state"] == "done"
        wait_text(rig, "take CLNU01L1 out of drive0")
    assert not read_alerts(home.library, 0)
