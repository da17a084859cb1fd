"""What is left of tasks when the sidecar is killed: none is forgotten, none is done twice, no number comes again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import CopyState
from tests.sidecar.rig import ROOT, Rig, make_home, running, seed_set, wait_until


def begun(rig: Rig, task: str, tape: str, **body: object) -> int:
    answer = rig.unix("POST", f"/api/v1/tapes/{task}", {"tape": tape, **body})
    assert answer.status == 202, answer
    return int(answer.body["number"])


def shown(rig: Rig, number: int) -> Any:
    return rig.unix("GET", f"/api/v1/tape-tasks/{number}").body


def ended(rig: Rig, number: int) -> Any:
    wait_until(lambda: shown(rig, number)["state"] not in ("waiting", "running"), f"task {number} does not end")
    return shown(rig, number)


def kill(rig: Rig) -> None:
    """The sidecar and its mover at once, without a word."""
    mover = rig.mover_pid()
    os.kill(mover, signal.SIGKILL)
    rig.process.kill()
    rig.process.wait(60)


def test_an_erase_that_was_killed_is_known_and_what_waited_is_done(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    first, second, third = [f"TP000{number}L9" for number in (1, 2, 3)]
    slow = home.path / "slow_erase"
    with running(home) as rig:
        assert ended(rig, begun(rig, "label", first, name="letters"))["state"] == "done"
        slow.touch()
        erase = begun(rig, "erase", "letters", identity="letters")
        wait_until((home.path / "erasing").exists, "it does not begin")
        waiting, given_up = begun(rig, "identify", second), begun(rig, "label", third)
        assert rig.unix("POST", f"/api/v1/tape-tasks/{given_up}/cancel").status == 200
        kill(rig)
    slow.unlink()
    with running(home) as rig:
        assert ended(rig, waiting)["state"] == "done"
        states = {each["number"]: each["state"] for each in rig.unix("GET", "/api/v1/tape-tasks").body}
        assert states == {1: "done", erase: "interrupted", waiting: "done", given_up: "cancelled"}
        view = shown(rig, erase)
        assert (view["error_kind"], view["task"], view["tape"]) == ("interrupted", "erase", "letters")
        assert "part of it may still be there" in view["error"]
        assert view["finished_at"] is not None
        tape = rig.unix("GET", "/api/v1/tapes/show?tape=letters").body
        assert (tape["state"], tape["is_given_up"]) == ("blank", True)
        assert ended(rig, begun(rig, "erase", "letters", identity="letters"))["state"] == "done"
        assert not rig.unix("GET", "/api/v1/tapes/show?tape=letters").body["is_given_up"]
        assert begun(rig, "identify", third) == given_up + 2
        assert [each["task"] for each in rig.commands("Tend")] == ["label", "erase", "erase"]


def test_an_erase_that_had_begun_but_not_touched_the_tape_says_so(tmp_path: Path) -> None:
    """The sidecar was stopped in an orderly way; what it had not begun is done by the next one."""
    home = make_home(tmp_path / "home")
    (home.path / "fake.json").write_text(json.dumps({"slow_s": 2}))
    first, second = "TP0001L9", "TP0002L9"
    with running(home) as rig:
        label = begun(rig, "label", first)
        wait_until(lambda: bool(rig.commands("Tend")), "it does not begin")
        identify = begun(rig, "identify", second)
        assert rig.stop()[0] == 0
    with running(home) as rig:
        view = shown(rig, label)
        assert view["state"] == "interrupted", view
        assert "the sidecar ended during it." in view["error"]
        assert ended(rig, identify)["state"] == "done"


def test_who_waits_for_an_erase_is_told_that_it_is_kept(tmp_path: Path) -> None:
    """And the list of tasks says what became of it, whoever asks."""
    home = make_home(tmp_path / "home")
    (home.path / "slow_erase").touch()
    line = [sys.executable, "-m", "tapefs", "--home", str(home.path), "tape"]
    with running(home) as rig:
        words = [*line, "erase", "TP0001L9", "--yes-it-is", "TP0001L9"]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=ROOT) as erase:
            wait_until((home.path / "erasing").exists, "it does not begin")
            kill(rig)
            _, told = erase.communicate(timeout=60)
        assert erase.returncode == 1
        assert "task 1 (erase TP0001L9) is kept: when the sidecar runs again, `tapefs tape tasks` tells" in told
    (home.path / "slow_erase").unlink()
    with running(home):
        listed = subprocess.run([*line, "tasks"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
        head, row = listed.splitlines()
        assert head.split() == ["TASK", "WHAT", "TAPE", "STATE", "REMARK"]
        assert row.split()[:4] == ["1", "erase", "TP0001L9", "interrupted"]
        assert "`tapefs tape erase TP0001L9` erases it wholly" in row
        shown = subprocess.run([*line, "tasks", "--json"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
        assert json.loads(shown)[0]["state"] == "interrupted"


def test_an_identify_that_was_killed_is_done_again(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    (home.path / "fake.json").write_text(json.dumps({"slow_s": 1}))
    with running(home) as rig:
        number = begun(rig, "identify", "TP0001L9")
        wait_until(lambda: bool(rig.commands("Identify")), "it does not begin")
        kill(rig)
    with running(home) as rig:
        view = ended(rig, number)
        assert (view["state"], view["found"]["owner"], len(rig.commands("Identify"))) == ("done", "nobody", 2)
    with running(home) as rig:
        assert shown(rig, number) == view


def test_a_verification_goes_on_with_what_was_not_read(tmp_path: Path) -> None:
    """The other one, which had ended, is there with all that it found; numbers go on behind both."""
    home = make_home(tmp_path / "home")
    first, second = seed_set(home)
    slow = home.path / "slow_verify"
    (home.path / "fake.json").write_text(json.dumps({"damaged": [first.segment_id]}))

    def verified(rig: Rig, number: int) -> Any:
        path = f"/api/v1/verify/{number}"
        wait_until(lambda: rig.unix("GET", path).body["state"] != "running", "it does not end")
        return rig.unix("GET", path).body

    with running(home) as rig:
        before = verified(rig, rig.unix("POST", "/api/v1/verify", {"all": True}).body["number"])
        assert (before["state"], before["good"], before["damaged"], len(before["lost"])) == ("failed", 1, 1, 1)
        slow.touch()
        number = rig.unix("POST", "/api/v1/verify", {"sets": [first.set_id]}).body["number"]
        cancelled = rig.unix("POST", "/api/v1/verify", {"all": True}).body["number"]
        wait_until(lambda: len(rig.commands("Verify")) == 3, "it does not begin")
        assert rig.unix("POST", f"/api/v1/verify/{cancelled}/cancel").status == 200
        with LmdbLedger.open(home.ledger) as ledger:  # As if the first copy had been read when the kill came.
            [copy] = ledger.copies(first.segment_id)
            ledger.mark_copy(first.segment_id, copy.volume_id, CopyState.GOOD, time.time_ns())
        kill(rig)
    slow.unlink()
    with running(home) as rig:
        after = verified(rig, number)
        assert (after["state"], after["copies"], after["good"], after["passed_over"]) == ("completed", 2, 2, 0)
        told = [each["segment_id"] for each in rig.commands("Verify")]
        assert told == [first.segment_id, second.segment_id, first.segment_id, second.segment_id]
        assert rig.unix("GET", "/api/v1/verify/1").body == before
        assert rig.unix("GET", f"/api/v1/verify/{cancelled}").body["state"] == "cancelled"
        assert rig.unix("POST", "/api/v1/verify", {"all": True}).body["number"] == cancelled + 1
