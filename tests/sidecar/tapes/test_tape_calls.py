"""Tapes over HTTP: tasks that wait their turn, what they answer, and what becomes of who wanted the old tape."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import SetState, VolumeState
from drivers.virtual.library import add_blank, take_out
from tapefs.retention.expire import expire
from tapefs.retention.policy import Wish
from tests.sidecar.rig import ROOT, Rig, make_home, running, seed_set, wait_until, waiter


def begun(rig: Rig, task: str, tape: str, **body: object) -> int:
    answer = rig.unix("POST", f"/api/v1/tapes/{task}", {"tape": tape, **body})
    assert answer.status == 202, answer
    return int(answer.body["number"])


def shown(rig: Rig, number: int) -> Any:
    return rig.unix("GET", f"/api/v1/tape-tasks/{number}").body


def ended(rig: Rig, number: int) -> Any:
    wait_until(lambda: shown(rig, number)["state"] not in ("waiting", "running"), f"task {number} does not end", 60)
    return shown(rig, number)


def show(rig: Rig, tape: str) -> Any:
    answer = rig.unix("GET", f"/api/v1/tapes/show?tape={tape}")
    assert answer.status == 200, answer
    return answer.body


def test_a_tape_from_blank_to_blank(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with running(home) as rig:
        first, second, _ = [each["barcode"] for each in rig.unix("POST", "/api/v1/inventory").body["places"][1:4]]
        assert show(rig, first)["is_unknown"]
        view = ended(rig, begun(rig, "identify", first))
        assert (view["state"], view["found"]["owner"], view["found"]["is_expected"]) == ("done", "nobody", True)
        assert view["found"]["loads"] == 1
        assert not show(rig, first)["is_unknown"]
        assert ended(rig, begun(rig, "label", first, name="letters"))["tape"] == "letters"
        tape = show(rig, first)
        assert (tape["label"], tape["barcode"], tape["pool"], tape["state"]) == (
            "letters",
            first,
            "default",
            "appendable",
        )
        refused = ended(rig, begun(rig, "erase", first, identity="letter"))
        assert (refused["state"], refused["error_kind"]) == ("failed", "usage")
        assert "--yes-it-is letters" in refused["error"]
        assert ended(rig, begun(rig, "erase", "letters", identity="letters"))["state"] == "done"
        assert show(rig, "letters")["state"] == "blank"
        assert ended(rig, begun(rig, "label", second, generate=True))["tape"].startswith("TP20")
        places = rig.unix("POST", "/api/v1/inventory").body["places"]
        assert {each["tape"]["label"] for each in places if each["tape"]} >= {"letters"}
        assert rig.unix("GET", "/api/v1/status").body["drives"][0]["tape"].startswith("TP20")
        assert len(rig.unix("GET", "/api/v1/tape-tasks").body) == 5


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("tapes/label", {"tape": "nothing"}, 404),
        ("tapes/label", {"tape": "TP0001L9", "name": "a/b"}, 422),
        ("tapes/label", {"tape": "TP0001L9", "name": "x", "generate": True}, 422),
        ("tapes/label", {"tape": "TP0001L9", "long": True}, 422),
        ("tapes/label", {"tape": "TP0001L9", "pool": "attic"}, 404),
        ("tapes/erase", {"identity": "x"}, 422),
        ("tapes/forget", {"tape": "TP0001L9"}, 409),
        ("tape-tasks/9/cancel", None, 404),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, path: str, body: object, status: int) -> None:
    home = make_home(tmp_path / "home")
    with running(home) as rig:
        answer = rig.unix("POST", f"/api/v1/{path}", body)
        assert answer.status == status, answer
        assert rig.unix("GET", "/api/v1/tapes/show").status == 422
        assert rig.commands("Tend") == []


def test_recalls_and_jobs_go_first(tmp_path: Path) -> None:
    """A task waits for what is asked of the drive already; one that has begun is not interrupted."""
    home = make_home(tmp_path / "home")
    (segment, _) = seed_set(home)
    (home.path / "fake.json").write_text(json.dumps({"slow_s": 0.3}))
    with running(home) as rig:
        with LmdbLedger.open(home.ledger, readonly=True) as ledger:
            _, second, third = [volume.label for volume in ledger.volumes()]
        assert rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 0, 3)]}).status in (200, 202)
        wait_until(lambda: bool(rig.commands("Recall")), "no recall")
        first, last = begun(rig, "identify", second), begun(rig, "label", third)
        assert rig.unix("POST", "/api/v1/tapes/erase", {"tape": second}).status == 409
        job = rig.submit("quick")
        assert rig.unix("POST", f"/api/v1/tape-tasks/{last}/cancel").body["state"] == "cancelled"
        assert ended(rig, first)["state"] == "done"
        rig.wait_job(job, "completed", "failed")
        assert rig.unix("POST", f"/api/v1/tape-tasks/{first}/cancel").status == 409
        log = (home.path / "fake.log").read_text().splitlines()
        order = [line.split()[0] for line in log if line.split()[0] in ("Recall", "Backup", "Identify", "Tend")]
        assert order.index("Recall") < order.index("Identify")
        assert "Tend" not in order


def test_a_long_erase_tells_how_far_it_is_and_cannot_be_stopped(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    (home.path / "fake.json").write_text(json.dumps({"slow_s": 4}))
    words = ["tape", "erase", "TP0001L9", "--long", "--yes-it-is", "TP0001L9"]
    line = [sys.executable, "-m", "tapefs", "--home", str(home.path), *words]
    with running(home) as rig:
        with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT) as erase:
            assert erase.stderr is not None
            told = next(said for said in erase.stderr if "tell" in said)
            assert told.startswith("erase TP0001L9: ")
            assert told.endswith("the drive does not tell how far it is\n")
            erase.send_signal(signal.SIGINT)
            last = erase.stderr.readlines()[-1]
        assert erase.returncode == 1
        assert "TP0001L9 is being erased, and no drive can be stopped doing that: it goes on" in last
        view = ended(rig, 1)
        assert view["state"] == "done", view["error"]


def test_a_tape_is_in_one_drive_at_a_time(tmp_path: Path) -> None:
    """Two drives: one identifies a tape, the other another; who wants to read the first waits until that is done."""
    home = make_home(tmp_path / "home", drives=2)
    (segment, _) = seed_set(home)
    (home.path / "fake.json").write_text(json.dumps({"slow_s": 0.5}))
    with running(home) as rig:
        with LmdbLedger.open(home.ledger, readonly=True) as ledger:
            first, second, _ = [volume.label for volume in ledger.volumes()]
        numbers = [begun(rig, "identify", first), begun(rig, "identify", second)]
        wait_until(lambda: all(shown(rig, each)["state"] != "waiting" for each in numbers), "they wait")
        assert rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 0, 3)]}).status in (200, 202)
        assert [ended(rig, each)["state"] for each in numbers] == ["done", "done"]
        wait_until(lambda: bool(rig.commands("Recall")), "the recall was given up")
        assert {each["found"]["owner"] for each in map(lambda number: shown(rig, number), numbers)} == {"nobody"}
        states = [each["state"] for each in rig.unix("GET", "/api/v1/tape-tasks").body]
        assert states == ["done", "done"]
        assert rig.unix("GET", "/health").body["status"] == "ok"


def test_live_sets_are_named(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    (segment, _) = seed_set(home)
    with running(home) as rig:
        with LmdbLedger.open(home.ledger, readonly=True) as ledger:
            tape = ledger.volumes()[0].label
        (known,) = show(rig, tape)["sets"]
        assert (known["set_id"], known["goes"], known["is_only_here"]) == (segment.set_id, False, True)
        refused = rig.unix("POST", "/api/v1/tapes/erase", {"tape": tape, "identity": tape})
        assert (refused.status, segment.set_id[:8] in refused.detail) == (409, True)
        assert rig.unix("POST", "/api/v1/tapes/identify", {"tape": tape}).status == 202
        assert rig.commands("Tend") == []


def test_who_wanted_the_old_tape_is_told(tmp_path: Path) -> None:
    """A verification of what has expired meanwhile ends, and nothing of the sidecar stumbles over the old id."""
    home = make_home(tmp_path / "home")
    (segment, _) = seed_set(home)
    with LmdbLedger.open(home.ledger) as ledger:
        tape = ledger.volumes()[0].label
        expire(home, ledger, 1, Wish(named=frozenset({segment.set_id})))
    with running(home) as rig:
        view = ended(rig, begun(rig, "relabel", tape, identity=tape))
        assert view["state"] == "done", view["error"]
        answer = rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 0, 3)]})
        assert answer.status < 500
        assert rig.unix("GET", "/health").body["status"] == "ok"
        assert rig.unix("GET", "/api/v1/recalls").status == 200
    with LmdbLedger.open(home.ledger) as ledger:
        assert ledger.verify() == []


@pytest.mark.log_warnings
def test_a_mover_that_dies_fails_its_task(tmp_path: Path) -> None:
    """The tape can be tended again afterwards."""
    home = make_home(tmp_path / "home")
    script = home.path / "fake.json"
    script.write_text(json.dumps({"die_tending": True}))
    with running(home) as rig:
        number = begun(rig, "label", "TP0001L9")
        view = ended(rig, number)
        assert (view["state"], "the same command" in view["error"]) == ("failed", True)
        script.write_text("{}")
        wait_until(lambda: ended(rig, begun(rig, "label", "TP0001L9"))["state"] == "done", "it stays dead", 60)


def test_a_tape_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    """Not while it is in the library, and not with what lives on it unless that is said."""
    home = make_home(tmp_path / "home")
    (segment, _) = seed_set(home)
    folder = home.library_config.folder
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        volume = ledger.volume(ledger.copies(segment.segment_id)[0].volume_id)
    with running(home) as rig:
        forget = {"tape": volume.label}
        assert "in the library" in rig.unix("POST", "/api/v1/tapes/forget", forget).detail
        take_out(folder, volume.label, tmp_path / "gone")
        refused = rig.unix("POST", "/api/v1/tapes/forget", forget)
        assert refused.status == 409
        assert f"--yes-it-is {volume.volume_id}" in refused.detail
        assert segment.set_id[:8] in refused.detail
        assert rig.unix("POST", "/api/v1/tapes/forget", forget | {"identity": "x"}).status == 409
        answer = rig.unix("POST", "/api/v1/tapes/forget", forget | {"identity": volume.volume_id})
        assert [each["set_id"] for each in answer.body["lost"]] == [segment.set_id]
        assert rig.unix("GET", f"/api/v1/tapes/show?tape={volume.label}").status == 404
        assert rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 0, 3)]}).status < 500
        assert rig.unix("GET", "/api/v1/status").status == 200
    with LmdbLedger.open(home.ledger) as ledger:
        assert ledger.verify() == []
        assert ledger.backup_set(segment.set_id).state is SetState.COMPLETE


def test_a_new_cartridge_with_the_name_of_another_tape(tmp_path: Path) -> None:
    """A tape was called as a cartridge that came later is coded: both are kept apart."""
    home = make_home(tmp_path / "home", tapes=2)
    take_out(home.library_config.folder, "TP0002L9", tmp_path / "gone")
    with running(home) as rig:
        assert ended(rig, begun(rig, "label", "TP0001L9", name="NEW001L9"))["tape"] == "NEW001L9"
        add_blank(home.library_config.folder, tape_bytes=4 * 1024**2, barcode="NEW001L9")
        places = rig.unix("POST", "/api/v1/inventory").body["places"]
        found = {each["barcode"]: each["tape"]["label"] for each in places if each["full"]}
        assert found == {"TP0001L9": "NEW001L9", "NEW001L9": "NEW001L9-2"}
        view = ended(rig, begun(rig, "label", "NEW001L9-2"))
        assert view["state"] == "done", view["error"]
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        assert [volume.state for volume in ledger.volumes()][:2] == [VolumeState.APPENDABLE] * 2


def test_unloading_waits_for_the_drive_and_holds_up_nobody(tmp_path: Path) -> None:
    """It is answered at once while a backup runs, survives a kill, and what leaves the drive otherwise is done with."""
    home = make_home(tmp_path / "home")
    with running(home) as rig:
        assert rig.unix("POST", "/api/tape/operations/unload").body["message"] == "no tape is in a drive"
        rig.wait_job(rig.submit("leaves its tape"), "completed")
        wait_until(lambda: bool(in_drives(rig)), "no tape is in the drive")
        (tape,) = in_drives(rig)
        job = rig.submit("hang")
        rig.wait_job(job, "running")
        answer = rig.unix("POST", f"/api/tape/operations/unload?tape_id={tape}")
        assert answer.status == 202, answer
        number = answer.body["task"]
        assert rig.unix("GET", answer.body["poll"]).body["state"] == "waiting"
        assert rig.unix("POST", "/api/tape/operations/unload").status == 409
        rig.process.kill()
        rig.process.wait(60)
    with running(home) as rig:
        # The job goes on, too, unless the tape has left by then.
        rig.unix("POST", f"/api/v1/jobs/{job}/cancel")
        view = ended(rig, number)
        assert (view["task"], view["state"], view["tape"]) == ("unload", "done", tape)
        assert rig.commands("Unload")


def in_drives(rig: Rig) -> list[str]:
    return [str(each["tape"]) for each in rig.unix("GET", "/api/v1/drives").body if each["tape"]]
