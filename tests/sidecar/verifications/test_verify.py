"""Verifications over HTTP: what is read back when, and what recalls, cancels and crashes do to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from catalog.ledger_store.tables import SETS, VOLUMES, text_key
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import CopyState
from tapefs.retention.explain import encryption_of
from tests.catalog.lmdb_tools import store
from tests.sidecar.rig import Rig, make_home, running, seed_set, wait_until, waiter


def started(rig: Rig, **body: object) -> int:
    answer = rig.unix("POST", "/api/v1/verify", body)
    assert answer.status == 202, answer
    return int(answer.body["number"])


def shown(rig: Rig, number: int) -> Any:
    return rig.unix("GET", f"/api/v1/verify/{number}").body


def ended(rig: Rig, number: int) -> Any:
    wait_until(lambda: shown(rig, number)["state"] != "running", f"verification {number} does not end")
    return shown(rig, number)


def test_all_of_a_set_in_the_order_of_the_tape(tmp_path: Path) -> None:
    """Each copy is read once, from a tape that was loaded for it, and the ledger knows."""
    home = make_home(tmp_path / "home")
    segments = seed_set(home)
    seed_set(home, "other", tape=1)
    with running(home) as rig:
        view = ended(rig, started(rig, sets=[segments[0].set_id]))
        assert (view["state"], view["copies"], view["good"], view["damaged"]) == ("completed", 2, 2, 0)
        assert view["bytes"] == view["done_bytes"] == 20_000
        assert view["finished_at"] is not None
        assert [each["segment_id"] for each in rig.commands("Verify")] == [each.segment_id for each in segments]
        assert len(rig.commands("Load")) == 1
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        assert all(ledger.copies(each.segment_id)[0].verified_at_ns for each in segments)


def test_what_a_set_builds_on_is_read_back_with_it(tmp_path: Path) -> None:
    """Its files lie there, too; damage there is damage to the set."""
    home = make_home(tmp_path / "home")
    below = seed_set(home, "below")
    above = seed_set(home, "above", tape=1)
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        changed = msgspec.structs.replace(ledger.backup_set(above[0].set_id), parent_id=below[0].set_id)
    store(home.ledger, "sets", text_key(changed.set_id), SETS.codec.encode(text_key(changed.set_id), changed))
    (home.path / "fake.json").write_text(json.dumps({"damaged": [below[1].segment_id]}))
    with running(home) as rig:
        view = ended(rig, started(rig, sets=[changed.set_id]))
        assert (view["state"], view["copies"], view["good"], view["damaged"]) == ("failed", 4, 3, 1)
        alone = ended(rig, started(rig, sets=[changed.set_id], alone=True))
        assert (alone["state"], alone["copies"]) == ("completed", 2)
        schedule = {
            "name": "look",
            "rule": {"kind": "interval", "every": 1, "unit": "hours"},
            "action": {"kind": "verify", "sets": [changed.set_id]},
        }
        made = rig.unix("POST", "/api/v1/schedules", schedule)
        assert made.status == 201, made
        assert rig.unix("POST", f"/api/v1/schedules/{made.body['number']}/run").status < 300
        wait_until(lambda: len(rig.unix("GET", "/api/v1/verify").body) == 3, "the schedule does not read back")
        newest = int(rig.unix("GET", "/api/v1/verify").body[-1]["number"])
        assert (ended(rig, newest)["copies"], ended(rig, newest)["damaged"]) == (4, 1)


def test_what_was_read_lately_is_passed_over(tmp_path: Path) -> None:
    """That makes an interrupted verification go on; without `since` everything is read again."""
    home = make_home(tmp_path / "home")
    segments = seed_set(home)
    (home.path / "fake.json").write_text(json.dumps({"damaged": [segments[1].segment_id]}))
    with running(home) as rig:
        for since, commands in ((None, 2), ("2020-01-01T00:00:00", 2), ("2020-01-01T00:00:00+00:00", 2), (None, 4)):
            view = ended(rig, started(rig, all=True, since=since))
            assert len(rig.commands("Verify")) == commands
            assert (view["state"], view["good"], view["damaged"]) == ("failed", 1, 1)
            assert view["passed_over"] == (0 if since is None else 2)
        assert len(rig.unix("GET", "/api/v1/verify?limit=2&offset=1").body) == 2


def test_a_damaged_copy_is_named(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    segments = seed_set(home)
    (home.path / "fake.json").write_text(json.dumps({"damaged": [segments[0].segment_id]}))
    with running(home) as rig:
        label = rig.unix("GET", "/api/tape/list").body["tapes"][0]["label"]
        view = ended(rig, started(rig, tapes=[label]))
        assert (view["state"], view["good"], view["damaged"], view["lost_files"]) == ("failed", 1, 1, 1)
        (finding,) = view["findings"]
        assert (finding["segment_id"], finding["problems"]) == (segments[0].segment_id, ["a frame"])
        (lost,) = view["lost"]
        assert (lost["path"], lost["path_b64"], lost["tape"]) == ("/srv/\\xff", "L3Nydi//", label)
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        assert ledger.copies(segments[0].segment_id)[0].state is CopyState.DAMAGED


def test_recalls_go_first(tmp_path: Path) -> None:
    """A reader interrupts a verification, which goes on afterwards; the third time it is read to its end."""
    home = make_home(tmp_path / "home")
    (segment, _) = seed_set(home)
    slow = home.path / "slow_verify"
    slow.touch()
    with running(home) as rig:
        number = started(rig, sets=[segment.set_id])
        for frame in range(3):
            wait_until(lambda: shown(rig, number)["tape"] != "", "the verification does not begin")
            with rig.arrivals() as arrivals:
                rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, frame, frame)]})
                assert next(arrivals)["first"] == frame
        wait_until(lambda: len(rig.commands("Verify")) == 4, "it does not go on")
        rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 7, 7)]})
        with pytest.raises(AssertionError):
            wait_until(lambda: len(rig.commands("Recall")) == 4, "as it should be", seconds=1.5)
        slow.unlink()
        assert ended(rig, number)["state"] == "completed"
        wait_until(lambda: len(rig.commands("Recall")) == 4, "the reader is forgotten")
        assert len(rig.commands("Verify")) == 5


def test_cancel(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    (segment, _) = seed_set(home)
    (home.path / "slow_verify").touch()
    with running(home) as rig:
        number = started(rig, sets=[segment.set_id])
        wait_until(lambda: shown(rig, number)["tape"] != "", "the verification does not begin")
        assert rig.unix("POST", f"/api/v1/verify/{number}/cancel").status == 200
        view = ended(rig, number)
        assert (view["state"], view["cancelled"], view["good"]) == ("cancelled", 2, 0)
        assert rig.unix("POST", f"/api/v1/verify/{number}/cancel").status == 409
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        assert ledger.copies(segment.segment_id)[0].verified_at_ns == 0


def test_a_mover_that_dies(tmp_path: Path) -> None:
    """The copy was not read, and says so; the others are."""
    home = make_home(tmp_path / "home")
    segments = seed_set(home)
    (home.path / "fake.json").write_text(json.dumps({"die": [segments[0].segment_id]}))
    with running(home) as rig:
        view = ended(rig, started(rig, all=True))
        assert (view["state"], view["good"], view["unread"]) == ("failed", 1, 1)
        assert "ended" in view["findings"][0]["problems"][0]


def test_a_tape_that_is_not_here(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    (segment, _) = seed_set(home)
    label = segment_tape(home.ledger, segment.segment_id)
    library = home.library / "library.json"
    library.write_text(library.read_text().replace(f'"{label}"', "null"))
    with running(home) as rig:
        view = ended(rig, started(rig, sets=[segment.set_id]))
        assert (view["state"], view["unread"]) == ("failed", 2)
        assert label in view["findings"][0]["problems"][0]


def segment_tape(path: Path, segment_id: str) -> str:
    with LmdbLedger.open(path, readonly=True) as ledger:
        return ledger.volume(ledger.copies(segment_id)[0].volume_id).label  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"all": True, "tapes": ["TP0001L9"]}, 422),
        ({"sets": ["no uuid"]}, 422),
        ({"sets": ["00000000-0000-0000-0000-000000000000"]}, 404),
        ({"tapes": ["NOSUCH"]}, 404),
        ({"all": True, "since": "yesterday"}, 422),
        ({"all": True, "unknown": 1}, 422),
    ],
)
def test_what_makes_no_sense(rig: Rig, body: dict[str, object], status: int) -> None:
    assert rig.unix("POST", "/api/v1/verify", body).status == status


def test_no_such_verification(rig: Rig) -> None:
    assert rig.unix("GET", "/api/v1/verify/77").status == 404
    assert rig.unix("POST", "/api/v1/verify/77/cancel").status == 404


def test_nothing_to_read_is_done_at_once(rig: Rig) -> None:
    view = rig.unix("POST", "/api/v1/verify", {"all": True}).body
    assert (view["state"], view["copies"]) == ("completed", 0)


def test_the_report_of_a_set(tmp_path: Path) -> None:
    """Of any set, even one whose run left nothing; with a page of its troubles."""
    home = make_home(tmp_path / "home")
    segments = seed_set(home)
    (home.path / "fake.json").write_text(json.dumps({"damaged": [segments[0].segment_id]}))
    home.reports.mkdir()
    lines = [json.dumps({"path": f"/srv/{number}", "reason": "gone"}) for number in range(5)]
    lines.append(json.dumps({"path_b64": "/y8=", "reason": "odd"}))
    (home.reports / f"{segments[0].set_id}.troubles.jsonl").write_text("\n".join(lines) + "\n")
    with running(home) as rig:
        ended(rig, started(rig, all=True))
        report = rig.unix("GET", f"/api/v1/sets/{segments[0].set_id}/report?offset=4&limit=2").body
        assert (report["name"], report["state"], report["verification"]["copies"]) == ("seeded", "complete", 2)
        assert report["verification"]["verified"] == 2
        assert [each["segment_id"] for each in report["verification"]["damaged"]] == [segments[0].segment_id]
        assert report["trouble_list"] == [
            {"path": "/srv/4", "reason": "gone"},
            {"path": "\ufffd/", "path_b64": "/y8=", "reason": "odd"},
        ]
        assert rig.unix("GET", "/api/v1/sets/00000000-0000-0000-0000-000000000000/report").status == 404
        assert rig.unix("GET", "/api/v1/sets/x..y/report").status == 422


# -- a job that wants a particular tape ------------------------------------------------------------------------------


def test_an_idle_drive_gives_up_the_tape_that_another_waits_for(tmp_path: Path) -> None:
    """It was read there a moment ago; it is ejected, goes over a slot, and the job gets it."""
    home = make_home(tmp_path / "home", drives=2)
    (segment, _) = seed_set(home, tape=1)
    label = segment_tape(home.ledger, segment.segment_id)
    with running(home) as rig:
        number = rig.submit(f"want {label}")
        rig.wait_progress(number)
        with rig.arrivals() as arrivals:
            rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 0, 0)]})
            assert next(arrivals)["first"] == 0
        drives = {each["name"]: each["tape"] for each in rig.unix("GET", "/api/v1/status").body["drives"]}
        assert label in drives.values()
        (home.path / "go").touch()
        rig.wait_job(number, "completed")
        assert len(rig.commands("Unload")) >= 1


def test_two_jobs_that_want_each_other_s_tape_get_them(tmp_path: Path) -> None:
    """Each has ejected its own, which goes back to a slot before it waits."""
    home = make_home(tmp_path / "home", drives=2)
    labels = [segment_tape(home.ledger, seed_set(home, f"s{n}", tape=n)[0].segment_id) for n in range(2)]
    with running(home) as rig:
        numbers = [rig.submit(f"want {label}") for label in labels]
        for number in numbers:
            rig.wait_progress(number)
        (home.path / "go").touch()
        for number in numbers:
            rig.wait_job(number, "completed")


def test_a_tape_that_is_wanted_and_not_here(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    label = segment_tape(home.ledger, seed_set(home)[0].segment_id)
    library = home.library / "library.json"
    library.write_text(library.read_text().replace(f'"{label}"', "null"))
    (home.path / "go").touch()
    with running(home) as rig:
        number = rig.submit(f"want {label}")
        assert label in rig.wait_job(number, "failed")["error"]


def test_a_tape_whose_key_is_locked_is_not_loaded(tmp_path: Path) -> None:
    """What the drive has encrypted cannot be read without it; another tape is read all the same."""
    home = make_home(tmp_path / "home")
    seed_set(home)
    other, _ = seed_set(home, "other", tape=1)
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        locked = msgspec.structs.replace(ledger.volumes()[0], by_drive=True, key_fingerprint="ab" * 32)
    key = text_key(locked.volume_id)
    store(home.ledger, "volumes", key, VOLUMES.codec.encode(key, locked))
    assert encryption_of(locked) == [f"The drive encrypts it, for key {locked.key_fingerprint}."]
    plain = msgspec.structs.replace(locked, by_drive=False)
    assert encryption_of(plain) == [f"tapefs encrypts what is written to it, for key {locked.key_fingerprint}."]
    with running(home) as rig:
        view = ended(rig, started(rig, all=True))
        assert (view["state"], view["good"], view["unread"]) == ("failed", 2, 2)
        assert all("key" in each["problems"][0] for each in view["findings"]), view
        assert [each["volume_id"] for each in rig.commands("Load")] == [segment_volume(home.ledger, other.segment_id)]


def segment_volume(path: Path, segment_id: str) -> str:
    with LmdbLedger.open(path, readonly=True) as ledger:
        return ledger.copies(segment_id)[0].volume_id  # type: ignore[arg-type]
