"""The LTO planner against exact orders, baselines, wrong models and the definition."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from drivers.virtual.generations import GENERATIONS
from drivers.virtual.motion import Coefficients, Motion, motion_of
from tapefs.planner.plan import plan
from tapefs.planner.records import Request, assess
from tapefs.planner.serpentine import SerpentineModel, in_full, pieces_of
from tapefs.planner.serpentine_costs import Costs, between_s, places_of
from tapefs.planner.serpentine_exact import best_of_few
from tapefs.planner.serpentine_orders import nearest, scan
from tapefs.planner.serpentine_search import improve, kick
from tests.planner.rigs import cost_of, on_tape, simulate_lto

LTO8 = motion_of(8)


def by_block(requests):
    return sorted(range(len(requests)), key=lambda index: (requests[index].start, requests[index].length))


@pytest.mark.parametrize("generation", sorted(GENERATIONS))
def test_the_model_on_vectors_is_the_model(generation):
    motion = motion_of(generation)
    chance = random.Random(generation)
    wrap = motion.generation.wrap_bytes
    special = [0, 1, wrap - 1, wrap, wrap + 1, wrap // 2, 2 * wrap, motion.generation.capacity_bytes, 10**16]
    near = [wrap * 7 + chance.randrange(wrap) for _ in range(30)]
    byte = np.array([*special, *near, *(chance.randrange(motion.generation.capacity_bytes) for _ in range(80))])
    places = places_of(motion, byte)
    found = between_s(motion, places.at(np.arange(len(byte))[:, None]), places)
    expected = [[motion.locate_s(a, b) for b in byte.tolist()] for a in byte.tolist()]
    assert found == pytest.approx(np.array(expected))


@pytest.mark.parametrize("with_reading", [True, False])
def test_nearest_takes_what_is_nearest(with_reading):
    """Against the rule itself, with clusters, where most steps are on the head's own wrap."""
    for seed in range(4):
        sizes = random.Random(seed)
        requests = [
            replace(each, length=sizes.randrange(10**8, 10**10), weight=sizes.choice((1, 3)))
            for each in on_tape(seed, 150, LTO8, clusters=5 * (seed % 2), length=10**10)
        ]
        pieces = pieces_of(requests, LTO8, 0)
        left, at, expected = set(range(len(pieces))), 0.0, []
        while left:
            rated = {}
            for number in left:
                piece = pieces[number]
                seconds = LTO8.locate_s(int(at), int(piece.start))
                if with_reading:
                    seconds = (seconds + LTO8.read_s(int(piece.end - piece.start))) / piece.weight
                rated[number] = seconds
            best = min(left, key=lambda number: (rated[number], number))
            expected.append(best)
            left.remove(best)
            at = pieces[best].end
        assert nearest(Costs(LTO8, 0, pieces), with_reading) == expected


def test_few_pieces_are_in_the_best_of_all_orders():
    for seed in range(6):
        chance = random.Random(seed)
        requests = [replace(each, weight=chance.choice((1, 4))) for each in on_tape(seed, 6, LTO8, clusters=seed % 3)]
        pieces = pieces_of(requests, LTO8, 0)
        head = chance.randrange(10**13)
        model = SerpentineModel(LTO8)
        best = min(assess(requests, head, model, order, "").cost for order in permutations(range(6)))
        exact = assess(requests, head, model, in_full(pieces, best_of_few(Costs(LTO8, head, pieces))), "").cost
        assert exact == pytest.approx(best)
        assert plan(requests, head, model).cost == pytest.approx(best)


@pytest.mark.parametrize("count", [9, 12])
def test_the_search_comes_close_to_the_best(count):
    """What larger plans are made of, where the best is known."""
    ratios = []
    for seed in range(10):
        pieces = pieces_of(on_tape(seed, count, LTO8, clusters=3 * (seed % 2)), LTO8, 0)
        costs = Costs(LTO8, 0, pieces)
        exact = costs.response(best_of_few(costs))
        found = min(costs.response(improve(costs, order, 5.0)) for order in (nearest(costs, True), scan(costs)))
        assert found >= exact * (1 - 1e-12)
        ratios.append(found / exact)
    assert sum(ratios) / len(ratios) <= 1.03


def test_searching_only_makes_it_better():
    costs = Costs(LTO8, 0, pieces_of(on_tape(1, 700, LTO8), LTO8, 0))
    start = random.Random(1).sample(range(len(costs) - 1), len(costs) - 1)
    ticks = iter(range(1000))
    last = costs.response(start)
    for _ in range(3):
        start = improve(costs, start, 8.0, now=lambda: float(next(ticks)))
        assert sorted(start) == list(range(len(costs) - 1))
        assert costs.response(start) < last
        last = costs.response(start)


def test_kicks_only_make_it_better():
    gains = []
    for seed in range(3):
        costs = Costs(LTO8, 0, pieces_of(on_tape(seed, 60, LTO8), LTO8, 0))
        settled = improve(costs, nearest(costs, True), 5.0)
        kicked = kick(costs, settled, 5.0)
        assert sorted(kicked) == sorted(settled)
        gains.append(costs.response(kicked) / costs.response(settled))
        assert kick(costs, settled, 0.0) == settled
    assert max(gains) <= 1
    assert min(gains) < 1


@pytest.mark.parametrize(
    ("count", "clusters", "to_block", "to_nearest"), [(30, 0, 0.45, 0.95), (100, 0, 0.45, 0.96), (200, 8, 0.8, 0.95)]
)
def test_much_better_than_by_block_and_than_the_nearest_first(count, clusters, to_block, to_nearest):
    model = SerpentineModel(LTO8)
    ratios = []
    for seed in range(4):
        requests = on_tape(seed, count, LTO8, clusters=clusters)
        found = plan(requests, 0, model).cost
        pieces = pieces_of(requests, LTO8, 0)
        greedy = assess(requests, 0, model, in_full(pieces, nearest(Costs(LTO8, 0, pieces), False)), "").cost
        ratios.append((found / assess(requests, 0, model, by_block(requests), "").cost, found / greedy))
    assert sum(ratio for ratio, _ in ratios) / 4 <= to_block
    assert sum(ratio for _, ratio in ratios) / 4 <= to_nearest


def test_never_worse_than_by_block_where_that_is_the_best():
    """Many neighbours on few wraps: going straight through them is hard to beat."""
    chance = random.Random(5)
    for count in (3, 10, 40, 400):
        requests = [Request(chance.randrange(10**11), 10**8) for _ in range(count)]
        model = SerpentineModel(LTO8)
        found = plan(requests, 0, model, budget_s=0.05)
        assert found.cost <= assess(requests, 0, model, by_block(requests), "").cost


@pytest.mark.parametrize("seed", range(4))
def test_a_wrong_model_does_little_harm(seed):
    """Every coefficient wrong by up to 30 %: by the truth still much better than by block."""
    chance = random.Random(seed)
    truth = LTO8.coefficients
    names = (
        "s_per_m",
        "start_s",
        "wrap_change_s",
        "band_change_s",
        "half_change_s",
        "direction_change_s",
        "step_back_s",
    )
    wrong = Coefficients(**{name: getattr(truth, name) * chance.uniform(0.7, 1.3) for name in names})
    requests = on_tape(seed, 120, LTO8, clusters=8 * (seed % 2))
    order = plan(requests, 0, SerpentineModel(Motion(LTO8.generation, wrong))).order
    model = SerpentineModel(LTO8)
    assert assess(requests, 0, model, order, "").cost <= 0.85 * assess(requests, 0, model, by_block(requests), "").cost


def test_the_order_of_the_drive_is_a_candidate():
    requests = on_tape(2, 60, LTO8)
    model = SerpentineModel(LTO8)
    good = plan(requests, 0, model).order
    assert plan(requests, 0, model, budget_s=0, offered=[good]).cost <= assess(requests, 0, model, good, "").cost


def test_an_offered_order_wins_only_where_it_is_better():
    """A long piece with a short one right behind it: read in one go by the planner, better apart."""
    long, short = Request(0, 4 * 10**10), Request(4 * 10**10 + 10**6, 10**6)
    requests = [long, short, *(Request(5 * 10**10 + each * 3 * 10**9, 10**6) for each in range(12))]
    model = SerpentineModel(LTO8)
    alone = plan(requests, 0, model)
    better = [*range(1, 14), 0]
    with_better = plan(requests, 0, model, offered=[better])
    assert (with_better.order, with_better.method) == (tuple(better), "offered")
    assert with_better.cost < alone.cost
    worse = [0, *range(13, 0, -1)]
    rubbish = [better[1:], [*better, 0], [1, *better[1:-1], 1], [0] * 14, [*range(1, 15)], []]
    for offered in ([worse], rubbish):
        assert plan(requests, 0, model, offered=offered).order == alone.order
    assert plan(requests, 0, model, offered=[*rubbish, better]).order == tuple(better)


def test_small_gaps_are_read_through_and_large_ones_are_not():
    gap = LTO8.break_even_bytes()
    near = [Request(0, 10**8), Request(10**8 + gap - 1000, 10**8)]
    far = [Request(0, 10**8), Request(10**8 + gap + 1000, 10**8)]
    wrap = LTO8.generation.wrap_bytes
    turn = [Request(wrap - 2 * 10**8, 10**8), Request(wrap + 10**8, 10**8)]
    assert [len(pieces_of(each, LTO8, gap)) for each in (near, far, turn)] == [1, 2, 2]


def test_what_overlaps_is_read_once():
    requests = [Request(0, 3 * 10**9), Request(10**9, 10**9), Request(2 * 10**9, 4 * 10**9), Request(0, 3 * 10**9, 5)]
    found = plan(requests, 0, SerpentineModel(LTO8))
    assert found.done[-1] == pytest.approx(LTO8.read_s(6 * 10**9))
    (piece,) = pieces_of(requests, LTO8, 0)
    assert (piece.start, piece.end, piece.weight) == (0, 6 * 10**9, 8)


@settings(max_examples=40, deadline=None)
@given(
    some.lists(
        some.tuples(some.integers(0, 11 * 10**12), some.integers(0, 10**11), some.floats(0.01, 100)),
        min_size=1,
        max_size=40,
    ),
    some.integers(0, 12 * 10**12),
)
def test_what_is_predicted_is_what_the_definition_says(task, head):
    requests = [Request(start, length, weight) for start, length, weight in task]
    found = plan(requests, head, SerpentineModel(LTO8), budget_s=0.02)
    assert sorted(found.order) == list(range(len(requests)))
    done = simulate_lto(requests, head, LTO8, found.order)
    assert [done[index] for index in found.order] == pytest.approx(found.done)
    assert found.cost == pytest.approx(cost_of(requests, done))
    assert found.cost <= cost_of(requests, simulate_lto(requests, head, LTO8, by_block(requests))) * (1 + 1e-9)
