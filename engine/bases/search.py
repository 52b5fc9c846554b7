"""How many edges a section needs: the published bisection, step by step, and a robust rule.

The published search halves between none and all of `total` = (d + 1)(d′ + 1) edges, sizes before
any cut and with the constants, as if the score rose with the number of edges. It does not always,
so what it ends at hangs on its steps, which are reproduced. A number above that of all edges asks
for the network as it is. The robust rule is the smallest number of a grid from which on every
larger one passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np


def middle(low: int, high: int) -> int:
    """The next number of edges to be left out."""
    found = (low + high) // 2
    found += found == low
    return found - (found == high)


def ahead(low: int, high: int, levels: int, tolerance: int = 1) -> Iterator[int]:
    """The numbers that the next `levels` steps of a bisection may ask for, whatever it finds, so
    that they can be tried at once: at most 2^levels − 1."""
    if levels == 0 or high - low <= tolerance:
        return
    found = middle(low, high)
    yield found
    yield from ahead(found, high, levels - 1, tolerance)
    yield from ahead(low, found, levels - 1, tolerance)


def bisected(
    total: int, passes: Callable[[Iterable[int]], Mapping[int, bool]], levels: int = 1
) -> tuple[int, list[int]]:
    """The published search, some levels at once.

    Args:
        passes: which of some numbers of edges suffice.
        levels: how many steps are tried ahead; what is found is the same.

    Returns:
        The number that is needed, and those that the published search asks for, in order.
    """
    low, high, asked = 0, total, []
    known: dict[int, bool] = {}
    while high - low > 1:
        keep = total - middle(low, high)
        if keep not in known:
            known |= passes([total - out for out in ahead(low, high, levels)])
        asked.append(keep)
        low, high = (total - keep, high) if known[keep] else (low, total - keep)
    return total - low, asked


def log_sizes(n: int, points: int) -> list[int]:
    """Numbers of edges from 1 to n, evenly spaced by ratio."""
    if n < 1:
        return []
    return sorted({int(k) for k in np.unique(np.round(np.geomspace(1, n, points)))})


def smallest_robust(passed: Mapping[int, bool]) -> int | None:
    """The smallest number from which on all larger ones pass; None if the largest does not."""
    found = None
    for n in sorted(passed, reverse=True):
        if not passed[n]:
            break
        found = n
    return found


def is_enough(score: Any, base: Any, within: float, more: bool) -> Any:
    """Whether a score is within a bound of the network's own; `more`: more is better."""
    return score >= base - within if more else score <= base + within
