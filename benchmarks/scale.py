"""What a sweep of many cells costs beside its works: CPU seconds of each phase, memory, the page.

    python -m benchmarks.scale [CELLS ...]     (default 40 125 400; the last takes some 20 minutes)

Each sweep is real, on the tiny model, serial, in a process of its own: EAP, and integrated
gradients in as many numbers of steps as it takes, on prompts of five seeds. Between two sweeps the
exponent of growth is printed: 1 is linear.
"""

import argparse
import json
import math
import multiprocessing
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edgesweep.sweeps import driver
from edgesweep.sweeps.actor.context import WorkerSettings
from edgesweep.sweeps.actor.worker import make_worker
from edgesweep.sweeps.command.cli import make_page
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import drive, start
from edgesweep.sweeps.progress import Silence

SEEDS = 5
#: functions that the driver calls, and what each is
PHASES = {
    "prepare": "arrays",
    "rows_of_cells": "parts",
    "write_parts": "parts",
    "build_tables": "tables",
}


def config(n_cells: int) -> dict[str, Any]:
    """A sweep of so many cells, a multiple of the seeds."""
    steps = list(range(1, n_cells // SEEDS))
    sweep = {"model": "tiny-random", "task": "ioi", "seed": list(range(SEEDS)), "steps": steps}
    return {
        "name": f"scale-{n_cells}",
        "sweep": {**sweep, "method": ["eap", "ig_inputs"]},
        "evaluate": {"threshold": [5, 20, 100], "metric": ["logit_diff", "kl"]},
        "data": {"n_build": 8, "n_eval": 8},
        "blocks": {"fit": "none"},
        "execution": {"executor": "serial", "micro_batch": 4, "shard_inputs": 4},
    }


def rss_mb() -> int:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 2**20


class Clock:
    """CPU seconds by phase, and the memory of the process at the end of it, at most."""

    def __init__(self) -> None:
        self.cpu_s: Counter[str] = Counter()
        self.rss_mb: dict[str, int] = {}

    def timed(self, name: str, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        try:
            return work(*args, **kwargs)
        finally:
            self.cpu_s[name] += time.process_time() - began
            self.rss_mb[name] = max(self.rss_mb.get(name, 0), rss_mb())

    def worker(self, settings: WorkerSettings) -> Any:
        return partial(self.timed, "works", make_worker(settings))

    def page(self, run: Any, state: str) -> Any:
        return self.timed("page", lambda: list(make_page(run, state)))


def measure(n_cells: int) -> dict[str, Any]:
    """One sweep from its config to its page."""
    clock = Clock()
    for name, phase in PHASES.items():
        setattr(driver, name, partial(clock.timed, phase, getattr(driver, name)))
    with tempfile.TemporaryDirectory() as folder:
        launch = clock.timed("plan", start, parse_config(config(n_cells)), Path(folder) / "run")
        began, wall = time.process_time(), time.monotonic()
        outcome = drive(launch, Silence(), clock.worker, page=clock.page)
        all_s, wall_s = time.process_time() - began, time.monotonic() - wall
        pages = launch.run.path.rglob("*.html")
        page_mb = sum(page.stat().st_size for page in pages) / 1e6
    rest_s = all_s - sum(clock.cpu_s.values()) + clock.cpu_s["plan"]
    return {
        "cells": len(launch.plan.cells),
        "shards": sum(map(len, launch.plan.stages.values())),
        "left": outcome.left,
        "cpu_s": {name: round(s, 2) for name, s in (*clock.cpu_s.items(), ("rest", rest_s))},
        "rss_mb": clock.rss_mb,
        "driver_ms_a_cell": _milliseconds_a_cell(clock.cpu_s, rest_s, n_cells),
        "wall_s": round(wall_s, 1),
        "most_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "page_mb": round(page_mb, 1),
    }


def _milliseconds_a_cell(cpu_s: Counter[str], rest_s: float, n_cells: int) -> dict[str, float]:
    """Of the driver: planning, arrays and all that is not named; with tables, and with the page."""
    bare = cpu_s["plan"] + cpu_s["arrays"] + rest_s
    tables = bare + cpu_s["parts"] + cpu_s["tables"]
    told = {"bare": bare, "with tables": tables, "with the page": tables + cpu_s["page"]}
    return {name: round(1000 * s / n_cells, 1) for name, s in told.items()}


def exponents(few: dict[str, Any], many: dict[str, Any]) -> dict[str, float]:
    """By which power of the cells each phase has grown."""
    growth = math.log(many["cells"] / few["cells"])
    pairs = ((name, s, many["cpu_s"].get(name, 0.0)) for name, s in few["cpu_s"].items())
    return {name: round(math.log(b / a) / growth, 2) for name, a, b in pairs if a > 0.2 and b > 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", type=int, nargs="*", default=[40, 125, 400])
    found: list[dict[str, Any]] = []
    for n_cells in parser.parse_args().cells:
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            found.append(alone.apply(measure, (n_cells,)))
        print(json.dumps(found[-1]), flush=True)
        if len(found) > 1:
            print(json.dumps({"exponents": exponents(*found[-2:])}), flush=True)


if __name__ == "__main__":
    main()
