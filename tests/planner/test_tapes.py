"""Which tape comes next."""

from __future__ import annotations

from statistics import mean

import pytest

from tapefs.bench.recall_tapes import Simulation, arrivals, oldest, ours, percentile
from tapefs.planner.tapes import Demand, next_tape, weight_of


def demand(tape, ages_s, each_s=20.0):
    return Demand(tape, sum(weight_of(age) for age in ages_s), max(ages_s), each_s * len(ages_s))


def choose(*demands, drives=4, overdue_drives=0):
    found = next_tape(demands, 110.0, drives, overdue_drives)
    return found and found[0]


def test_many_before_few_and_old_before_new():
    assert choose() is None
    assert choose(demand("few", [10]), demand("many", [10] * 20)) == "many"
    assert choose(demand("new", [0] * 5), demand("old", [900] * 5)) == "old"
    assert choose(demand("one, forgotten", [3000]), demand("few, new", [0] * 2)) == "one, forgotten"
    assert choose(demand("long", [0] * 2, each_s=900), demand("short", [0] * 2)) == "short"


@pytest.mark.parametrize(("drives", "at_once"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_overdue_tapes_come_first_but_not_in_all_drives(drives, at_once):
    late, later = demand("late", [4000]), demand("later", [9000])
    popular = demand("popular", [1500] * 300, each_s=5)
    for busy in range(drives):
        expected = "later" if busy < at_once else "popular"
        assert choose(late, popular, later, drives=drives, overdue_drives=busy) == expected


def test_a_library_at_work():
    """The goal, on fewer requests than the benchmark has."""
    means, tails = [], []
    for seed in (1, 2):
        coming = arrivals(seed, 400, 1200)
        theirs, mine = Simulation(coming, oldest).run(), Simulation(coming, ours).run()
        assert len(mine) == len(theirs) == len(coming)
        assert min(mine) > 0
        means.append(mean(mine) / mean(theirs))
        tails.append(percentile(mine, 0.99) / percentile(theirs, 0.99))
    assert mean(means) <= 0.95
    assert mean(tails) <= 1.5
