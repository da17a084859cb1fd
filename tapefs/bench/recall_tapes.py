"""Many tapes, few drives: goal T1, which tape comes next. A simulation; one thread.

Requests come in bursts of eight on average for one tape, of which some are far more popular than others. A drive
serves what waits for its tape when it is loaded, in a planned order, goes on while more has come meanwhile, and then
takes the next tape. With bursts of exactly eight there is little to choose by but age: the ratio was 0.95 to 1.05.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean

from drivers.virtual.motion import motion_of
from tapefs.bench.stand import Result
from tapefs.planner.plan import plan
from tapefs.planner.records import Request
from tapefs.planner.rounds import aged
from tapefs.planner.serpentine import SerpentineModel
from tapefs.planner.tapes import Demand, next_tape, weight_of

DRIVES = 4
EXCHANGE_S = 110.0
_TAPES = 300
_BURST = 8
_REQUESTS = 2800
_LENGTH_BYTES = 10**9
#: What a request takes in a planned round, about.
_EACH_S = 20.0
_BUDGET_S = 0.01


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request for a tape."""

    at_s: float
    tape: int
    request: Request


Choice = Callable[[Sequence[Demand[int]], int], tuple[int, bool] | None]


def ours(demands: Sequence[Demand[int]], overdue_drives: int) -> tuple[int, bool] | None:
    """The planner's choice."""
    return next_tape(demands, EXCHANGE_S, DRIVES, overdue_drives)


def oldest(demands: Sequence[Demand[int]], overdue_drives: int) -> tuple[int, bool] | None:
    """The tape with the oldest request."""
    return max(demands, key=lambda demand: demand.oldest_s).tape, False


def arrivals(seed: int, per_hour: float, count: int = _REQUESTS) -> list[Arrival]:
    """Return requests of 1 GB, in bursts for tapes whose popularity falls with their number."""
    chance = random.Random(seed)  # noqa: S311 - no secret: the same requests every time
    room = motion_of(8).generation.capacity_bytes - _LENGTH_BYTES
    shares = [1 / (tape + 1) for tape in range(_TAPES)]
    now_s = 0.0
    found: list[Arrival] = []
    while len(found) < count:
        now_s += chance.expovariate(per_hour / _BURST / 3600)
        (tape,) = chance.choices(range(_TAPES), shares)
        burst = math.ceil(math.log(1 - chance.random()) / math.log(1 - 1 / _BURST)) or 1
        found += [Arrival(now_s, tape, Request(chance.randrange(room), _LENGTH_BYTES)) for _ in range(burst)]
    return found


@dataclass(slots=True)
class _Drive:
    """A drive and what it does."""

    #: -1: none yet.
    tape: int = -1
    head: float = 0.0
    is_overdue: bool = False


@dataclass(slots=True)
class Simulation:
    """A library at work."""

    coming: Sequence[Arrival]
    choose: Choice
    responses: list[float] = field(default_factory=list)
    waiting: dict[int, list[Arrival]] = field(default_factory=dict)
    drives: list[_Drive] = field(default_factory=lambda: [_Drive() for _ in range(DRIVES)])
    model: SerpentineModel = field(default_factory=lambda: SerpentineModel(motion_of(8)))

    def run(self) -> list[float]:
        """Return the seconds that each request took."""
        free = [(0.0, number) for number in range(DRIVES)]
        come = 0
        while len(self.responses) < len(self.coming):
            now_s, number = heapq.heappop(free)
            while come < len(self.coming) and self.coming[come].at_s <= now_s:
                self.waiting.setdefault(self.coming[come].tape, []).append(self.coming[come])
                come += 1
            busy_s = self._serve(self.drives[number], now_s)
            if busy_s is not None:
                heapq.heappush(free, (now_s + busy_s, number))
            elif come < len(self.coming):
                heapq.heappush(free, (max(now_s, self.coming[come].at_s), number))
        return self.responses

    def _serve(self, drive: _Drive, now_s: float) -> float | None:
        """Do a round on the tape in the drive, or on another; return what it takes, None when nothing is to do."""
        loading_s = 0.0
        if drive.tape not in self.waiting:
            taken = {each.tape for each in self.drives if each is not drive}
            demands = [self._demand(tape, now_s) for tape in self.waiting if tape not in taken]
            overdue = sum(each.is_overdue for each in self.drives if each is not drive)
            chosen = self.choose(demands, overdue) if demands else None
            if chosen is None:
                drive.is_overdue = False
                return None
            drive.tape, drive.is_overdue = chosen
            drive.head, loading_s = 0.0, EXCHANGE_S
        return loading_s + self._round(drive, self.waiting.pop(drive.tape), now_s + loading_s)

    def _round(self, drive: _Drive, arrived: Sequence[Arrival], begin_s: float) -> float:
        found = plan([aged(each.request, each.at_s, begin_s) for each in arrived], drive.head, self.model, _BUDGET_S)
        self.responses += [
            begin_s + done_s - arrived[index].at_s for index, done_s in zip(found.order, found.done, strict=True)
        ]
        drive.head = arrived[found.order[-1]].request.end
        return found.done[-1]

    def _demand(self, tape: int, now_s: float) -> Demand[int]:
        ages_s = [now_s - each.at_s for each in self.waiting[tape]]
        return Demand(tape, sum(weight_of(age_s) for age_s in ages_s), max(ages_s), _EACH_S * len(ages_s))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share is not above."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def run() -> list[Result]:
    """Return lines of the table."""
    return [result for per_hour in (400, 500) for result in _compare(per_hour)]


def _compare(per_hour: int) -> list[Result]:
    means, tails = [], []
    for seed in range(1, 4):
        coming = arrivals(seed, per_hour)
        theirs, mine = Simulation(coming, oldest).run(), Simulation(coming, ours).run()
        means.append(mean(mine) / mean(theirs))
        tails.append(percentile(mine, 0.99) / percentile(theirs, 0.99))
    what = f"waiting, {DRIVES} drives, {per_hour} requests an hour for {_TAPES} tapes"
    return [
        Result(what, "", "oldest first", "", mean(means), "≤ 0.92 (T1)", mean(means) <= 0.92),
        Result("the same, 99 %", "", "oldest first", "", mean(tails), "≤ 1.5 (T1)", mean(tails) <= 1.5),
    ]
