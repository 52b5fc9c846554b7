"""What Ray, Zarr and commits cost beside the compute of a shard.

    python -m benchmarks.engine [--quick]

A shard computes for 2 s (a matrix product repeated on one thread until the time is over), writes 16
inputs × 70,651 edges of scores and their partials, and is committed, over a pool of 2 actors. The
same shards' compute alone is their summed seconds over the actors. The pool's start is told apart:
a run pays it once, whatever its length.
"""

import argparse
import functools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import report
from edgesweep.engine.runtime import Failure, PoolOptions, Work, make_executor
from edgesweep.storage import fold
from edgesweep.storage.arrays import create_array, make_store
from edgesweep.storage.blocks import make_receipt, write_block
from edgesweep.storage.commits import CommitLog
from edgesweep.storage.rundir import RunDirectory

N_INPUTS, N_EDGES, COMPUTE_S, ACTORS = 16, 70_651, 2.0, 2


class TimedWorker:
    """Computes for a fixed time, then writes what an attribution shard writes."""

    def __init__(self, folder: Path) -> None:
        self.run = RunDirectory.open(folder)
        self.scores = np.random.default_rng(0).normal(size=(N_INPUTS, N_EDGES)).astype("float32")
        self.matrix = np.ones((256, 256))

    def __call__(self, index: int, attempt: int) -> dict[str, Any]:
        start = time.perf_counter()
        while time.perf_counter() - start < COMPUTE_S:
            self.matrix @ self.matrix
        computed_s = time.perf_counter() - start
        partial = fold.partial(self.scores)[None]
        writes = [
            write_block(self.run, "attributions.zarr", "scores", index * N_INPUTS, self.scores),
            write_block(self.run, "aggregates.zarr", "partials", index, partial),
        ]
        return make_receipt(
            writes, attempt=attempt, micro_batch=N_INPUTS, device="cpu", seconds=computed_s
        )


def _prepare(folder: Path, n_shards: int) -> RunDirectory:
    run = RunDirectory.create(folder, {}, {"run_id": "benchmark", "identity": {}})
    for store, name, shape, chunk in (
        (run.attributions, "scores", (n_shards * N_INPUTS, N_EDGES), (N_INPUTS, N_EDGES)),
        (run.aggregates, "partials", (n_shards, 7, N_EDGES), (1, 7, N_EDGES)),
    ):
        make_store(store)
        dtype = "float32" if name == "scores" else "float64"
        create_array(store, name, shape, chunk, dtype)
    return run


def _give_up(work: Work, failure: Failure) -> None:
    raise RuntimeError(str(failure))


def measure(n_shards: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = _prepare(Path(folder) / "run", n_shards + ACTORS)
        log = CommitLog(run)
        log.claim_epoch()
        factory = functools.partial(TimedWorker, run.path)
        executor = make_executor("ray", factory, PoolOptions(actors=ACTORS))
        computed: list[float] = []

        def done(work: Work, receipt: dict[str, Any]) -> None:
            log.commit("attribute", work.key, receipt)
            computed.append(receipt["seconds"])

        def shards(first: int, last: int) -> float:
            works = [Work(f"s{i:04d}", i) for i in range(first, last)]
            start = time.perf_counter()
            executor.run(works, done, _give_up, lambda: False)
            return time.perf_counter() - start

        begin = time.perf_counter()
        shards(0, ACTORS)  # starts Ray and every actor
        start_s = time.perf_counter() - begin - COMPUTE_S
        computed.clear()
        wall_s = shards(ACTORS, ACTORS + n_shards)
        executor.close()
    report(
        "ray_zarr_commits",
        wall_s - sum(computed) / ACTORS,
        sum(computed) / ACTORS,
        0.10,
        shards=n_shards,
        actors=ACTORS,
        shard_compute_s=COMPUTE_S,
        shard_mb=round(N_INPUTS * N_EDGES * 4 / 1e6, 1),
        pool_start_s=round(start_s, 2),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="8 shards, indicative")
    args = parser.parse_args()
    measure(8 if args.quick else 40)


if __name__ == "__main__":
    main()
