"""Timing two sides in one run and printing their ratio against a ceiling."""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def median_s(work: Callable[[], Any], repeats: int) -> float:
    """Median seconds of `work` after one warm-up."""
    work()
    return statistics.median(_once(work) for _ in range(repeats))


def _once(work: Callable[[], Any]) -> float:
    _synchronize()
    start = time.perf_counter()
    work()
    _synchronize()
    return time.perf_counter() - start


def ratios(cost: Callable[[], Any], unit: Callable[[], Any], repeats: int) -> list[float]:
    """What `cost` takes in units of `unit`, run in turn so that a busy machine slows both; sorted,
    after one warm-up."""
    cost(), unit()
    return sorted(_once(cost) / _once(unit) for _ in range(repeats))


def quartiles(values: list[float]) -> list[float]:
    """The first, second and third."""
    return [round(q, 2) for q in statistics.quantiles(values, n=4, method="inclusive")]


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def report(name: str, cost_s: float, unit_s: float, goal: float, **measured: Any) -> None:
    """One JSON line: `ratio` is a cost (smaller is better), `goal` its ceiling."""
    line = {
        "name": name,
        "ratio": round(cost_s / unit_s, 3),
        "goal": goal,
        "cost_s": round(cost_s, 4),
        "unit_s": round(unit_s, 4),
        **measured,
    }
    print(json.dumps(line), flush=True)
