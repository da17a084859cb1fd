"""Requests that come at random to one mounted LTO cartridge: goals D1 and D2. A simulation; one thread."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Protocol

from drivers.virtual.motion import motion_of
from tapefs.bench.stand import Result
from tapefs.planner.records import Request
from tapefs.planner.rounds import Rounds, Terms
from tapefs.planner.serpentine import SerpentineModel

REQUESTS = 3000
_LENGTH_BYTES = 10**9
#: Per hour: most of the drive's time is left; busy; more than it can do but in a good order.
LOADS = (50, 120, 180)
#: Goals at these loads, against always the nearest: the mean, and the longest wait.
_MEANS = {120: 1.5, 180: 1.8}
_MOST = 0.6
#: Short budgets, for there are hundreds of rounds.
SIMULATED = Terms(budget_s=0.05, replan_s=0.02)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request and when it comes."""

    at_s: float
    request: Request


class Policy(Protocol):
    """Who decides what is read next. Requests are known by their number."""

    def add(self, number: int, request: Request, head: float, now_s: float) -> None:
        """Take a newcomer."""

    def take(self, head: float, now_s: float) -> int | None:
        """Return what to read now."""


class Nearest:
    """Always the nearest."""

    def __init__(self, model: SerpentineModel) -> None:
        self._model = model
        self._waiting: dict[int, Request] = {}

    def add(self, number: int, request: Request, head: float, now_s: float) -> None:
        """Take a newcomer."""
        self._waiting[number] = request

    def take(self, head: float, now_s: float) -> int | None:
        """Return what to read now."""
        waiting, locate = self._waiting, self._model.locate
        found = min(waiting, key=lambda number: locate(head, waiting[number].start), default=None)
        if found is not None:
            del waiting[found]
        return found


class ByBlock(Nearest):
    """Up the blocks from the head, and from the first again."""

    def take(self, head: float, now_s: float) -> int | None:
        """Return what to read now."""
        waiting = self._waiting
        found = min(waiting, key=lambda number: (waiting[number].start < head, waiting[number].start), default=None)
        if found is not None:
            del waiting[found]
        return found


class InRounds:
    """The planner's rounds; notes how many rounds each waited."""

    def __init__(self, model: SerpentineModel, terms: Terms) -> None:
        self._rounds: Rounds[int] = Rounds(model, terms)
        self.most_rounds = 0

    def add(self, number: int, request: Request, head: float, now_s: float) -> None:
        """Take a newcomer."""
        self._rounds.add(number, request, head, now_s)

    def take(self, head: float, now_s: float) -> int | None:
        """Return what to read now."""
        wish = self._rounds.take(head, now_s)
        if wish is None:
            return None
        self.most_rounds = max(self.most_rounds, self._rounds.number - wish.came_in)
        return wish.key


def arrivals(seed: int, per_hour: float, count: int = REQUESTS, generation: int = 8) -> list[Arrival]:
    """Return requests of 1 GB anywhere on a cartridge, at random times."""
    chance = random.Random(seed)  # noqa: S311 - no secret: the same requests every time
    room = motion_of(generation).generation.capacity_bytes - _LENGTH_BYTES
    now_s, found = 0.0, []
    for _ in range(count):
        now_s += chance.expovariate(per_hour / 3600)
        found.append(Arrival(now_s, Request(chance.randrange(room), _LENGTH_BYTES)))
    return found


def simulate(coming: Sequence[Arrival], policy: Policy, model: SerpentineModel) -> list[float]:
    """Return the seconds that each request took from its arrival to its end."""
    responses = [0.0] * len(coming)
    now_s, head, come, done = 0.0, 0.0, 0, 0
    while done < len(coming):
        number = policy.take(head, now_s)
        if number is None:
            now_s = max(now_s, coming[come].at_s)
        else:
            request = coming[number].request
            now_s += model.locate(head, request.start) + model.read(request.length)
            head = request.end
            responses[number] = now_s - coming[number].at_s
            done += 1
        while come < len(coming) and coming[come].at_s <= now_s:
            policy.add(come, coming[come].request, head, now_s)
            come += 1
    return responses


@dataclass(frozen=True, slots=True)
class Compared:
    """Responses in seconds, one list per policy, and how many rounds anybody waited at most."""

    per_hour: int
    ours: list[float]
    nearest: list[float]
    by_block: list[float]
    most_rounds: int


def compare(per_hour: int, seed: int = 1, count: int = REQUESTS) -> Compared:
    """Return what the policies make of the same requests."""
    model, coming = SerpentineModel(motion_of(8)), arrivals(seed, per_hour, count)
    rounds = InRounds(model, SIMULATED)
    ours = simulate(coming, rounds, model)
    nearest, by_block = (simulate(coming, policy, model) for policy in (Nearest(model), ByBlock(model)))
    return Compared(per_hour, ours, nearest, by_block, rounds.most_rounds)


def run() -> tuple[list[Result], list[Compared]]:
    """Return lines of the table, and what was compared."""
    compared = [compare(per_hour) for per_hour in LOADS]
    return [result for each in compared for result in _results(each)], compared


def _results(compared: Compared) -> list[Result]:
    what = f"waiting, one LTO-8, {compared.per_hour} requests an hour"
    goal = _MEANS.get(compared.per_hour)
    to_mean, to_most = mean(compared.ours) / mean(compared.nearest), max(compared.ours) / max(compared.nearest)
    text = f"{mean(compared.ours) / 60:.1f} min, at most {max(compared.ours) / 60:.0f}"
    theirs = f"{mean(compared.nearest) / 60:.1f} min, at most {max(compared.nearest) / 60:.0f}"
    mean_goal, most_goal = ("", "") if goal is None else (f"≤ {goal} (D1)", f"≤ {_MOST} (D1)")
    rounds = f"{compared.most_rounds} rounds later at most"
    return [
        Result(what, text, "nearest first", theirs, to_mean, mean_goal, goal is None or to_mean <= goal),
        Result("the same, at most", "", "nearest first", "", to_most, most_goal, goal is None or to_most <= _MOST),
        Result("the same", rounds, "", "", None, "≤ 1 (D2)", compared.most_rounds <= 1),
    ]
