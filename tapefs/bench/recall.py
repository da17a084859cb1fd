"""`scripts/bench recall`: the planner's goals, on instances made from seeds, with plots. One thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from tapefs.bench import recall_arrivals, recall_linear, recall_lto, recall_tapes
from tapefs.bench.plot import Series, bars, curves
from tapefs.bench.stand import Result

_PLOTTED_CASES = 6


def run(plots: Path | None) -> list[Result]:
    """Return lines of the table; draw to `plots`, if it is said."""
    linear, tapes = recall_linear.run()
    lto, cases = recall_lto.run()
    coming, loads = recall_arrivals.run()
    if plots is not None:
        (plots / "recall-linear.svg").write_text(_plot_linear(tapes))
        (plots / "recall-lto.svg").write_text(_plot_lto(cases))
        (plots / "recall-arrivals.svg").write_text(_plot_arrivals(loads))
    return [*linear, *lto, *coming, *recall_tapes.run()]


def _plot_linear(tapes: Mapping[str, Sequence[recall_linear.Compared]]) -> str:
    compared = tapes["a turn costs a mean file"]

    def above(name: str, costs: Sequence[float]) -> Series:
        return Series(name, sorted(100 * (cost / each.exact - 1) for cost, each in zip(costs, compared, strict=True)))

    return curves(
        "Straight tapes: waiting above the optimum, a turn costs a mean file",
        " %",
        f"{len(compared)} clustered tapes, each curve sorted",
        [
            above("planner", [each.ours for each in compared]),
            above("each file by itself", [each.singly for each in compared]),
            above("by position", [each.by_position for each in compared]),
        ],
        most=100,
    )


def _plot_lto(cases: Mapping[recall_lto.Case, Sequence[recall_lto.Compared]]) -> str:
    shown = list(cases)[:_PLOTTED_CASES]
    return bars(
        "LTO: mean waiting, by block = 1",
        "",
        [str(case).replace(", ", "\n").replace(" in ", "\nin ") for case in shown],
        [
            Series("planner", [mean(each.ours for each in cases[case]) for case in shown]),
            Series("always the nearest", [mean(each.nearest for each in cases[case]) for case in shown]),
            Series("there and back", [mean(each.scan for each in cases[case]) for case in shown]),
            Series("as asked", [mean(each.as_asked for each in cases[case]) for case in shown]),
        ],
        most=2,
    )


def _plot_arrivals(loads: Sequence[recall_arrivals.Compared]) -> str:
    groups = [f"{each.per_hour} an hour\n{what}" for each in loads for what in ("mean", "longest")]

    def minutes(name: str, responses: Sequence[Sequence[float]]) -> Series:
        return Series(name, [value / 60 for each in responses for value in (mean(each), max(each))])

    return bars(
        "Requests that come to one mounted LTO-8: minutes of waiting",
        "",
        groups,
        [
            minutes("rounds", [each.ours for each in loads]),
            minutes("always the nearest", [each.nearest for each in loads]),
            minutes("by block", [each.by_block for each in loads]),
        ],
        most=100,
    )
