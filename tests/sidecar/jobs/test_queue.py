"""The queue over HTTP, with the scripted mover: order, pauses, tries, jobs behind jobs, and kills in each state."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from catalog.ids import JobNumber
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import JobState
from tapefs.home import Home
from tests.sidecar.rig import ROOT, Rig, make_home, running, seed_set, wait_until


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


def submit(rig: Rig, name: str, **fields: object) -> int:
    answer = rig.unix("POST", "/api/v1/jobs", {"name": name, "sources": [str(ROOT / "tests")], **fields})
    assert answer.status == 202, answer
    return int(answer.body["number"])


def post(rig: Rig, path: str, body: object = None) -> Any:
    answer = rig.unix("POST", f"/api/v1/{path}", body)
    assert answer.status in (200, 202), answer
    return answer.body


def began(rig: Rig) -> list[int]:
    """The jobs that a mover was told to run, in their order."""
    return [command["job"] for command in rig.commands("Backup")]


def kill(rig: Rig) -> None:
    rig.process.kill()
    rig.process.wait(60)


def test_the_most_urgent_runs_first(home: Home) -> None:
    with running(home) as rig:
        first = submit(rig, "hang")
        rig.wait_progress(first)
        usual, low, high, other = (submit(rig, "ok", priority=each) for each in (50, 10, 60, 50))
        assert rig.job(usual)["jobs_before"] == 1
        assert rig.unix("PUT", f"/api/v1/jobs/{low}/priority", {"priority": 90}).body["priority"] == 90
        assert rig.unix("PUT", f"/api/v1/jobs/{low}/priority", {"priority": 101}).status == 422
        assert rig.unix("PUT", "/api/v1/jobs/77/priority", {"priority": 1}).status == 404
        post(rig, f"jobs/{first}/cancel")
        for number in (usual, low, high, other):
            rig.wait_job(number, "completed")
        assert began(rig) == [first, low, high, usual, other]


def test_a_paused_queue_begins_nothing_until_it_is_resumed(home: Home) -> None:
    with running(home) as rig:
        runs = submit(rig, "hang")
        rig.wait_progress(runs)
        waits = submit(rig, "ok")
        queue = post(rig, "queue/pause", {"reason": "the library is opened"})
        assert (queue["is_paused"], queue["running"], queue["queued"]) == (True, 1, 1)
        post(rig, f"jobs/{runs}/cancel")
        rig.wait_job(runs, "cancelled")
        assert "the queue is resumed, for it is paused: the library is opened" in rig.job(waits)["waits_for"]
        kill(rig)
    with running(home) as rig:
        assert rig.unix("GET", "/api/v1/queue").body["reason"] == "the library is opened"
        assert rig.job(waits)["state"] == "queued"
        assert began(rig) == [runs]
        post(rig, "queue/resume")
        rig.wait_job(waits, "completed")


def test_a_job_that_waits_is_paused_over_a_restart(home: Home) -> None:
    with running(home) as rig:
        post(rig, "queue/pause")
        number, other = submit(rig, "ok"), submit(rig, "ok")
        assert post(rig, f"jobs/{number}/pause")["state"] == "paused"
        assert post(rig, f"jobs/{number}/pause")["state"] == "paused"
        for path in ("run", "pause"):
            assert rig.unix("POST", f"/api/v1/jobs/{number if path == 'run' else 77}/{path}").status in (404, 409)
        assert rig.unix("DELETE", f"/api/v1/jobs/{number}").status == 409
        statuses = {task["task_id"]: task["status"] for task in rig.unix("GET", "/api/backup/tasks").body}
        assert statuses == {number: "paused", other: "pending"}
        paused = rig.unix("GET", "/api/backup/tasks?status=paused").body
        assert [task["task_id"] for task in paused] == [number]
        assert [job["number"] for job in rig.unix("GET", "/api/v1/jobs?state=paused,failed").body] == [number]
        assert rig.unix("GET", "/api/v1/jobs?state=odd").status == 422
        kill(rig)
    with running(home) as rig:
        post(rig, "queue/resume")
        rig.wait_job(other, "completed")
        assert (rig.job(number)["state"], began(rig)) == ("paused", [other])
        post(rig, f"jobs/{number}/resume")
        rig.wait_job(number, "completed")
        cancelled = submit(rig, "hang")
        rig.wait_progress(cancelled)
        third = submit(rig, "ok")
        post(rig, f"jobs/{third}/pause")
        post(rig, f"jobs/{third}/cancel")
        assert rig.job(third)["error"] == "it was cancelled while it was paused"
        assert rig.unix("POST", f"/api/v1/jobs/{third}/pause").status == 409


def test_a_failure_that_may_pass_is_tried_again(home: Home) -> None:
    """Also over a restart while it waits for its next try; then it fails with what was the matter."""
    with running(home) as rig:
        number = submit(rig, "fail", retries=2, retry_first_s=1, retry_longest_s=2)
        wait_until(lambda: len(rig.job(number)["tries"]) == 2, "it is not tried again")
        job = rig.job(number)
        assert job["state"] != "queued" or "for its next try: /srv is gone: mount it" in job["waits_for"]
        kill(rig)
    with running(home) as rig:
        job = rig.wait_job(number, "failed")
        assert job["error"] == "/srv is gone: mount it (tried 3 times)"
        assert len([each for each in job["tries"] if each["kind"] == "failed"]) == 2
        assert len(began(rig)) == 3
        # Nothing of the request is tried again: an archive without room is full an hour later, too.
        assert rig.unix("POST", "/api/v1/jobs", {"name": "x", "sources": ["/usr"], "retries": 99}).status == 422


def test_a_try_that_waits_lets_others_run_and_is_cancelled(home: Home) -> None:
    with running(home) as rig:
        number = submit(rig, "fail", retries=1, retry_first_s=3600)
        wait_until(lambda: rig.job(number)["not_before"] is not None, "it does not wait")
        rig.wait_job(submit(rig, "ok"), "completed")
        post(rig, f"jobs/{number}/pause")
        post(rig, f"jobs/{number}/resume")  # Somebody has seen to it: at once.
        assert rig.wait_job(number, "failed")["error"].endswith("(tried 2 times)")
        again = submit(rig, "fail", retries=1, retry_first_s=3600)
        wait_until(lambda: rig.job(again)["not_before"] is not None, "it does not wait")
        post(rig, f"jobs/{again}/cancel")
        assert rig.job(again)["state"] == "cancelled"


def test_kills_of_mover_and_of_both_leave_each_job_where_it_was(home: Home) -> None:
    """One runs, one waits, one is paused, one waits for its next try: none is forgotten, none runs twice."""

    def states(rig: Rig) -> dict[int, tuple[str, object]]:
        return {number: (rig.job(number)["state"], rig.job(number)["not_before"]) for number in (tries, paused, waits)}

    with running(home) as rig:
        tries = submit(rig, "fail", retries=1, retry_first_s=3600)
        wait_until(lambda: rig.job(tries)["not_before"] is not None, "it does not wait")
        runs = submit(rig, "hang")
        rig.wait_progress(runs)
        paused, waits = submit(rig, "ok"), submit(rig, "ok")
        post(rig, f"jobs/{paused}/pause")
        before = states(rig)
        assert [state for state, _ in before.values()] == ["queued", "paused", "queued"]
        os.kill(rig.mover_pid(), signal.SIGKILL)
        wait_until(lambda: began(rig).count(runs) == 2, "it does not go on")
        rig.wait_job(runs, "running")
        assert states(rig) == before
        os.kill(rig.mover_pid(), signal.SIGKILL)
        kill(rig)
    with running(home) as rig:
        wait_until(lambda: began(rig).count(runs) == 3, "it does not go on")
        assert states(rig) == before
        post(rig, f"jobs/{runs}/cancel")
        rig.wait_job(waits, "completed")
        assert rig.job(paused)["state"] == "paused"
        for number in (paused, tries):
            if number == tries:
                post(rig, f"jobs/{number}/pause")
            post(rig, f"jobs/{number}/resume")
        rig.wait_job(paused, "completed")
        assert rig.wait_job(tries, "failed")["error"].endswith("(tried 2 times)")
        assert sorted(began(rig)) == sorted([tries, tries, runs, runs, runs, paused, waits])


def test_a_job_behind_another(home: Home) -> None:
    with running(home) as rig:
        first = submit(rig, "hang")
        rig.wait_progress(first)
        good, any_end = submit(rig, "ok", after=[first]), submit(rig, "ok", after=[first], after_any=True)
        last = submit(rig, "ok", after=[any_end])
        assert f"for the end of job {first} (hang), which is running" in rig.job(good)["waits_for"]
        circle = rig.unix("PATCH", f"/api/v1/jobs/{first}", {"after": [last]})
        assert circle.status == 409  # It runs.
        post(rig, f"jobs/{first}/cancel")
        assert rig.wait_job(good, "failed")["error"].startswith(
            f"it was to run after job {first} (hang), which is canc"
        )
        rig.wait_job(last, "completed")
        assert began(rig) == [first, any_end, last]
        circle = rig.unix("PATCH", f"/api/v1/jobs/{any_end}", {"after": [last]})
        assert (circle.status, "wait for itself" in circle.detail) == (422, True)
        assert rig.unix("PATCH", f"/api/v1/jobs/{any_end}", {"after": [any_end]}).status == 422
        assert rig.unix("PATCH", f"/api/v1/jobs/{any_end}", {"after": [77]}).status == 404


@pytest.mark.parametrize("damaged", [False, True])
def test_a_set_is_verified_behind_its_job(home: Home, damaged: bool) -> None:
    """Also when the sidecar is killed in between; what was found is shown on the job."""
    (home.path / "slow_verify").touch()
    with running(home) as rig:
        number = submit(rig, "ok", then_verify="all")
        assert rig.wait_job(number, "completed")["check"]["state"] == "waiting"
        wait_until(lambda: bool(rig.commands("Verify")), "it is not read back")
        mover = rig.mover_pid()
        kill(rig)
        wait_until(lambda: not Path(f"/proc/{mover}").exists(), "the mover lives on")
    if damaged:
        segment = rig.commands("Verify")[0]["segment_id"]
        (home.path / "fake.json").write_text(json.dumps({"damaged": [segment]}))
    (home.path / "slow_verify").unlink()
    with running(home) as rig:
        wait_until(lambda: rig.job(number)["check"]["state"] != "waiting", "the verification was forgotten")
        check = rig.job(number)["check"]
        assert (check["state"], rig.job(number)["state"]) == ("failed" if damaged else "good", "completed")
        assert (check["reason"] or "").startswith("of 2 copies of segments 1 are damaged" if damaged else "")


def test_a_list_reads_only_its_page(home: Home) -> None:
    seed_set(home)
    with LmdbLedger.open(home.ledger) as ledger:
        assert ledger.job_count() == 1
    with running(home) as rig:
        numbers = [submit(rig, "ok") for _ in range(3)]
        assert [job["number"] for job in rig.unix("GET", "/api/v1/jobs?limit=2&offset=1").body] == numbers[:2]
        assert [job["number"] for job in rig.unix("GET", "/api/v1/jobs").body] == [1, *numbers]
        assert [task["task_id"] for task in rig.unix("GET", "/api/backup/tasks?limit=2").body] == numbers[:0:-1]


def test_a_sidecar_that_nobody_holds_waits_for_no_try_that_is_far(home: Home) -> None:
    """It would hold its drives for an hour. One that is near it waits for, and so it does while somebody is there."""
    with running(home, "--until-idle") as rig:
        with rig.arrivals():
            far = submit(rig, "fail", retries=1, retry_first_s=3600)
            wait_until(lambda: rig.job(far)["not_before"] is not None, "it does not wait")
            time.sleep(1.5)
            assert rig.process.poll() is None
        assert rig.process.wait(60) == 0
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        assert ledger.job(JobNumber(far)).state is JobState.QUEUED
    with running(home, "--until-idle") as rig:
        near = submit(rig, "fail", retries=1, retry_first_s=2)
        assert rig.process.wait(60) == 0
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        assert ledger.job(JobNumber(far)).state is JobState.QUEUED
        assert ledger.job(JobNumber(near)).error.endswith("(tried 2 times)")


def test_who_waits_at_a_terminal_is_told_of_the_next_try(home: Home) -> None:
    """Once, with what he can do; Ctrl-C cancels, and listings say that it waits for a sidecar when there is none."""
    line = [sys.executable, "-m", "tapefs", "--home", str(home.path)]
    with running(home) as rig:
        number = submit(rig, "fail", retries=1, retry_first_s=3600)
        wait_until(lambda: rig.job(number)["not_before"] is not None, "it does not wait")
        post(rig, f"jobs/{number}/cancel")
        command = [*line, "job", "run", str(number)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT) as run:
            assert run.stderr is not None
            told = next(said for said in run.stderr if "next try" in said)
            assert re.search(rf"job {number} waits until .* for its next try: /srv is gone.*Ctrl-C cancels it", told)
            run.send_signal(signal.SIGINT)
            assert run.wait(60) == 1
        assert rig.job(number)["state"] == "cancelled"
        again = submit(rig, "fail", retries=1, retry_first_s=3600)
        wait_until(lambda: rig.job(again)["not_before"] is not None, "it does not wait")
        assert "No sidecar" not in subprocess.run([*line, "jobs"], check=True, capture_output=True, text=True).stdout
        kill(rig)
    shown = subprocess.run([*line, "jobs"], check=True, capture_output=True, text=True).stdout
    assert "No sidecar answers: what is queued begins when one runs" in shown
    told_scripts = subprocess.run([*line, "jobs", "--json"], check=True, capture_output=True, text=True)
    assert "No sidecar answers" in told_scripts.stderr
    json.loads(told_scripts.stdout)


def test_what_a_killed_sidecar_ran_is_not_shown_as_running_without_a_word(home: Home) -> None:
    line = [sys.executable, "-m", "tapefs", "--home", str(home.path)]
    with running(home) as rig:
        number = submit(rig, "hang")
        rig.wait_progress(number)
        kill(rig)
    for words, told in (("jobs", f"job {number} was interrupted"), ("sets", "set ")):
        shown = subprocess.run([*line, words], check=True, capture_output=True, text=True).stdout
        assert f"No sidecar answers: {told}" in shown, shown
