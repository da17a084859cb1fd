"""Who may recall: rules, the switch, limits."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

import pytest

from catalog.ids import SegmentId, VolumeId
from sidecar.recalls.allowances import WINDOW_S, Allowances, Limits
from sidecar.recalls.guard import Guard, Mode, Reader
from tapefs.errors import HomeError
from tapefs.home import Home, open_home

SEGMENT, OTHER = SegmentId("11111111-2222-4333-8444-555555555555"), SegmentId("21111111-2222-4333-8444-555555555555")
ONE, TWO, THREE = (VolumeId(f"{number}1111111-2222-4333-8444-555555555555") for number in (3, 4, 5))


def home_with(folder: Path, recall: str) -> Home:
    folder.mkdir(exist_ok=True)
    (folder / "tapefs.toml").write_text(f"format = 1\n[recall]\n{recall}\n")
    return open_home(folder)


def reader(*commands: str, uid: int = 1000, gids: tuple[int, ...] = (), size_bytes: int = 1) -> Reader:
    return Reader(uid=uid, gids=gids, commands=commands, size_bytes=size_bytes)


def action(guard: Guard, who: Reader) -> str:
    return guard.judge(who).action.value


RULES = """
[[recall.rules]]
action = "allow"
users = [7]
[[recall.rules]]
action = "deny"
commands = ["tracker-*", "gnome-thumbnailer-service"]
[[recall.rules]]
action = "ask"
groups = [50, 51]
min_bytes = 1000
[[recall.rules]]
action = "nonblock"
users = ["nobody", 1]
max_bytes = 10
"""


def test_the_first_rule_that_matches_decides(tmp_path: Path) -> None:
    guard = Guard(home_with(tmp_path, RULES))
    assert action(guard, reader("cat")) == "allow"
    assert action(guard, reader("tracker-miner-fs-3", "tracker-miner-f")) == "deny"
    assert action(guard, reader("tracker-miner-fs-3", uid=7)) == "allow"
    assert action(guard, reader("python3", "gnome-thumbnail")) == "deny", "the kernel keeps 15 bytes of a name"
    assert action(guard, reader("gnome-thumb")) == "allow"
    assert action(guard, reader(gids=(9, 51), size_bytes=1000)) == "ask"
    assert action(guard, reader(gids=(9, 51), size_bytes=999)) == "allow"
    assert action(guard, reader(uid=1, size_bytes=10)) == "nonblock"
    assert action(guard, reader(uid=pwd.getpwnam("nobody").pw_uid, size_bytes=10)) == "nonblock"
    assert action(guard, reader(uid=1, size_bytes=11)) == "allow"
    assert "rule 2" in guard.judge(reader("tracker-extract")).reason


def test_the_switch(tmp_path: Path) -> None:
    home = home_with(tmp_path, RULES)
    guard = Guard(home)
    guard.switch(Mode.OFF)
    assert action(guard, reader("cat", uid=7)) == "deny", "off is for all"
    assert Guard(home).mode is Mode.OFF, "it outlives the sidecar"
    guard.switch(Mode.ASK)
    assert [action(guard, each) for each in (reader(), reader(uid=7), reader("tracker-x"))] == ["ask", "allow", "deny"]
    guard.switch(Mode.ON)
    assert not home.recall_mode.exists(), "as the settings have it: they count again"
    assert Guard(home).mode is Mode.ON


def test_a_damaged_switch_is_told(tmp_path: Path) -> None:
    home = home_with(tmp_path, "")
    home.recall_mode.write_text('{"mode": "perhaps"}')
    with pytest.raises(HomeError, match=r"recall\.json.*tapefs recall"):
        Guard(home)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('mode = "maybe"', "mode"),
        ("[[recall.rules]]\nusers = [1]", "action"),
        ('[[recall.rules]]\naction = "kill"', "action"),
        ('[[recall.rules]]\naction = "deny"\nuser = [1]', "user"),
        ('[[recall.rules]]\naction = "deny"\ncommands = ["/usr/bin/x"]', "without a path"),
        ('[[recall.rules]]\naction = "deny"\ncommands = [""]', "commands"),
        ('[[recall.rules]]\naction = "deny"\nmin_bytes = 5\nmax_bytes = 4', "no file has such a size"),
        ("user_hourly_bytes = -1", "user_hourly_bytes"),
        ("user_waiting_reads = 0", "user_waiting_reads"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(HomeError, match=message):
        home_with(tmp_path, text)


@pytest.mark.parametrize("kind", ["user", "group"])
def test_unknown_names(tmp_path: Path, kind: str) -> None:
    home = home_with(tmp_path, f'[[recall.rules]]\naction = "deny"\n{kind}s = ["nobody-of-that-name"]')
    with pytest.raises(HomeError, match=f"rule 1 of .recall.: there is no {kind} 'nobody-of-that-name'"):
        Guard(home)


def test_groups_by_name(tmp_path: Path) -> None:
    group = grp.getgrgid(0)
    guard = Guard(home_with(tmp_path, f'[[recall.rules]]\naction = "deny"\ngroups = ["{group.gr_name}"]'))
    assert (action(guard, reader(gids=(0,))), action(guard, reader(gids=(1,)))) == ("deny", "allow")


# -- limits ----------------------------------------------------------------------------------------------------------


def test_bytes_within_an_hour() -> None:
    books = Allowances(Limits(1000, 0, is_root_limited=False))
    assert books.refusal(5, 1000, ONE, 0) is None
    assert books.refusal(5, 1001, ONE, 0) is not None
    books.admit(5, SEGMENT, [(0, 5)], 100, ONE)
    assert books.refusal(5, 400, ONE, 0) is None
    assert books.refusal(5, 401, ONE, 0) is not None, "what is on its way counts, too"
    assert books.refusal(6, 1000, ONE, 0) is None, "another user"
    assert books.refusal(0, 10**9, ONE, 0) is None, "root"
    books.arrived(SEGMENT, 0, 1, 60)
    books.dropped(SEGMENT, [(4, 5)])
    [usage] = books.usage(60)
    assert (usage.bytes, usage.pending_bytes, usage.tapes) == (200, 200, 1)
    books.arrived(SEGMENT, 2, 9, 120)
    [usage] = books.usage(120)
    assert (usage.bytes, usage.pending_bytes) == (400, 0)
    assert books.refusal(5, 601, ONE, 120) is not None
    assert books.refusal(5, 800, ONE, 60 + WINDOW_S) is None, "the window has slid past the first two frames"
    assert books.usage(120 + WINDOW_S) == []


def test_what_arrives_for_nobody_counts_for_nobody() -> None:
    books = Allowances(Limits(1000, 0, is_root_limited=True))
    books.admit(5, SEGMENT, [(0, 1)], 100, ONE)
    books.arrived(SEGMENT, 7, 9, 1)
    books.arrived(OTHER, 0, 9, 1)
    assert [(each.uid, each.bytes) for each in books.usage(1)] == [(5, 0)]
    assert books.pending(SEGMENT) == [(0, 1)]
    assert books.refusal(0, 1001, ONE, 1) is not None, "root is limited here"


def test_tapes_within_an_hour() -> None:
    books = Allowances(Limits(0, 2, is_root_limited=False))
    books.admit(5, SEGMENT, [(0, 0)], 100, ONE)
    books.admit(5, OTHER, [(0, 0)], 100, TWO)
    assert books.refusal(5, 10**15, ONE, 0) is None, "a tape that he has already"
    assert books.refusal(5, 1, THREE, 0) is not None
    books.dropped(OTHER, [(0, 0)])
    assert books.refusal(5, 1, THREE, 0) is None, "nothing came from the second"
    books.arrived(SEGMENT, 0, 0, 5)
    books.admit(5, SEGMENT, [(1, 1)], 100, ONE)
    assert books.refusal(5, 1, THREE, 10) is None
    books.admit(5, OTHER, [(0, 0)], 100, THREE)
    assert books.refusal(5, 1, TWO, 10) is not None
