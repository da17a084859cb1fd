"""Requests that come while a tape is being read: rounds. Pure but for the budget of planning; one task at a time.

What waits when a round begins is planned together and read in that order. Who comes later joins the round only where he
is nearly on the way, and only until half of the round's time has been added; everybody else is of the next round. So
nobody waits longer than for the rest of this round and the next, whatever comes. Always taking the nearest lets the far
ones wait for ever; putting the oldest first beyond some age turns an overload into first come, first served, which
is several times slower and never recovers.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from tapefs.planner.plan import plan
from tapefs.planner.records import Request
from tapefs.planner.serpentine import SerpentineModel

K = TypeVar("K", bound=Hashable)

#: A request weighs as much again for every ten minutes it has waited.
AGEING_S = 600.0


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms newcomers join a round."""

    #: The way there and back to the plan may take so long, reading apart.
    join_s: float = 12.0
    #: All joins together, reading included, as a share of the round as it was planned.
    join_share: float = 0.5
    #: Time to make the order of a round better, and its tail after joins.
    budget_s: float = 1.0
    replan_s: float = 0.1


@dataclass(frozen=True, slots=True)
class Wish(Generic[K]):
    """A request with its owner."""

    key: K
    request: Request
    since_s: float
    #: Number of the round that ran when it came; 0 before the first.
    came_in: int


def aged(request: Request, since_s: float, now_s: float) -> Request:
    """Return the request with its age in its weight."""
    return replace(request, weight=request.weight * (1 + max(0.0, now_s - since_s) / AGEING_S))


class Rounds(Generic[K]):
    """What is wanted of one tape in its drive, and what comes next."""

    def __init__(self, model: SerpentineModel, terms: Terms | None = None) -> None:
        self._model = model
        self._terms = terms or Terms()
        #: The rest of this round, in order; those of the next.
        self._tail: list[Wish[K]] = []
        self._next: list[Wish[K]] = []
        #: What may still be added to this round.
        self._room_s = 0.0
        self._is_stale = False
        #: Number of the round that runs; it counts from 1.
        self.number = 0

    def __len__(self) -> int:
        """Return how many requests have not been handed out."""
        return len(self._tail) + len(self._next)

    def add(self, key: K, request: Request, head: float, now_s: float) -> bool:
        """Take a newcomer; return whether he joins this round. `head`: where the head will be next."""
        wish = Wish(key, request, now_s, self.number)
        found = self._cheapest(request, head) if self._tail else None
        if found is None:
            self._next.append(wish)
            return False
        place, cost_s = found
        self._tail.insert(place, wish)
        self._room_s -= cost_s + self._model.read(request.length)
        self._is_stale = True
        return True

    def drop(self, key: K) -> bool:
        """Forget a request that has not been handed out; return whether there was one."""
        before = len(self)
        self._tail = [wish for wish in self._tail if wish.key != key]
        self._next = [wish for wish in self._next if wish.key != key]
        return len(self) < before

    def take(self, head: float, now_s: float) -> Wish[K] | None:
        """Return the next request to read, who is handed out with that; None when nothing is wanted."""
        if not self._tail:
            self._begin(head, now_s)
        elif self._is_stale and len(self._tail) > 1:
            self._order(head, now_s, self._terms.replan_s)
        self._is_stale = False
        return self._tail.pop(0) if self._tail else None

    def _begin(self, head: float, now_s: float) -> None:
        self._tail, self._next = self._next, []
        if self._tail:
            self.number += 1
            self._room_s = self._terms.join_share * self._order(head, now_s, self._terms.budget_s)

    def _order(self, head: float, now_s: float, budget_s: float) -> float:
        """Plan the tail anew; return how long it takes."""
        requests = [aged(wish.request, wish.since_s, now_s) for wish in self._tail]
        found = plan(requests, head, self._model, budget_s)
        self._tail = [self._tail[index] for index in found.order]
        return found.done[-1]

    def _cheapest(self, request: Request, head: float) -> tuple[int, float] | None:
        """Return where in the tail a newcomer fits best and what that costs; None when it is too dear."""
        read_s = self._model.read(request.length)
        most_s = min(self._terms.join_s, self._room_s - read_s)
        if most_s <= 0:
            return None
        locate = self._model.locate
        ends = [head, *(wish.request.end for wish in self._tail)]
        starts = [wish.request.start for wish in self._tail]
        there_s = [locate(end, request.start) for end in ends]
        costs = [
            there + locate(request.end, start) - locate(end, start)
            for there, end, start in zip(there_s, ends, starts, strict=False)
        ]
        costs.append(there_s[-1])
        place = min(range(len(costs)), key=costs.__getitem__)
        return (place, costs[place]) if costs[place] < most_s else None
