"""The one way into the planners. Pure but for the clock of a budget; any thread."""

from __future__ import annotations

from collections.abc import Sequence

from tapefs.planner.linear import LinearModel
from tapefs.planner.linear_plan import plan_linear
from tapefs.planner.records import Plan, Request, assess
from tapefs.planner.serpentine import SerpentineModel
from tapefs.planner.serpentine_plan import plan_serpentine

#: A mount takes a minute or two, and an order of thousands of pieces hardly gains from more than this.
BUDGET_S = 1.0


def plan(
    requests: Sequence[Request],
    head: float,
    model: LinearModel | SerpentineModel,
    budget_s: float = BUDGET_S,
    offered: Sequence[Sequence[int]] = (),
) -> Plan:
    """Return an order of service for a `head` that stands where it is, by the model never worse than by position.

    `budget_s`: how long an LTO order is made better; the rest takes up to a second more for 10,000 requests. `offered`:
    orders by somebody else, the drive itself for instance, as indices of the requests; the plan is not worse than they
    are, and one that has not every request once is left out. Raises UsageError for requests that the model cannot
    serve.
    """
    each_once = list(range(len(requests)))
    offered = [order for order in offered if sorted(order) == each_once]
    if not requests:
        return Plan((), (), 0.0, "nothing to do")
    if isinstance(model, LinearModel):
        found = plan_linear(requests, head, model)
        rivals = (assess(requests, head, model, order, "offered") for order in offered)
        return min((found, *rivals), key=lambda each: each.cost)
    return plan_serpentine(requests, head, model, budget_s, offered)
