"""Rounds: who joins, who waits, and that nobody waits for ever."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from drivers.virtual.motion import motion_of
from tapefs.bench.recall_arrivals import SIMULATED, InRounds, arrivals, compare, simulate
from tapefs.planner.records import Request
from tapefs.planner.rounds import Rounds, Terms
from tapefs.planner.serpentine import SerpentineModel

GB = 10**9
LTO8 = motion_of(8)
MODEL = SerpentineModel(LTO8)
WRAP = LTO8.generation.wrap_bytes


def test_what_waits_is_planned_together_and_handed_out_once():
    rounds: Rounds[str] = Rounds(MODEL)
    places = {"far": 9 * WRAP + WRAP // 2, "near": 2 * GB, "middle": 2 * WRAP + WRAP // 4}
    for key, place in places.items():
        assert not rounds.add(key, Request(place, GB), 0, 0.0)
    taken = [rounds.take(0, 0.0) for _ in range(4)]
    assert [wish and wish.key for wish in taken] == ["near", "middle", "far", None]
    assert len(rounds) == 0


def test_a_newcomer_on_the_way_joins_and_one_off_the_way_does_not():
    rounds: Rounds[str] = Rounds(MODEL)
    for key, place in (("a", 0), ("b", 20 * GB), ("c", 40 * GB)):
        rounds.add(key, Request(place, GB), 0, 0.0)
    assert rounds.take(0, 0.0).key == "a"
    assert rounds.add("between", Request(30 * GB, GB), GB, 1.0)
    assert not rounds.add("elsewhere", Request(101 * WRAP, GB), GB, 1.0)
    assert [rounds.take(GB, 2.0).key for _ in range(3)] == ["b", "between", "c"]
    assert rounds.number == 1
    assert rounds.take(41 * GB, 3.0).key == "elsewhere"
    assert rounds.number == 2


def test_joins_end_so_that_a_round_ends():
    rounds: Rounds[int] = Rounds(MODEL)
    for key in (0, 1):
        rounds.add(key, Request(key * 50 * GB, GB), 0, 0.0)
    rounds.take(0, 0.0)
    joined = [rounds.add(key, Request(GB * key / 4, GB // 10), GB, 0.0) for key in range(10, 190)]
    assert 5 < sum(joined) < 180
    assert not joined[-1]


def test_age_weighs():
    """The near one is first, unless the far one has waited for very long."""

    def first(age_s):
        rounds: Rounds[str] = Rounds(MODEL)
        rounds.add("old", Request(101 * WRAP + WRAP // 2, 40 * GB), 0, 0.0)
        rounds.add("new", Request(10 * GB, 40 * GB), 0, age_s)
        return rounds.take(0, age_s).key

    assert first(0.0) == "new"
    assert first(86_400.0) == "old"


def test_dropped_requests_are_not_handed_out():
    rounds: Rounds[str] = Rounds(MODEL)
    for key, place in (("a", 0), ("b", 20 * GB), ("c", 40 * GB)):
        rounds.add(key, Request(place, GB), 0, 0.0)
    rounds.take(0, 0.0)
    rounds.add("later", Request(101 * WRAP, GB), GB, 0.0)
    assert rounds.drop("b")
    assert rounds.drop("later")
    assert not rounds.drop("a")
    assert rounds.take(GB, 0.0).key == "c"
    assert rounds.take(GB, 0.0) is None


@pytest.mark.parametrize("seed", range(3))
def test_nobody_waits_past_the_round_after_his(seed):
    """Whatever comes: here most of it near the head, as if to keep a nearest-first drive there for ever."""
    chance = random.Random(seed)
    rounds: Rounds[int] = Rounds(MODEL, Terms(budget_s=0.0, replan_s=0.0))
    head, taken, key = 0.0, 0, 0
    while taken < 400:
        for _ in range(chance.choice((0, 1, 1, 2))):
            place = head + chance.randrange(5 * GB) if chance.random() < 0.8 else chance.randrange(11 * 10**12)
            rounds.add(key, Request(min(int(place), 11 * 10**12), GB // 10), head, float(taken))
            key += 1
        wish = rounds.take(head, float(taken))
        if wish is not None:
            assert rounds.number - wish.came_in in (0, 1)
            head = wish.request.end
        taken += 1


def test_busy_and_overloaded_drives():
    """The goals, on fewer requests than the benchmark has: dearer on average than always the nearest, far more even."""
    for per_hour, count, most in ((120, 700, 1.5), (180, 500, 1.8)):
        compared = compare(per_hour, seed=2, count=count)
        assert sorted(range(count)) == list(range(len(compared.ours)))
        assert min(compared.ours) > 0
        assert mean(compared.ours) <= most * mean(compared.nearest)
        assert max(compared.ours) <= 0.75 * max(compared.nearest)
        assert mean(compared.ours) <= 0.5 * mean(compared.by_block)
        assert compared.most_rounds <= 1


def test_the_simulation_serves_a_lone_request_as_the_model_says():
    (only,) = arrivals(1, 100, 1)
    (response,) = simulate([only], InRounds(MODEL, SIMULATED), MODEL)
    assert response == pytest.approx(MODEL.locate(0, only.request.start) + MODEL.read(GB))
