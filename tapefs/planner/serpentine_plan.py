"""The planner for LTO cartridges: several orders, made better, the best of all. Pure but for its budget; any thread."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import permutations

from tapefs.planner.records import Plan, Request, assess
from tapefs.planner.serpentine import Piece, SerpentineModel, in_full, in_pieces, pieces_of

#: All orders of so many pieces are tried in 2 ms, without numpy, which takes 100 ms to import.
_VERY_FEW = 5

Order = Sequence[int]


def plan_serpentine(
    requests: Sequence[Request], head: float, model: SerpentineModel, budget_s: float, offered: Sequence[Order] = ()
) -> Plan:
    """Return an order, by the model never worse than by block or than those offered."""
    apart = pieces_of(requests, model.motion, 0)
    orders = [(in_full(apart, range(len(apart))), "by block"), *((order, "offered") for order in offered)]
    if len(apart) <= _VERY_FEW:
        orders += [(in_full(apart, order), "exact") for order in permutations(range(len(apart)))]
    else:
        orders += _orders(requests, head, model, apart, budget_s, offered)
    return min((assess(requests, head, model, *order) for order in orders), key=lambda plan: plan.cost)


def _orders(
    requests: Sequence[Request],
    head: float,
    model: SerpentineModel,
    apart: list[Piece],
    budget_s: float,
    offered: Sequence[Order],
) -> Iterator[tuple[Order, str]]:
    from tapefs.planner import serpentine_exact, serpentine_orders, serpentine_search
    from tapefs.planner.serpentine_costs import Costs

    if len(apart) <= serpentine_exact.FEW:
        yield in_full(apart, serpentine_exact.best_of_few(Costs(model.motion, head, apart))), "exact"
        return
    pieces = pieces_of(requests, model.motion, model.motion.break_even_bytes())
    costs = Costs(model.motion, head, pieces)
    begun = [
        (serpentine_orders.by_block(costs), "by block"),
        (serpentine_orders.scan(costs), "scan"),
        (serpentine_orders.nearest(costs, with_reading=False), "nearest"),
        (serpentine_orders.nearest(costs, with_reading=True), "nearest with reading"),
        *((in_pieces(pieces, order), "offered") for order in offered),
    ]
    begun.sort(key=lambda each: costs.response(each[0]))
    until = time.monotonic() + budget_s
    bettered: list[tuple[float, list[int], str]] = []
    for order, method in begun:
        # The best gets half of the time; where it needs less, others may overtake it.
        better = serpentine_search.improve(costs, order, (until - time.monotonic()) / 2)
        bettered.append((costs.response(better), better, f"{method}, bettered"))
    _, best, method = min(bettered)
    yield in_full(pieces, serpentine_search.kick(costs, best, until - time.monotonic())), method
