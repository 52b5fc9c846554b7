"""Regions: folding co-moments against one matrix product; the weighted block model against
graph-tool's own search from nothing.

    python -m benchmarks.regions [--units 400]

Seconds are of CPU, this process's and graph-tool's, on one thread. The goals are of 1,500 units;
at 300 graph-tool is the faster one, and ends at a longer description. Units are sums of 30 hidden
causes, with noise. `longer` is how much longer our description is than graph-tool's (a share;
negative: shorter), and graph-tool's own sum of ours must agree (`engine.regions.judge`).
"""

import argparse
import resource
import time

import numpy as np
import torch

from benchmarks.timing import median_s, report
from edgesweep.engine.bases.moments import Moments, fold
from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.engine.regions.correlation import correlation, moments_of
from edgesweep.engine.regions.judge import Judging, judge
from edgesweep.engine.regions.weighted import fit_blocks

SAMPLES, UNITS, PART = 8000, 1600, 1024


def samples(n: int, units: int, seed: int = 0) -> np.ndarray:
    """Rectified sums of hidden causes, `[n, units]`."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=(n, 30))
    made: np.ndarray = np.maximum(causes @ rng.normal(size=(30, units)) / 5, 0)
    return made + rng.normal(size=(n, units)) / 4


def co_moments() -> None:
    x = samples(SAMPLES, UNITS)

    def folded() -> Moments:
        return fold(moments_of(x[start : start + PART]) for start in range(0, SAMPLES, PART))

    cost, unit = median_s(folded, 3), median_s(lambda: x.T @ x, 3)
    report("co_moments", cost, unit, 1.5, samples=SAMPLES, units=UNITS)


def block_model(n_units: int) -> None:
    interpreter = find_interpreter()
    if interpreter is None:
        print("no graph-tool here: the block model has nothing to be measured against")
        return
    z = correlation(moments_of(samples(2000, n_units))).z
    start = time.process_time()
    ours = fit_blocks(z, 0)
    cost = time.process_time() - start
    judge(z, ours, interpreter, Judging(max_rounds=0))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    theirs = judge(z, None, interpreter, Judging(max_rounds=0), timeout_s=7200)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    report(
        "weighted_block_model",
        cost,
        unit,
        0.1,
        units=n_units,
        blocks=ours.n_blocks,
        their_blocks=theirs.partition.n_blocks,
        longer=round((ours.length - theirs.given) / abs(theirs.given), 6),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=400)
    torch.set_num_threads(1)
    co_moments()
    block_model(parser.parse_args().units)


if __name__ == "__main__":
    main()
