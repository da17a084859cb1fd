"""Recalls over HTTP, down to the mover and back by the stream of arrivals."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from uuid import uuid4

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import Segment
from tapefs.home import Home
from tapefs.staging.stage import SegmentStage
from tests.sidecar.rig import Rig, make_home, running, seed_set, wait_until, waiter


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


def script(home: Home, **behaviour: object) -> None:
    (home.path / "fake.json").write_text(json.dumps(behaviour))


def recall(rig: Rig, *waiters: dict[str, object]) -> None:
    answer = rig.unix("POST", "/api/v1/recalls", {"waiters": list(waiters)})
    assert (answer.status, answer.body) == (202, {"accepted": len(waiters)})


def arrived(lines: object, segment: Segment, *frames: int) -> None:
    """Read lines until all these frames of the segment have come."""
    missing = set(frames)
    while missing:
        line = next(lines)  # type: ignore[call-overload]
        assert "error" not in line, line
        if line["segment"] == segment.segment_id:
            missing -= set(range(line["first"], line["last"] + 1))


def asked(rig: Rig, segment: Segment) -> list[tuple[int, int]]:
    return [
        (first, last)
        for command in rig.commands("Recall")
        for name, first, last in command["frames"]
        if name == segment.segment_id
    ]


def test_a_recall_mounts_stages_and_tells_every_mount(home: Home) -> None:
    segment, _ = seed_set(home)
    with running(home) as rig, rig.arrivals() as one, rig.arrivals() as two:
        recall(rig, waiter(segment, 2, 4))
        arrived(one, segment, 2, 3, 4)
        arrived(two, segment, 2, 3, 4)
        stage = SegmentStage.open(home.staging, segment.segment_id)
        assert stage is not None
        assert stage.read(2 * 4096, 1) == b"\x02"
        stage.close()
        assert len(rig.commands("Load")) == 1
        # What is here already is told at once, and asks nothing of the mover.
        recall(rig, waiter(segment, 3, 3))
        assert next(one) == {"segment": segment.segment_id, "first": 3, "last": 3}
        assert asked(rig, segment) == [(2, 4)]


def test_frames_are_joined_and_fetched_once(home: Home) -> None:
    segment, other = seed_set(home)
    script(home, slow_s=0.1)
    with running(home) as rig, rig.arrivals() as lines:
        same = waiter(segment, 0, 3)
        recall(rig, same, waiter(segment, 2, 5), waiter(other, 7, 7))
        wait_until(lambda: bool(rig.commands("Recall")), "no recall")
        recall(rig, same, waiter(segment, 0, 7))  # The tape is in the drive: sent on at once.
        arrived(lines, segment, *range(8))
        assert asked(rig, segment) == [(0, 5), (6, 7)]
        assert len(rig.commands("Load")) == 1
        wait_until(lambda: rig.unix("GET", "/health").body["drives"]["drive0"] == "loaded", "not idle")


def test_newcomers_behind_the_head_are_planned_together_when_the_round_is_over(home: Home) -> None:
    """Asked for one by one, backwards, while a round runs: they are one round of their own, in their best order."""
    segment, _ = seed_set(home)
    script(home, slow_s=0.5)
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(segment, 4, 7))
        wait_until(lambda: bool(rig.commands("Recall")), "no recall")
        for frame in (3, 1):
            recall(rig, waiter(segment, frame, frame))
        assert asked(rig, segment) == [(4, 7)]
        arrived(lines, segment, 1, 3, *range(4, 8))
        assert asked(rig, segment) == [(4, 7), (1, 1), (3, 3)]
        assert len(rig.commands("Recall")) == 2


def test_a_frame_evicted_and_wanted_again_while_its_recall_runs_comes_again(home: Home) -> None:
    segment, _ = seed_set(home)
    script(home, slow_s=0.1)
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(segment, 0, 5))
        arrived(lines, segment, 0)
        rig.unix("POST", "/api/v1/evict", {"segments": None})
        recall(rig, waiter(segment, 0, 0))
        arrived(lines, segment, 0, 5)


def test_tapes_are_changed_when_one_is_done(home: Home) -> None:
    first, _ = seed_set(home, tape=0)
    second, _ = seed_set(home, tape=1)
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(first, 0, 1), waiter(second, 0, 1))
        seen = {(line["segment"], line["first"]) for line in (next(lines) for _ in range(4))}
        assert seen == {(segment.segment_id, frame) for segment in (first, second) for frame in (0, 1)}
        assert [len(rig.commands(kind)) for kind in ("Load", "Unload")] == [2, 1]
        tapes = rig.unix("GET", "/api/tape/list").body["tapes"]
        assert sorted(tape["location"] for tape in tapes[:2]) in (["drive 0", "slot 0"], ["drive 0", "slot 1"])


def test_a_bad_frame_is_an_error_on_the_stream_and_the_others_come(home: Home) -> None:
    segment, _ = seed_set(home)
    script(home, bad={segment.segment_id: [2]})
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(segment, 1, 3))
        got = [next(lines) for _ in range(3)]
        assert [line.get("error") for line in got] == [None, "read_failed", None]
        assert got[1]["message"] == "tape TP0001L9: frame 2 is unreadable"
        assert (got[1]["first"], got[1]["last"]) == (2, 2)


def test_what_cannot_be_had_is_told(home: Home) -> None:
    segment, _ = seed_set(home)
    with running(home) as rig, rig.arrivals() as lines:
        unknown = str(uuid4())
        recall(rig, {"id": str(uuid4()), "segment": unknown, "first": 0, "last": 0}, waiter(segment, 0, 8))
        errors = {line["segment"]: line["error"] for line in (next(lines), next(lines))}
        assert errors == {unknown: "not_found", segment.segment_id: "not_found"}


def test_a_tape_that_is_away_is_told(home: Home) -> None:
    segment, _ = seed_set(home)
    library = home.library / "library.json"
    text = library.read_text()
    assert '"TP0001L9"' in text
    library.write_text(text.replace('"TP0001L9"', "null"))
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(segment, 0, 0))
        line = next(lines)
        assert (line["error"], line["message"]) == ("offline", "tape TP0001L9 is not in the library: put it in")


def test_a_wrong_label_is_told_and_the_drive_goes_on(home: Home) -> None:
    bad, _ = seed_set(home, tape=0)
    good, _ = seed_set(home, tape=1)
    script(home, bad_tape="TP0001L9")
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(bad, 0, 0))
        assert next(lines)["message"] == "tape TP0001L9: the label is of another tape"
        recall(rig, waiter(good, 0, 0))
        arrived(lines, good, 0)


def test_a_mover_that_dies_is_replaced_and_the_recall_goes_on(home: Home) -> None:
    segment, _ = seed_set(home)
    script(home, slow_s=0.5)
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(segment, 0, 3))
        arrived(lines, segment, 0)
        os.kill(rig.mover_pid(), signal.SIGKILL)
        arrived(lines, segment, 1, 2, 3)


def test_a_segment_that_kills_movers_is_given_up(home: Home) -> None:
    deadly, harmless = seed_set(home)
    script(home, die=[deadly.segment_id])
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(deadly, 0, 0))
        line = next(lines)
        assert (line["segment"], line["error"]) == (deadly.segment_id, "mover_died")
        recall(rig, waiter(harmless, 0, 0))
        arrived(lines, harmless, 0)


def test_recalls_wait_for_a_backup_and_then_run(home: Home) -> None:
    segment, _ = seed_set(home)
    with running(home) as rig, rig.arrivals() as lines:
        number = rig.submit("hang")
        rig.wait_progress(number)
        recall(rig, waiter(segment, 0, 0))
        assert rig.commands("Recall") == []
        rig.unix("POST", f"/api/backup/tasks/{number}/cancel")
        arrived(lines, segment, 0)


def test_jobs_and_recalls_of_other_tapes_take_turns(home: Home) -> None:
    """Neither a queue of jobs nor a stream of readers keeps the other from the drive."""
    first, _ = seed_set(home, tape=0)
    second, _ = seed_set(home, tape=1)
    with running(home) as rig, rig.arrivals():
        hanging = rig.submit("hang")
        rig.wait_progress(hanging)
        jobs = [rig.submit("ok-1"), rig.submit("ok-2")]
        recall(rig, waiter(first, 0, 0), waiter(second, 0, 0))
        rig.unix("POST", f"/api/backup/tasks/{hanging}/cancel")
        for number in jobs:
            rig.wait_job(number, "completed")
        log = (home.path / "fake.log").read_text().splitlines()
        order = [line.split()[0] for line in log if line.startswith(("Backup", "Recall"))]
        assert order == ["Backup", "Recall", "Backup", "Recall", "Backup"]


def test_the_tape_that_was_just_written_stays_in_the_drive(home: Home) -> None:
    with running(home) as rig, rig.arrivals() as lines:
        rig.wait_job(rig.submit("ok"), "completed")
        rig.wait_job(rig.submit("ok"), "completed")
        with LmdbLedger.open(home.ledger, readonly=True) as ledger:
            segment = ledger.segments(ledger.backup_sets()[0].set_id)[0]
        recall(rig, waiter(segment, 0, 0))
        arrived(lines, segment, 0)
        assert (rig.commands("Load"), rig.commands("Unload")) == ([], [])


def test_cancel_and_deadline_release_only_the_waiter(home: Home) -> None:
    segment, _ = seed_set(home)
    script(home, slow_s=0.5)
    with running(home) as rig, rig.arrivals() as lines:
        wish = waiter(segment, 0, 3, deadline_s=0.01, uid=1000, pid=77)
        recall(rig, wish, waiter(segment, 4, 4))
        wait_until(lambda: bool(rig.commands("Recall")), "no recall")
        answer = rig.unix("POST", "/api/v1/recalls/cancel", {"ids": [wish["id"], str(uuid4())]})
        assert answer.body["cancelled"] in (0, 1)
        arrived(lines, segment, 0, 1, 2, 3, 4)


def test_staging_is_ordered_by_tape(home: Home) -> None:
    one, two = seed_set(home)
    with running(home) as rig, rig.arrivals() as lines:
        spans = [{"segment": segment.segment_id, "first": 0, "last": 1} for segment in (two, one)]
        answer = rig.unix("POST", "/api/v1/stage", {"segments": spans})
        assert (answer.status, answer.body) == (202, {"accepted": 2})
        got = [(line["segment"], line["first"]) for line in (next(lines) for _ in range(4))]
        assert got == [(one.segment_id, 0), (one.segment_id, 1), (two.segment_id, 0), (two.segment_id, 1)]


def test_evict(home: Home) -> None:
    one, two = seed_set(home)
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(one, 0, 7), waiter(two, 0, 7))
        arrived(lines, one, *range(8))
        arrived(lines, two, *range(8))
        freed = rig.unix("POST", "/api/v1/evict", {"segments": [one.segment_id]})
        assert freed.body == {"freed_bytes": 8 * 4096, "left_bytes": 0}
        stage = SegmentStage.open(home.staging, two.segment_id)
        assert stage is not None
        assert stage.has(range(8))
        stage.close()
        assert rig.unix("POST", "/api/v1/evict", {"segments": None}).body == {"freed_bytes": 8 * 4096, "left_bytes": 0}
        assert rig.unix("POST", "/api/v1/evict", {"segments": None}).body == {"freed_bytes": 0, "left_bytes": 0}


def test_frames_that_are_not_staged(home: Home) -> None:
    """Also frames that a segment does not have, however many are named; what is no set or no path is refused."""
    one, two = seed_set(home)

    def span(segment: str, first: int, last: int) -> dict[str, object]:
        return {"segment": segment, "first": first, "last": last}

    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(one, 2, 3))
        arrived(lines, one, 2, 3)
        asked = [span(one.segment_id, 1, 4), span(two.segment_id, 0, 7), span(one.segment_id, 8, 2**31 - 1)]
        body = rig.unix("POST", "/api/v1/frames", {"segments": asked}).body
        staged = SegmentStage.open(home.staging, one.segment_id)
        assert staged is not None
        there = {frame for frame in range(1, 5) if staged.has(range(frame, frame + 1))}
        staged.close()
        assert {2, 3} <= there
        missing = {(each["segment"], each["first"]) for each in body["missing"]}
        assert {frame for frame in range(1, 5) if (one.segment_id, frame) in missing}.isdisjoint(there)
        assert span(two.segment_id, 0, 7) in body["missing"]
        assert body["missing"][-1]["last"] == 2**31 - 1
        assert (body["segments"], body["frames"]) == ([], 4 + 8 + 2**31 - 8)
        for trees, status in (
            ([{"set_id": str(uuid4())}], 404),
            ([{"set_id": "x"}], 422),
            ([{"set_id": str(uuid4()), "path_b64": "?"}], 422),
        ):
            assert rig.unix("POST", "/api/v1/frames", {"trees": trees}).status == status


def test_the_staging_area_is_kept_within_its_limit(home: Home) -> None:
    toml = home.path / "tapefs.toml"
    toml.write_text(toml.read_text().replace("[staging]", "[staging]\nlimit_bytes = 40960"))
    one, two = seed_set(home)
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(one, 0, 7), waiter(two, 0, 7))
        arrived(lines, two, *range(8))
        area = [home.staging / f"{segment.segment_id}.plain" for segment in (one, two)]
        wait_until(lambda: sum(path.stat().st_blocks * 512 for path in area) <= 40960, "too much is staged")


def test_a_full_disk_makes_room_and_the_recall_goes_on(home: Home) -> None:
    segment, _ = seed_set(home)
    (home.path / "full").touch()  # There is room for two frames.
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(segment, 0, 5))
        arrived(lines, segment, *range(6))


def test_a_full_disk_with_nothing_to_drop_is_told(home: Home) -> None:
    segment, _ = seed_set(home)
    (home.path / "full").touch()
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(segment, 0, 1))
        arrived(lines, segment, 0, 1)
        stage = SegmentStage.open(home.staging, segment.segment_id)
        assert stage is not None
        with stage.pin(range(2)):  # type: ignore[union-attr]
            recall(rig, waiter(segment, 5, 5))
            line = next(lines)
        assert (line["error"], line["message"]) == (
            "read_failed",
            "the disk of the staging area is full, and all that is there is pinned or open",
        )
        stage.close()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("recalls", {"waiters": [{"id": "x", "segment": str(uuid4()), "first": 0, "last": 0}]}),
        ("recalls", {"waiters": [{"id": str(uuid4()), "segment": "../../etc", "first": 0, "last": 0}]}),
        ("recalls", {"waiters": [{"id": str(uuid4()), "segment": str(uuid4()), "first": 2, "last": 1}]}),
        ("recalls", {"waiters": [{"id": str(uuid4()), "segment": str(uuid4()), "first": -1, "last": 1}]}),
        ("recalls", {"waiters": [{"id": str(uuid4()), "segment": str(uuid4()), "first": 0, "last": 2**40}]}),
        ("recalls", {"waiters": 3}),
        ("recalls", {}),
        ("recalls/cancel", {"ids": [1]}),
        ("stage", {"segments": [{"segment": str(uuid4()), "first": 1}]}),
        ("evict", {}),
        ("evict", {"segments": ["../../../etc/passwd"]}),
        ("evict", {"segments": [str(uuid4()) + "\n"]}),
    ],
)
def test_nonsense_is_422(rig: Rig, path: str, body: object) -> None:
    answer = rig.unix("POST", f"/api/v1/{path}", body)
    assert answer.status == 422
    assert isinstance(answer.detail, str)


def test_a_client_that_does_not_read_is_cut_off_and_others_go_on(home: Home) -> None:
    """A mount that hangs must neither stop the others nor grow without bound."""
    segments = seed_set(home, frames=40_000)
    with running(home) as rig, rig.arrivals() as lines:
        with socket.socket(socket.AF_UNIX) as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(str(home.socket))
            stuck.sendall(b"GET /api/v1/arrivals HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(0.2)
            wide = [waiter(segments[0], 0, 0) | {"id": str(uuid4())} for _ in range(3000)]
            recall(rig, waiter(segments[0], 0, 0))
            arrived(lines, segments[0], 0)
            for _ in range(12):  # Each is answered at once by a line: the frame is here.
                recall(rig, *wide)
                for _ in wide:
                    next(lines)
            wait_until(lambda: _is_cut(stuck), "the connection is still there")


def _is_cut(peer: socket.socket) -> bool:
    """Without reading, so that whatever waits in sending to us goes on waiting."""
    peer.setblocking(False)
    try:
        peer.send(b" ")
    except (BrokenPipeError, ConnectionResetError):
        return True
    except BlockingIOError:
        return False
    return False
