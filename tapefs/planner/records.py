"""What a planner is asked and what it answers. Pure; any thread."""

from __future__ import annotations

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

    def read(self, request: Request) -> float:
        """Return the time to read a request once the head is at its start."""


def assess(requests: Sequence[Request], head: float, model: Model, order: Sequence[int], method: str) -> Plan:
    """Return the plan that serves the requests in this order; equal ones are read once."""
    now, cost, at = 0.0, 0.0, head
    done = []
    served: dict[tuple[float, float], float] = {}
    for index in order:
        request = requests[index]
        piece = request.start, request.length
        if piece not in served:
            now += model.locate(at, request.start) if served else model.set_out(at, request.start)
            now += model.read(request)
            at = request.end
            served[piece] = now
        done.append(served[piece])
        cost += request.weight * served[piece]
    return Plan(tuple(order), tuple(done), cost, method)
