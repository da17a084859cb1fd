"""The one way into the planners. Pure; any thread."""

from __future__ import annotations

from collections.abc import Sequence

from tapefs.planner.linear import LinearModel
from tapefs.planner.linear_plan import plan_linear
from tapefs.planner.records import Plan, Request


def plan(requests: Sequence[Request], head: float, model: LinearModel) -> Plan:
    """Return an order of service for `head` standing where it is, never worse by the model than sorted by position.

    Raises UsageError for requests that the model cannot serve.
    """
    if not requests:
        return Plan((), (), 0.0, "nothing to do")
    return plan_linear(requests, head, model)
