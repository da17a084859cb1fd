"""The linear planners against all orders, against each other, and against the definition."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tapefs.planner.linear import LinearModel, RequestsOverlap, stretch_of
from tapefs.planner.linear_exact import best_by_table
from tapefs.planner.linear_lines import Reach, best_by_lines
from tapefs.planner.linear_nested import with_nested
from tapefs.planner.linear_plan import FEW
from tapefs.planner.linear_small import best_of_few
from tapefs.planner.plan import plan
from tapefs.planner.records import Request, assess
from tests.planner.rigs import best_of_all, cost_of, scattered, simulate_linear

TURNS = (0, 30, 700, 20_000)


def cost(requests, head, u_turn, solve):
    stretch = stretch_of(requests, head, u_turn)
    return assess(requests, head, LinearModel(u_turn), stretch.order(solve(stretch)), "").cost


@pytest.mark.parametrize("u_turn", TURNS)
def test_both_exact_ways_find_the_best_of_all_orders(u_turn):
    for seed in range(24):
        requests = scattered(seed, 1 + seed % 6)
        best = best_of_all(requests, 10_000, u_turn)
        assert cost(requests, 10_000, u_turn, best_of_few) == pytest.approx(best)
        assert cost(requests, 10_000, u_turn, best_by_table) == pytest.approx(best)


@pytest.mark.parametrize("u_turn", TURNS)
def test_the_head_may_stand_anywhere(u_turn):
    """Between requests, at their ends, within one, at either end of the tape."""
    for seed in range(24):
        requests = scattered(seed, 1 + seed % 6)
        chance = random.Random(seed)
        some_request = chance.choice(requests)
        heads = (0, some_request.start, some_request.start + some_request.length / 2, some_request.end)
        for head in (*heads, chance.randrange(10_000)):
            best = best_of_all(requests, head, u_turn)
            assert cost(requests, head, u_turn, best_of_few) == pytest.approx(best)
            assert cost(requests, head, u_turn, best_by_table) == pytest.approx(best)


def test_seven_requests_against_all_5040_orders():
    for u_turn in TURNS:
        requests = scattered(u_turn, 7)
        assert plan(requests, 10_000, LinearModel(u_turn)).cost == pytest.approx(best_of_all(requests, 10_000, u_turn))


@pytest.mark.parametrize("head", [100_000, 37_000])
def test_the_two_exact_ways_agree_on_more_files(head):
    for seed in range(6):
        requests = scattered(seed, 24, 100_000)
        u_turn = TURNS[seed % 4]
        assert cost(requests, head, u_turn, best_of_few) == pytest.approx(cost(requests, head, u_turn, best_by_table))


@pytest.mark.parametrize("head", [10_000, 4_321])
def test_lines_are_never_better_than_exact_and_seldom_worse(head):
    ratios = []
    for seed in range(120):
        requests = scattered(seed, 1 + seed % 14)
        u_turn = TURNS[seed % 4]
        exact = cost(requests, head, u_turn, best_of_few)
        lines = cost(requests, head, u_turn, lambda stretch: best_by_lines(stretch, Reach(near=20, far=0)))
        assert lines >= exact * (1 - 1e-12)
        ratios.append(lines / exact)
    assert sum(ratios) / len(ratios) < 1.003
    assert sum(ratio < 1 + 1e-9 for ratio in ratios) > 0.9 * len(ratios)


def test_runs_within_runs_only_gain():
    """From nothing, and from the best disjoint runs; the cost it reckons with is the true one."""
    ratios = []
    for seed in range(60):
        requests = scattered(seed, 4 + seed % 14, weights=(1, 1, 3, 40))
        u_turn = TURNS[seed % 4]
        exact = cost(requests, 10_000, u_turn, best_of_few)
        for runs in ([], best_by_lines(stretch_of(requests, 10_000, u_turn), Reach(near=20, far=0))):
            before = cost(requests, 10_000, u_turn, lambda _, runs=runs: runs)
            after = cost(requests, 10_000, u_turn, lambda stretch, runs=runs: with_nested(stretch, runs))
            assert exact * (1 - 1e-12) <= after <= before * (1 + 1e-12)
        ratios.append(after / exact)
    assert sum(ratios) / len(ratios) < 1.002


def test_a_short_reach_costs_little():
    for seed in range(4):
        requests = scattered(seed, 300, 10**7)
        far = cost(requests, 10**7, 500, lambda stretch: best_by_lines(stretch, Reach(near=300, far=0)))
        near = cost(requests, 10**7, 500, lambda stretch: best_by_lines(stretch, Reach(near=16, far=8)))
        assert far * (1 - 1e-12) <= near <= far * 1.01


requests_and_head = some.integers(1, 2 * FEW).flatmap(
    lambda count: some.tuples(
        some.lists(some.integers(0, 5000), min_size=2 * count, max_size=2 * count, unique=True),
        some.lists(some.floats(0.01, 1000), min_size=count, max_size=count),
        some.integers(0, 5000),
        some.sampled_from(TURNS),
    )
)


@settings(max_examples=60, deadline=None)
@given(requests_and_head)
def test_what_is_predicted_is_what_the_definition_says(task):
    cuts, weights, head, u_turn = task
    cuts = sorted(cuts)
    requests = [Request(a, b - a, w) for (a, b), w in zip(list(pairwise(cuts))[::2], weights, strict=True)]
    found = plan(requests, head, LinearModel(u_turn))
    assert sorted(found.order) == list(range(len(requests)))
    done = simulate_linear(requests, head, u_turn, found.order)
    assert [done[index] for index in found.order] == pytest.approx(found.done)
    assert found.cost == pytest.approx(cost_of(requests, done))
    by_position = sorted(range(len(requests)), key=lambda index: requests[index].start)
    assert found.cost <= assess(requests, head, LinearModel(u_turn), by_position, "").cost


@pytest.mark.parametrize("count", [12, 60, 150])
def test_units_and_the_order_of_input_do_not_matter(count):
    """Scaling lengths scales the cost, scaling weights too; moving the tape or mixing the requests changes nothing."""
    requests, head, model = scattered(7, count, 100_000), 90_000, LinearModel(64)
    base = plan(requests, head, model)
    longer = [replace(each, start=4 * each.start, length=4 * each.length) for each in requests]
    assert plan(longer, 4 * head, LinearModel(256)).cost == pytest.approx(4 * base.cost)
    heavier = [replace(each, weight=8 * each.weight) for each in requests]
    assert plan(heavier, head, model).cost == pytest.approx(8 * base.cost)
    moved = [replace(each, start=each.start + 2**20) for each in requests]
    assert plan(moved, head + 2**20, model).cost == pytest.approx(base.cost)
    mixed = random.Random(3).sample(requests, len(requests))
    assert plan(mixed, head, model).cost == pytest.approx(base.cost)


def test_equal_requests_are_one_with_their_weights_together():
    requests = [Request(10, 5), Request(900, 5), *[Request(10, 5)] * 300]
    found = plan(requests, 1000, LinearModel(1))
    # So many wait for the far one that the near one is passed by.
    assert found.order == (0, *range(2, 302), 1)
    assert plan([Request(900, 5), Request(10, 5, 301)], 1000, LinearModel(1)).order == (1, 0)
    assert len(set(found.done[:301])) == 1


def test_overlapping_requests_are_refused_by_name():
    with pytest.raises(RequestsOverlap) as refusal:
        plan([Request(500, 10), Request(100, 50), Request(140, 50)], 1000, LinearModel(0))
    assert (refusal.value.left, refusal.value.right) == (1, 2)


def test_touching_and_empty_requests_are_served():
    requests = [Request(100, 50), Request(150, 0), Request(150, 50), Request(100, 0)]
    found = plan(requests, 120, LinearModel(3))
    assert sorted(found.order) == [0, 1, 2, 3]
    assert found.cost == pytest.approx(best_of_all(requests, 120, 3))


def test_nothing_asked_nothing_done():
    assert plan([], 5, LinearModel(1)).order == ()
