"""The planner for straight tapes: chooses the algorithm by size. Pure; any thread."""

from __future__ import annotations

from collections.abc import Sequence

from tapefs.planner.linear import LinearModel, Run, Stretch, stretch_of
from tapefs.planner.linear_small import best_of_few
from tapefs.planner.records import Plan, Request, assess

#: So many files in 10 ms without numpy, which takes 100 ms to import.
FEW = 20
#: The table: at most so many files, and files³ · weight; 0.05 s and 5 MB.
_TABLE_FILES = 100
_TABLE_STEPS = 40_000_000
#: Up to so many files a run may begin anywhere: 0.3 s.
_ALL_FILES = 500
#: Beyond so many files the reach is shortened: 10,000 files take 1 s with it, 1.5 s without.
_MANY_FILES = 4_000


def plan_linear(requests: Sequence[Request], head: float, model: LinearModel) -> Plan:
    """Return an order, never worse than by position. Raises RequestsOverlap."""
    stretch = stretch_of(requests, head, model.u_turn)
    runs, method = _runs(stretch)
    found = assess(requests, head, model, stretch.order(runs), method)
    by_position = assess(requests, head, model, stretch.order([]), "by position")
    return min(found, by_position, key=lambda plan: plan.cost)


def _runs(stretch: Stretch) -> tuple[list[Run], str]:
    count = len(stretch)
    if count <= FEW:
        return best_of_few(stretch), "exact"
    if count <= _TABLE_FILES and _is_small_table(stretch):
        from tapefs.planner.linear_exact import best_by_table

        return best_by_table(stretch), "exact"
    from tapefs.planner.linear_lines import Reach, best_by_lines

    if count > _ALL_FILES:
        reach = Reach(near=16, far=8) if count <= _MANY_FILES else Reach(near=8, far=6)
        return best_by_lines(stretch, reach), "lines"
    runs = best_by_lines(stretch, Reach(near=count, far=0))
    if stretch.behind < count:
        return runs, "lines"
    from tapefs.planner.linear_nested import with_nested

    return with_nested(stretch, runs), "lines, nested"


def _is_small_table(stretch: Stretch) -> bool:
    are_whole = all(weight == round(weight) for weight in stretch.weights)
    return are_whole and len(stretch) ** 3 * sum(stretch.weights) <= _TABLE_STEPS
