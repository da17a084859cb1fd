"""The guard of recalls over HTTP: rules, the switch, an operator's word, limits, and who is seen to wait."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tapefs.cli import group
from tapefs.home import Home
from tests.sidecar.recalls.test_recall_calls import arrived, asked, recall, script
from tests.sidecar.rig import Rig, make_home, running, seed_set, spawn, wait_until, waiter
from tests.sidecar.seeds import FRAME_BYTES

CAT = {"uid": 1000, "pid": 77, "commands": ["cat"], "path": "/mnt/a", "size_bytes": 9000}
MINER = {"uid": 1000, "pid": 78, "commands": ["tracker-miner-fs-3", "tracker-miner-f"], "path": "/mnt/b"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


def settle(home: Home, text: str) -> Home:
    """Put settings into [recall], and rules behind everything else."""
    from tapefs.home import open_home

    toml = home.path / "tapefs.toml"
    plain, _, rules = text.partition("\n\n")
    old = toml.read_text()
    assert "[recall]" in old
    toml.write_text(old.replace("[recall]", f"[recall]\n{plain}") + "\n" + rules)
    return open_home(home.path)


def waiting(rig: Rig, query: str = "") -> list[dict[str, Any]]:
    answer = rig.unix("GET", f"/api/v1/recalls{query}")
    assert answer.status == 200, answer
    return list(answer.body)


def history(rig: Rig, query: str = "") -> list[dict[str, Any]]:
    answer = rig.unix("GET", f"/api/v1/recalls/history{query}")
    assert answer.status == 200, answer
    return list(answer.body)


def switch(rig: Rig, mode: str) -> None:
    answer = rig.unix("PUT", "/api/v1/recalls/mode", {"mode": mode})
    assert (answer.status, answer.body["mode"]) == (200, mode)


def test_a_rule_refuses_one_reader_and_not_the_other(home: Home) -> None:
    segment, _ = seed_set(home)
    settle(home, '\n\n[[recall.rules]]\naction = "deny"\ncommands = ["tracker-*"]')
    with running(home) as rig, rig.arrivals() as lines:
        miner, cat = waiter(segment, 0, 0) | MINER, waiter(segment, 0, 0) | CAT
        recall(rig, miner)
        line = next(lines)
        assert (line["waiter"], line["error"]) == (miner["id"], "denied")
        assert "segment" not in line, "others wait for the same frames"
        assert "rule 1" in line["message"]
        assert rig.commands("Recall") == [], "nothing is fetched for it"
        recall(rig, cat)
        arrived(lines, segment, 0)
        past = {entry["command"]: entry for entry in history(rig)}
        assert past["tracker-miner-fs-3"]["outcomes"] == {"refused": 1}
        assert "rule 1" in past["tracker-miner-fs-3"]["reason"]
        assert (past["cat"]["outcomes"], past["cat"]["path"], past["cat"]["bytes"]) == (
            {"fetched": 1},
            "/mnt/a",
            FRAME_BYTES,
        )
        assert [entry["command"] for entry in history(rig, "?outcome=refused")] == ["tracker-miner-fs-3"]
        assert [entry["command"] for entry in history(rig, "?command=ca")] == ["cat"]
        assert history(rig, "?uid=999") == []
        assert history(rig, "?path=/mnt/b")[0]["pid"] == 78
        assert len(history(rig, "?limit=1")) == 1


def test_nonblock_fetches_and_does_not_let_wait(home: Home) -> None:
    segment, _ = seed_set(home)
    settle(home, '\n\n[[recall.rules]]\naction = "nonblock"\nusers = [1000]')
    with running(home) as rig, rig.arrivals() as lines:
        cat = waiter(segment, 2, 3) | CAT
        recall(rig, cat)
        line = next(lines)
        assert (line["waiter"], line["error"]) == (cat["id"], "deferred")
        arrived(lines, segment, 2, 3)
        assert history(rig)[0]["outcomes"] == {"deferred": 1}


def test_who_asks_waits_for_an_operator(home: Home) -> None:
    segment, other = seed_set(home)
    settle(home, 'mode = "ask"')
    with running(home) as rig, rig.arrivals() as lines:
        cat, again, miner = waiter(segment, 0, 0) | CAT, waiter(segment, 1, 1) | CAT, waiter(other, 0, 0) | MINER
        recall(rig, cat, again, miner)
        recall(rig, cat)  # A mount posts its waiters again now and then.
        one, two = waiting(rig)
        assert [(each["state"], each["command"], each["waits"]) for each in (one, two)] == [
            ("asking", "cat", 2),
            ("asking", "tracker-miner-fs-3", 1),
        ]
        assert rig.commands("Recall") == []
        answer = rig.unix("POST", f"/api/v1/recalls/{one['id']}/grant")
        assert (answer.status, answer.body) == (200, {"reads": 2})
        arrived(lines, segment, 0, 1)
        answer = rig.unix("POST", f"/api/v1/recalls/{two['id']}/deny")
        assert (answer.status, answer.body) == (200, {"reads": 1})
        line = next(lines)
        assert (line["waiter"], line["error"]) == (miner["id"], "denied")
        assert waiting(rig) == []
        # The word holds for more of the same file, and for that process and file only.
        recall(rig, waiter(segment, 2, 2) | CAT)
        arrived(lines, segment, 2)
        recall(rig, waiter(other, 1, 1) | MINER)
        assert next(lines)["error"] == "denied"
        recall(rig, waiter(other, 1, 1) | CAT | {"path": "/mnt/else"})
        wait_until(lambda: len(waiting(rig)) == 1, "it does not ask")
        assert asked(rig, other) == []
        words = {entry["command"]: entry["word"] for entry in history(rig)}
        assert words == {"cat": "granted", "tracker-miner-fs-3": "denied"}
        assert rig.unix("POST", "/api/v1/recalls/999/grant").status == 404
        assert rig.unix("POST", "/api/v1/recalls/x/grant").status == 422
        assert rig.unix("POST", f"/api/v1/recalls/{one['id']}/grant", {"all": True}).status == 422


def test_a_word_for_a_whole_process(home: Home) -> None:
    segment, _ = seed_set(home)
    settle(home, 'mode = "ask"')
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, *(waiter(segment, frame, frame) | CAT | {"path": f"/mnt/{frame}"} for frame in range(3)))
        recall(rig, waiter(segment, 7, 7) | MINER)
        assert len(waiting(rig)) == 4
        first = waiting(rig, "?path=/mnt/1")[0]
        assert rig.unix("POST", f"/api/v1/recalls/{first['id']}/grant", {"process": True}).body == {"reads": 3}
        arrived(lines, segment, 0, 1, 2)
        recall(rig, waiter(segment, 4, 4) | CAT | {"path": "/mnt/new"})
        arrived(lines, segment, 4)
        assert [each["command"] for each in waiting(rig)] == ["tracker-miner-fs-3"]


def test_switching_while_readers_ask_and_wait(home: Home) -> None:
    segment, other = seed_set(home)
    script(home, slow_s=0.5)
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(segment, 0, 1) | CAT)
        wait_until(lambda: bool(rig.commands("Recall")), "no recall")
        switch(rig, "off")
        denied = waiter(other, 0, 0) | MINER
        recall(rig, denied)
        line = next(line for line in lines if "waiter" in line)
        assert (line["waiter"], "tapefs recall on" in line["message"]) == (denied["id"], True)
        [still] = waiting(rig)
        assert still["state"] == "waiting", "what was granted goes on"
        arrived(lines, segment, 1)
        switch(rig, "ask")
        held = waiter(other, 2, 2) | CAT
        recall(rig, held)
        assert [each["state"] for each in waiting(rig)] == ["asking"]
        switch(rig, "on")
        arrived(lines, other, 2)
    with running(home) as rig:
        assert rig.unix("GET", "/api/v1/recalls/mode").body["mode"] == "on"
        switch(rig, "off")
    with running(home) as rig:
        assert rig.unix("GET", "/api/v1/recalls/mode").body["mode"] == "off"
        assert rig.unix("PUT", "/api/v1/recalls/mode", {"mode": "never"}).status == 422


def test_an_operator_stops_what_was_granted(home: Home) -> None:
    one, _ = seed_set(home, tape=0)
    two, _ = seed_set(home, tape=1)
    script(home, slow_s=0.3)
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(one, 0, 3) | MINER)
        wait_until(lambda: bool(rig.commands("Recall")), "no recall")
        cat = waiter(two, 0, 0) | CAT
        recall(rig, cat)
        [entry] = waiting(rig, "?command=cat")
        assert (entry["tape"], entry["ahead"]) == ("TP0002L9", 0)
        assert rig.unix("POST", f"/api/v1/recalls/{entry['id']}/deny").body == {"reads": 1}
        assert next(line for line in lines if "waiter" in line)["waiter"] == cat["id"]
        arrived(lines, one, 3)
        assert asked(rig, two) == []


def test_readers_who_leave_and_who_are_late(home: Home) -> None:
    segment, _ = seed_set(home)
    settle(home, 'mode = "ask"')
    with running(home) as rig:
        gone, late = waiter(segment, 0, 0) | CAT, waiter(segment, 1, 1) | MINER | {"deadline_s": 0.2}
        recall(rig, gone, late)
        assert rig.unix("POST", "/api/v1/recalls/cancel", {"ids": [gone["id"]]}).body == {"cancelled": 1}
        wait_until(lambda: not waiting(rig), "still there")
        outcomes = {entry["command"]: entry["outcomes"] for entry in history(rig)}
        assert outcomes == {"cat": {"left": 1}, "tracker-miner-fs-3": {"late": 1}}
        assert rig.commands("Recall") == []


def test_limits_of_a_user(home: Home) -> None:
    segment, other = seed_set(home)
    settle(home, f"user_hourly_bytes = {3 * FRAME_BYTES}")
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(segment, 0, 2) | CAT)
        arrived(lines, segment, 0, 1, 2)
        beyond = waiter(other, 0, 0) | CAT
        recall(rig, beyond)
        line = next(lines)
        assert (line["waiter"], line["error"]) == (beyond["id"], "limit")
        recall(rig, waiter(segment, 1, 1) | CAT)  # It is here: nothing is fetched for it.
        arrived(lines, segment, 1)
        recall(rig, waiter(other, 0, 0) | CAT | {"uid": 1001})
        arrived(lines, other, 0)
        recall(rig, waiter(other, 1, 5) | {"uid": 0})
        arrived(lines, other, 5)
        standing = rig.unix("GET", "/api/v1/recalls/mode").body
        assert {user["uid"]: user["bytes"] for user in standing["users"]} == {
            0: 5 * FRAME_BYTES,
            1000: 3 * FRAME_BYTES,
            1001: FRAME_BYTES,
        }
        assert [entry["uid"] for entry in history(rig, "?outcome=refused")] == [1000]


def test_frames_that_two_users_wish_count_once(home: Home) -> None:
    segment, _ = seed_set(home)
    settle(home, f"user_hourly_bytes = {2 * FRAME_BYTES}")
    script(home, slow_s=0.2)
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(segment, 0, 1) | CAT)
        recall(rig, waiter(segment, 0, 3) | CAT | {"uid": 1001})
        arrived(lines, segment, 0, 1, 2, 3)
        users = rig.unix("GET", "/api/v1/recalls/mode").body["users"]
        assert [user["bytes"] for user in users] == [2 * FRAME_BYTES, 2 * FRAME_BYTES]


def test_what_cannot_be_read_is_not_charged(home: Home) -> None:
    segment, _ = seed_set(home)
    settle(home, f"user_hourly_bytes = {2 * FRAME_BYTES}")
    script(home, bad={segment.segment_id: [0, 1]})
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(segment, 0, 1) | CAT)
        assert next(lines)["error"] == "read_failed"
        assert next(lines)["error"] == "read_failed"
        recall(rig, waiter(segment, 2, 3) | CAT)
        arrived(lines, segment, 2, 3)
        assert history(rig)[0]["outcomes"] == {"failed": 1, "fetched": 1}


def test_the_history_outlives_the_sidecar(home: Home) -> None:
    segment, _ = seed_set(home)
    settle(home, '\n\n[[recall.rules]]\naction = "deny"\ncommands = ["tracker-*"]')
    with running(home) as rig, rig.arrivals() as lines:
        recall(rig, waiter(segment, 0, 0) | MINER)
        assert next(lines)["error"] == "denied"
        [before] = history(rig)
    with home.recall_log.open("ab") as file:
        file.write(b'{"torn')
    with running(home) as rig, rig.arrivals() as lines:
        assert history(rig) == [before]
        recall(rig, waiter(segment, 0, 0) | MINER)
        assert next(lines)["error"] == "denied"
        assert [entry["id"] for entry in history(rig)] == [2, 1]
    assert len([json.loads(line) for line in home.recall_log.read_bytes().splitlines() if line != b'{"torn']) == 2


def test_unknown_users_in_the_settings_are_told_at_start(home: Home) -> None:
    settle(home, '\n\n[[recall.rules]]\naction = "deny"\nusers = ["nobody-of-that-name"]')
    process = spawn(home)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "there is no user 'nobody-of-that-name'" in errors


@pytest.mark.parametrize("query", ["?uid=x", "?uid=-1", "?uid=99999999999", "?outcome=lost", "?limit=0"])
def test_nonsense_is_422(rig: Rig, query: str) -> None:
    for target in ("recalls", "recalls/history"):
        assert rig.unix("GET", f"/api/v1/{target}{query}").status == 422


def test_the_commands(home: Home) -> None:
    segment, _ = seed_set(home)
    runner = CliRunner()

    def run(*words: str) -> str:
        result = runner.invoke(group, ["--home", str(home.path), *words])
        assert result.exit_code == 0, result
        return result.output

    with running(home) as rig, rig.arrivals() as lines:
        assert "recalls are on" in run("recall")
        assert "recalls are asked for" in run("recall", "ask")
        recall(rig, waiter(segment, 0, 0) | CAT, waiter(segment, 1, 1) | MINER)
        assert "/mnt/a" in run("recalls")
        views = json.loads(run("recalls", "--json", "--command", "cat"))
        assert [view["path"] for view in views] == ["/mnt/a"]
        run("recalls", "grant", str(views[0]["id"]))
        arrived(lines, segment, 0)
        [other] = json.loads(run("recalls", "--json"))
        run("recalls", "deny", str(other["id"]), "--process")
        assert "1 refused" in run("recalls", "--history")
        assert "1 fetched" in run("recalls", "--history", "--uid", "1000")
        assert json.loads(run("recall", "--json"))["users"][0]["uid"] == 1000
