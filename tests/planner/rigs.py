"""Instances, and simulators written from the definitions: they know nothing of the planner's formulas."""

from __future__ import annotations

import random
from itertools import permutations

from tapefs.planner.records import Request


def simulate_linear(requests, head, u_turn, order):
    """Return when each request has been crossed, by following the head from turn to turn.

    Also checks that no request was crossed from left to right before its turn in the order: then it would have been
    served there.
    """
    now, at, heading = 0.0, head, None
    legs = []

    def go(target):
        nonlocal now, at, heading
        if target == at:
            return
        new = "right" if target > at else "left"
        if heading not in (None, new):
            now += u_turn
        heading = new
        now += abs(target - at)
        legs.append((at, target))
        at = target

    done = {}
    for index in order:
        request = requests[index]
        go(request.start)
        for begin, end in legs:
            assert not begin <= request.start < request.end <= end, "it had been served before"
        if heading == "left":
            # To serve it the head turns, even if there is nothing to cross.
            now += u_turn
            heading = "right"
        go(request.end)
        done[index] = now
    return [done[index] for index in range(len(requests))]


def cost_of(requests, done):
    """Return the weighted sum of service times."""
    return sum(request.weight * time for request, time in zip(requests, done, strict=True))


def best_of_all(requests, head, u_turn):
    """Return the least cost of all orders."""
    return min(
        cost_of(requests, _follow(requests, head, u_turn, order)) for order in permutations(range(len(requests)))
    )


def _follow(requests, head, u_turn, order):
    done = [0.0] * len(requests)
    now, at, turns = 0.0, head, 1
    for index in order:
        request = requests[index]
        now += abs(request.start - at) + (turns * u_turn if request.start < at else 0) + request.length
        at, turns = request.end, 2
        done[index] = now
    return done


def scattered(seed, count, length=10_000, weights=(1, 1, 2, 5)):
    """Return disjoint requests at random, in random order."""
    chance = random.Random(seed)
    cuts = sorted(chance.sample(range(length + 1), 2 * count))
    pairs = list(zip(cuts[::2], cuts[1::2], strict=True))
    chance.shuffle(pairs)
    return [Request(start, end - start, chance.choice(weights)) for start, end in pairs]


def on_tape(seed, count, motion, length=2_000_000_000, clusters=0):
    """Return requests anywhere on a cartridge, or within some 30 GB of a few places."""
    chance = random.Random(seed)
    room = motion.generation.capacity_bytes - length
    if not clusters:
        return [Request(chance.randrange(room), length) for _ in range(count)]
    places = [chance.randrange(room) for _ in range(clusters)]
    offsets = [round(chance.gauss(chance.choice(places), 30e9)) for _ in range(count)]
    return [Request(min(max(0, offset), room), length) for offset in offsets]


def simulate_lto(requests, head, motion, order):
    """Return when each request has been read, with a list of the stretches that the drive has read since its locate."""
    now, at, begun = 0.0, int(head), None
    done = {}
    for index in order:
        start, end = int(requests[index].start), int(requests[index].end)
        if begun is None or not begun <= start < at:
            now += motion.locate_s(at, start)
            at = begun = start
        if end > at:
            now += motion.read_s(end - at)
            at = end
        done[index] = now
    return [done[index] for index in range(len(requests))]
