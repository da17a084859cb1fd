"""Which tape comes next when several compete for drives. Pure; any thread.

Always the tape with the oldest request is fair and dear: popular tapes are fetched for few requests. Always the tape
with most requests, or most per time, forgets the others. Waiting that counts as weight, by the time that serving it
takes, is better than the first and does not forget; tapes that waited too long in spite of it come first, but never in
more than a part of the drives, so that an overload does not turn into always the oldest.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tapefs.planner.rounds import AGEING_S

K = TypeVar("K", bound=Hashable)

#: A tape whose oldest request has waited so long is overdue.
OVERDUE_S = 3600.0
#: Overdue tapes come first in one drive of so many.
_DRIVES_PER_OVERDUE = 4


@dataclass(frozen=True, slots=True)
class Demand(Generic[K]):
    """What is wanted of one tape that is in no drive."""

    tape: K
    #: The sum over its requests of priority times (1 + age / AGEING_S).
    weight: float
    #: How long its oldest request has waited.
    oldest_s: float
    #: How long reading all of it will take once the tape is loaded.
    service_s: float


def weight_of(age_s: float, priority: float = 1.0) -> float:
    """Return what one request adds to the weight of its tape."""
    return priority * (1 + max(0.0, age_s) / AGEING_S)


def next_tape(
    demands: Iterable[Demand[K]], exchange_s: float, drives: int, overdue_drives: int, overdue_s: float = OVERDUE_S
) -> tuple[K, bool] | None:
    """Return the tape to load, and whether that is because it is overdue; None when nothing is wanted.

    `exchange_s`: what changing tapes takes; `overdue_drives`: how many drives serve tapes now that were overdue.
    """
    wanted = list(demands)
    if not wanted:
        return None
    late = [demand for demand in wanted if demand.oldest_s > overdue_s]
    if late and overdue_drives < math.ceil(drives / _DRIVES_PER_OVERDUE):
        return max(late, key=lambda demand: demand.oldest_s).tape, True
    return max(wanted, key=lambda demand: demand.weight / (exchange_s + demand.service_s)).tape, False
