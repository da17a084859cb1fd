"""Pins over HTTP: they are kept by the ledger, ordered, held by the evictor, and end."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import Segment
from tapefs.home import Home, open_home
from tapefs.staging.stage import SegmentStage
from tests.sidecar.rig import Answer, Rig, make_home, running, seed_set, wait_until, waiter
from tests.staging.content import as_of_an_earlier_boot, flip

FRAME_BYTES = 4096


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


def limited(home: Home, limit_bytes: int) -> Home:
    path = home.path / "tapefs.toml"
    text = path.read_text()
    assert "[staging]\n" in text
    path.write_text(text.replace("[staging]\n", f"[staging]\nlimit_bytes = {limit_bytes}\npinned_percent = 50\n"))
    return open_home(home.path)


def pin(rig: Rig, segment: Segment, first: int, last: int, **more: Any) -> Answer:
    spans = [{"segment": segment.segment_id, "first": first, "last": last}]
    return rig.unix("POST", "/api/v1/pins", {"segments": spans, "lifetime_s": 3600, **more})


def staged(home: Home, segment: Segment) -> list[int]:
    stage = SegmentStage.open(home.staging, segment.segment_id)
    if stage is None:
        return []
    frames = [frame for frame in range(stage.frame_count) if stage.has(range(frame, frame + 1))]
    stage.close()
    return frames


def test_a_pin_fetches_and_keeps(home: Home) -> None:
    segment, _ = seed_set(home)
    with running(home) as rig:
        made = pin(rig, segment, 2, 4, reason="to look at")
        assert made.status == 201
        assert (made.body["frames"], made.body["reason"]) == (3, "to look at")
        wait_until(lambda: {2, 3, 4} <= set(staged(home, segment)), "not staged")
        assert rig.unix("POST", "/api/v1/evict", {"segments": None}).status == 200
        assert staged(home, segment) == [2, 3, 4]
        (shown,) = rig.unix("GET", "/api/v1/pins").body
        assert (shown["id"], shown["missing_frames"]) == (made.body["id"], 0)
        status = rig.unix("GET", "/api/v1/staging").body
        assert (status["pins"], status["frames"]) == (1, 3)
        assert status["pinned_bytes"] == made.body["bytes"] > 0
        assert rig.unix("DELETE", f"/api/v1/pins/{made.body['id']}").status == 204
        assert rig.unix("POST", "/api/v1/evict", {"segments": None}).body["freed_bytes"] == 3 * FRAME_BYTES
        assert staged(home, segment) == []
        assert rig.unix("DELETE", f"/api/v1/pins/{made.body['id']}").status == 404
        assert rig.unix("GET", "/api/v1/pins").body == []


def test_a_pin_survives_the_sidecar_and_what_is_missing_comes_back(home: Home) -> None:
    segment, other = seed_set(home)
    with running(home) as rig:
        pin_id = pin(rig, segment, 0, 1).body["id"]
        again = pin(rig, other, 3, 3, id=pin_id, lifetime_s=7200)
        assert (again.body["id"], again.body["frames"]) == (pin_id, 3)
        wait_until(lambda: staged(home, segment) and staged(home, other), "not staged")
    for path in home.staging.iterdir():
        path.unlink()
    with running(home) as rig:
        wait_until(lambda: {0, 1} <= set(staged(home, segment)) and 3 in staged(home, other), "not fetched again")
        spans = rig.unix("GET", f"/api/v1/pins/{pin_id}").body["segments"]
        assert {(span["segment"], span["first"], span["last"]) for span in spans} == {
            (segment.segment_id, 0, 1),
            (other.segment_id, 3, 3),
        }


def test_what_was_staged_before_the_machine_was_started_is_compared_and_kept(home: Home) -> None:
    """No tape is asked for what is still right; a frame that is not is fetched when somebody wants it."""
    segment, _ = seed_set(home)
    with running(home) as rig:
        pin(rig, segment, 0, 5)
        wait_until(lambda: staged(home, segment)[:6] == [0, 1, 2, 3, 4, 5], "not staged")
        rig.unix("DELETE", f"/api/v1/pins/{rig.unix('GET', '/api/v1/pins').body[0]['id']}")
    as_of_an_earlier_boot(home.staging)
    flip(home.staging, segment.segment_id, 3 * FRAME_BYTES + 9)
    assert staged(home, segment) == []
    (home.path / "fake.log").unlink()
    with running(home) as rig:
        wait_until(lambda: {0, 1, 2, 4, 5} <= set(staged(home, segment)), "not staged again")
        assert 3 not in staged(home, segment)
        assert rig.commands("Recall") == []


def test_a_pin_runs_out(home: Home) -> None:
    segment, _ = seed_set(home)
    with running(home) as rig:
        pin_id = pin(rig, segment, 0, 1, lifetime_s=0.3).body["id"]
        wait_until(lambda: rig.unix("GET", f"/api/v1/pins/{pin_id}").status == 404, "still there")
        assert rig.unix("GET", "/api/v1/pins").body == []
    with running(home), LmdbLedger.open(home.ledger, readonly=True) as ledger:
        wait_until(lambda: not ledger.pins(), "the ledger keeps it")


def test_pins_leave_room_for_readers(home: Home) -> None:
    """Pins may hold half of eight frames: a fifth is refused, what readers want comes, and the pinned four stay."""
    segment, other = seed_set(home)
    home = limited(home, 8 * FRAME_BYTES)
    with running(home) as rig:
        half = pin(rig, segment, 0, 3)
        assert half.status == 201, half.detail
        refused = pin(rig, other, 0, 0)
        assert refused.status == 507
        assert "`tapefs unpin`" in refused.detail
        # What is pinned already takes no more room.
        assert pin(rig, segment, 1, 2).status == 201
        with rig.arrivals() as lines:
            for frame in (*range(8), *range(8)):
                rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(other, frame, frame)]})
                line = next(lines)
                while line["segment"] != other.segment_id or not line["first"] <= frame <= line["last"]:
                    assert "error" not in line, line
                    line = next(lines)
        wait_until(lambda: len(staged(home, other)) <= 4, "nothing was evicted")
        assert staged(home, segment)[:4] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"lifetime_s": 0}, 422),
        ({"lifetime_s": -5}, 422),
        ({"lifetime_s": "1 d"}, 422),
        ({"id": "mine"}, 422),
        ({"segments": [{"segment": str(uuid4()), "first": 0, "last": 0}]}, 404),
        ({"segments": [{"segment": str(uuid4()), "first": 2, "last": 1}]}, 422),
    ],
)
def test_what_makes_no_sense_is_refused(home: Home, more: dict[str, object], status: int) -> None:
    segment, _ = seed_set(home)
    with running(home) as rig:
        assert pin(rig, segment, 0, 0, **more).status == status
        assert pin(rig, segment, 0, 10_000).status == 404
        assert rig.unix("GET", "/api/v1/pins/nonsense").status == 404
        assert rig.unix("GET", "/api/v1/pins").body == []
