"""The best order of few pieces on an LTO cartridge. numpy; pure; any thread."""

from __future__ import annotations

import numpy as np

from tapefs.planner.serpentine_costs import Costs

#: 12 pieces take 5 ms, each more twice as long.
FEW = 12


def best_of_few(costs: Costs) -> list[int]:
    """Return the order with the least weighted sum of responses, by dynamic programming over sets of pieces.

    `least[s, j]` is what all pieces have waited until the pieces of the set s are read, j last; a second of work makes
    all wait that are not in the set of before.
    """
    count = len(costs) - 1
    points = np.arange(1, count + 1)
    steps = costs.cost(points[:, None], points[None, :])
    bits = 1 << np.arange(count)
    sets = np.arange(1 << count)
    is_in = (sets[:, None] & bits) != 0
    waiting = (~is_in).astype(float) @ costs.weights[1:]
    least = np.full((len(sets), count), np.inf)
    before = np.zeros((len(sets), count), dtype=np.intp)
    least[bits, np.arange(count)] = costs.cost(np.zeros(count, dtype=np.intp), points) * waiting[0]
    sizes = is_in.sum(axis=1)
    for size in range(2, count + 1):
        for last in range(count):
            here = sets[(sizes == size) & is_in[:, last]]
            rest = here ^ bits[last]
            options = least[rest] + steps[:, last] * waiting[rest][:, None]
            before[here, last] = options.argmin(axis=1)
            least[here, last] = options.min(axis=1)
    order: list[int] = []
    here_set, last = len(sets) - 1, int(least[-1].argmin())
    for _ in range(count):
        order.append(last)
        here_set, last = here_set ^ (1 << last), int(before[here_set, last])
    return order[::-1]
