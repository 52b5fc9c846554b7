"""Grids of thresholds: scores above which edges are kept, or how many that rank first.

`10`, `[10, 100]`, `{log: [low, high, n]}` and `{linear: [low, high, n]}` are numbers, and under a
top-k selection sizes. `{share: …}` of any of these are shares of all that is scored, and `mib` the
ten shares at which the Mechanistic Interpretability Benchmark measures. With `{selection: grid}`
each selection has its own.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgesweep.engine.curves.areas import MIB_SHARES, size_of_share

#: selections whose thresholds are numbers of edges
BY_SIZE = ("topk_value", "topk_abs", "greedy")
#: and those that build on edges, and select no nodes
OF_EDGES = ("greedy",)
MAX_GRID = 1000
#: how grids may be written, in words
FORMS = "numbers, {log: [low, high, n]}, {linear: [low, high, n]}, {share: [0.01, 1]}, mib"
MIB = "mib"


@dataclass(frozen=True)
class Grid:
    """Thresholds, ascending and distinct: scores, or sizes, or where they are `shares` of all that
    is scored."""

    values: tuple[float, ...]
    shares: bool = False

    def of(self, n: int) -> tuple[float, ...]:
        """The thresholds where `n` edges or nodes are scored; no share comes to less than one."""
        if not self.shares:
            return self.values
        return tuple(sorted({float(max(1, size_of_share(s, n))) for s in self.values}))


def grid_of(value: Any, selection: str) -> Grid:
    """A grid as a selection reads it: whole numbers of edges for top-k.

    Raises:
        ValueError: what is wrong with it.
    """
    is_word = isinstance(value, str) and value == MIB
    is_shares = isinstance(value, dict) and set(value) == {"share"}
    if is_word or is_shares:
        return _shares(MIB_SHARES if is_word else grid_values(value["share"]), selection)
    values = grid_values(value)
    if selection not in BY_SIZE:
        return Grid(tuple(sorted(set(values))))
    if min(values) < 1:
        raise ValueError(
            f"has {min(values):g}; a threshold of {selection} is a number of edges, 1 or more, or "
            "a share of them: {share: [0.01, 1]}"
        )
    return Grid(tuple(sorted({float(round(v)) for v in values})))


def _shares(values: Sequence[float], selection: str) -> Grid:
    if selection not in BY_SIZE:
        raise ValueError(
            f"are shares of all edges, and {selection!r} keeps scores above a threshold; give it "
            f"numbers, or select by one of {', '.join(BY_SIZE)}"
        )
    wrong = [v for v in values if not 0 < v <= 1]
    if wrong:
        raise ValueError(f"has {wrong[0]:g}; a share is more than 0 and at most 1")
    return Grid(tuple(sorted(set(values))), shares=True)


def grids_of(value: Any, selections: Sequence[str], known: Sequence[str]) -> dict[str, Grid]:
    """The grid of each selection, of one for all or of one for each.

    Args:
        known: what selections there are.

    Raises:
        ValueError: what is wrong with one, or one too many or too few.
    """
    if not (isinstance(value, dict) and set(value) & set(known)):
        return {s: grid_of(value, s) for s in selections}
    if set(value) != set(selections):
        raise ValueError(
            f"has grids for {', '.join(map(str, value))}, and evaluate.selection is "
            f"{', '.join(selections)}; give one grid for each selection"
        )
    return {s: grid_of(value[s], s) for s in selections}


def grid_values(value: Any) -> tuple[float, ...]:
    """A number, a list of numbers, `{log: [low, high, n]}` or `{linear: [low, high, n]}`.

    Raises:
        ValueError: what is wrong with it.
    """
    if isinstance(value, dict):
        kinds = sorted(str(k) for k in value)
        if kinds not in (["log"], ["linear"]):
            hint = _near(kinds[0], "log", "linear", "share") if kinds else ""
            raise ValueError(f"is no grid; allowed: {FORMS}{hint}")
        return tuple(_spaced(kinds[0], value[kinds[0]]))
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise ValueError("is an empty grid; give at least one threshold")
    if len(values) > MAX_GRID:
        raise ValueError(f"has {len(values)} values; allowed: at most {MAX_GRID}")
    return tuple(_numbers(list(values)))


def _numbers(values: list[Any]) -> list[float]:
    numbers: list[float] = []
    for value in values:
        if isinstance(value, bool):
            raise ValueError("has a yes or no; numbers are wanted (YAML reads on, yes, off, no so)")
        try:
            number = float(value)
        except (TypeError, ValueError):
            hint = _near(str(value), MIB)
            raise ValueError(f"has {value!r}, which is no number{hint}") from None
        if not math.isfinite(number):
            raise ValueError(f"has {value!r}, which is not finite")
        numbers.append(number)
    return numbers


def _spaced(kind: str, bounds: Any) -> list[float]:
    """`log: [low, high, n]` and `linear: [low, high, n]`, ends included."""
    if not isinstance(bounds, list | tuple) or len(bounds) != 3:
        raise ValueError(f"{kind} takes [low, high, number of points]")
    low, high, points = _numbers(list(bounds))
    if points != int(points) or not 1 <= points <= MAX_GRID:
        raise ValueError(f"{kind} has {points:g} points; allowed: 1 to {MAX_GRID}")
    if high < low or (kind == "log" and low <= 0):
        raise ValueError(f"{kind} goes from {low:g} to {high:g}; low must be {_low_rule(kind)}")
    n = int(points)
    shares = [i / (n - 1) for i in range(n)] if n > 1 else [0.0]
    if kind == "log":
        return [float(f"{low * (high / low) ** s:.12g}") for s in shares]
    return [low + (high - low) * s for s in shares]


def _low_rule(kind: str) -> str:
    return "above 0 and not above high" if kind == "log" else "not above high"


def _near(value: str, *known: str) -> str:
    """`; did you mean 'x'?`, or nothing."""
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
