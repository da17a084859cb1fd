"""Sets, tapes and drives as lists over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.sidecar.rig import Rig, make_home, running, seed_set, wait_until


def test_sets_are_listed_and_shown_with_their_tapes(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    one, *more = seed_set(home, "one", tape=0)
    seed_set(home, "two", tape=1)
    with running(home) as rig:
        both = rig.unix("GET", "/api/v1/sets").body
        assert [(each["name"], each["state"], each["number"]) for each in both] == [
            ("two", "complete", 2),
            ("one", "complete", 1),
        ]
        tape = both[1]["tapes"][0]
        for query in ("name=one", f"tape={tape}", f"job={both[1]['job']}", "limit=1&offset=1", "type=full&name=one"):
            assert rig.unix("GET", f"/api/v1/sets?{query}").body == [both[1]], query
        for query in ("state=expired", "name=three", "offset=2", "type=incremental"):
            assert rig.unix("GET", f"/api/v1/sets?{query}").body == [], query
        shown = rig.unix("GET", f"/api/v1/sets/{one.set_id}").body
        assert shown.items() >= both[1].items()
        assert shown["good_copies"] == 1
        assert [each["segment_id"] for each in shown["parts"]] == [each.segment_id for each in (one, *more)]
        assert {copy["tape"] for each in shown["parts"] for copy in each["copies"]} == {tape}
        assert rig.unix("GET", f"/api/v1/sets/{one.set_id}/parts").body == shown["parts"]
        first = rig.unix("GET", f"/api/v1/sets/{one.set_id}/parts?limit=1")
        assert first.body == shown["parts"][:1]
        assert ("link" in first.headers) == (len(shown["parts"]) > 1)
        tapes = rig.unix("GET", "/api/v1/tapes").body
        assert len(tapes) == 3
        assert [each["label"] for each in rig.unix("GET", "/api/v1/tapes?state=blank").body] == [tapes[2]["label"]]
        assert rig.unix("GET", "/api/v1/tapes?pool=nowhere").body == []
        assert all(each["is_in_library"] for each in tapes)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("sets?state=none", 422),
        ("sets?job=x", 422),
        ("sets?limit=0", 422),
        ("sets/1", 422),
        ("sets/1/parts", 422),
        ("sets/5c1b8543-c174-47ad-825a-118cf65d21c2/parts", 404),
        ("sets/5c1b8543-c174-47ad-825a-118cf65d21c2", 404),
        ("tapes?state=none", 422),
        ("drives/none", 404),
    ],
)
def test_what_makes_no_sense_is_refused(rig: Rig, target: str, status: int) -> None:
    assert rig.unix("GET", f"/api/v1/{target}").status == status


def test_drives_are_those_of_the_status(rig: Rig) -> None:
    drives = rig.unix("GET", "/api/v1/drives").body
    assert [each["name"] for each in drives] == ["drive0"]
    assert rig.unix("GET", "/api/v1/drives/drive0").body == drives[0]


def test_a_drive_whose_file_is_empty_has_told_nothing(tmp_path: Path) -> None:
    """The file is not synced: so a power cut may leave it."""
    home = make_home(tmp_path / "home")
    with running(home) as rig:
        (home.drives / "drive0.json").write_bytes(b'{"compresses": true, "counters": {"loads": 3}}')
        wait_until(lambda: drive(rig)["counters"] is not None, "the file is not read")
        assert (drive(rig)["compresses"], drive(rig)["counters"]["loads"]) == (True, 3)
        (home.drives / "drive0.json").write_bytes(b"")
        wait_until(lambda: drive(rig)["counters"] is None, "the file is not read again")
        assert drive(rig)["compresses"] is None


def drive(rig: Rig) -> Any:
    answer = rig.unix("GET", "/api/v1/drives/drive0")
    assert answer.status == 200
    return answer.body
