"""Tapes that go out through a port of the library and come in again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from drivers.virtual.library import add_from, set_ports, take_out
from tapefs.home import Home
from tests.sidecar.rig import Rig, make_home, running, seed_set, waiter


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = make_home(tmp_path / "home")
    set_ports(home.library, 1)
    return home


def places(rig: Rig) -> dict[str, str]:
    found = rig.unix("POST", "/api/v1/inventory").body["places"]
    return {each["barcode"]: each["place"] for each in found if each["full"]}


def test_a_tape_goes_out_of_its_drive_and_comes_back(home: Home, tmp_path: Path) -> None:
    with running(home) as rig:
        assert rig.wait_job(rig.submit("ok"), "completed", "failed")["state"] == "completed"
        assert places(rig)["TP0001L9"] == "drive0"
        answer = rig.unix("POST", "/api/v1/ports/export", {"tape": "TP0001L9"})
        assert (answer.status, answer.body) == (200, {"barcode": "TP0001L9", "place": "port 3"})
        full = rig.unix("POST", "/api/v1/ports/export", {"tape": "TP0002L9"})
        assert (full.status, full.detail.partition(":")[0]) == (409, "no port of the library is free")
        take_out(home.library, "TP0001L9", tmp_path / "vault")
        gone = rig.unix("POST", "/api/v1/ports/export", {"tape": "TP0001L9"})
        assert (gone.status, gone.detail) == (409, "tape TP0001L9 is not in the library: put it in")
        add_from(home.library, tmp_path / "vault")
        back = rig.unix("POST", "/api/v1/ports/import")
        assert [each["barcode"] for each in back.body] == ["TP0001L9"]
        assert places(rig)["TP0001L9"] == back.body[0]["place"]
        assert back.body[0]["place"].startswith("slot ")
        assert rig.unix("POST", "/api/v1/ports/import").body == []


def test_a_tape_that_was_brought_out_is_not_fetched_back(home: Home) -> None:
    """Neither for somebody who reads, nor for a backup, though it has room and a robot could."""
    segment, _ = seed_set(home)
    with running(home) as rig, rig.arrivals() as lines:
        assert rig.unix("POST", "/api/v1/ports/export", {"tape": "TP0001L9"}).body["place"] == "port 3"
        assert rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 0, 0)]}).status in (200, 202)
        line = next(lines)
        sentence = "tape TP0001L9 lies in port 3: `tapefs tape import` takes it in again"
        assert (line["error"], line["message"]) == ("offline", sentence)
        assert rig.wait_job(rig.submit("ok"), "completed", "failed")["state"] == "completed"
        assert places(rig)["TP0001L9"] == "port 3"
        assert rig.unix("POST", "/api/v1/ports/import").body[0]["barcode"] == "TP0001L9"
        assert rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 0, 0)]}).status in (200, 202)
        assert "error" not in next(lines)


def test_a_tape_that_is_in_use_stays(home: Home) -> None:
    with running(home) as rig:
        assert rig.wait_job(rig.submit("ok"), "completed", "failed")["state"] == "completed"
        rig.submit("hang")
        rig.wait_progress(2)
        began_s = time.monotonic()
        refused = rig.unix("POST", "/api/v1/ports/export", {"tape": "TP0001L9"})
        assert refused.status == 409
        assert "is in drive0, which works" in refused.detail
        assert time.monotonic() - began_s < 60
        assert places(rig)["TP0001L9"] == "drive0"


def test_without_a_port_nothing_goes_out(tmp_path: Path) -> None:
    with running(make_home(tmp_path / "none")) as rig:
        for path, body in (("export", {"tape": "TP0001L9"}), ("import", None)):
            answer = rig.unix("POST", f"/api/v1/ports/{path}", body)
            assert (answer.status, answer.detail) == (422, "this library has no import/export port")
