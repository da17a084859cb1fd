"""What a planner is asked and what it answers. Pure; any thread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """A piece of tape that is wanted. Unit of length: the model's."""

    #: Where it begins, counted from the start of the tape.
    start: float
    length: float
    #: What a second of waiting for it costs; above 0. How many wait, their priority, their age.
    weight: float = 1.0

    @property
    def end(self) -> float:
        """Return where it ends."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Plan:
    """An order of service, and when the model expects each."""

    #: Indices of the requests, each once.
    order: tuple[int, ...]
    #: When the request at the same place of `order` has been read, counted from the start, in the model's unit of time.
    done: tuple[float, ...]
    #: The sum over the requests of weight times `done`: what was minimised.
    cost: float
    #: By which way the order was found.
    method: str


class Model(Protocol):
    """How long a drive needs."""

    def set_out(self, head: float, target: float) -> float:
        """Return the time from standing at `head` until a transfer can begin at `target`."""

    def locate(self, start: float, target: float) -> float:
        """Return the time from the end of a transfer at `start` until one can begin at `target`."""

    def read(self, length: float) -> float:
        """Return the time to read so much once the head is there."""


def assess(requests: Sequence[Request], head: float, model: Model, order: Sequence[int], method: str) -> Plan:
    """Return the plan that serves the requests in this order; what has just been read is not read again."""
    now, cost, at, begun = 0.0, 0.0, head, math.inf
    done: list[float] = []
    for index in order:
        request = requests[index]
        if begun <= request.start < at:
            now += model.read(max(0.0, request.end - at))
            at = max(at, request.end)
        else:
            now += model.locate(at, request.start) if done else model.set_out(at, request.start)
            now += model.read(request.length)
            at, begun = request.end, request.start
        done.append(now)
        cost += request.weight * now
    return Plan(tuple(order), tuple(done), cost, method)
