"""What Ray, Zarr and commits cost beside the compute of a shard.

    python -m benchmarks.engine [--quick]

A shard computes for 2 s (a matrix product repeated on one thread until the time is over), writes 16
inputs × 70,651 edges of scores and their partials, and is committed, over a pool of 2 actors. The
same shards' compute alone is their summed seconds over the actors. The pool's start is told apart:
a run pays it once, whatever its length.

Two cells of unequal length (a search of one long shard beside a method of short ones), each
attributed, reduced and evaluated: all at once, as their needs allow, against stage after stage.
"""

import argparse
import functools
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
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
from edgesweep.sweeps.scheduler import Scheduler
from edgesweep.sweeps.stages.base import Stage, Task

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
        partial = fold.pack(fold.partial(self.scores))[None]
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
        (run.aggregates, "partials", (n_shards, N_EDGES, fold.WORDS), (1, N_EDGES, fold.WORDS)),
    ):
        make_store(store)
        dtype = "float32" if name == "scores" else "uint64"
        create_array(store, name, shape, chunk, dtype)
    return run


def _give_up(work: Work, failure: Failure) -> None:
    raise RuntimeError(str(failure))


def measure(n_shards: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = _prepare(Path(folder) / "run", n_shards + ACTORS)
        log = CommitLog(run)
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

        with log.driving():
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


# --- two cells of unequal length ---------------------------------------------------------------

#: cell -> stage -> seconds of its shards
CELLS = {
    "search": {"attribute": [6.0], "reduce": [0.1], "evaluate": [0.5] * 4},
    "gradient": {"attribute": [0.5] * 4, "reduce": [0.1], "evaluate": [0.5] * 12},
}


@dataclass(frozen=True)
class TimedShard:
    """A shard that computes for so long."""

    cell: str
    key: str
    seconds: float


class TimedStage(Stage[TimedShard]):
    """A stage of both cells; each cell's shards wait for all of its stage before."""

    def __init__(self, name: str, before: str) -> None:
        self.name, self._before = name, before

    def shards(self, plan: Any) -> Iterator[TimedShard]:
        for cell, stages in CELLS.items():
            for i, seconds in enumerate(stages[self.name]):
                yield TimedShard(cell, f"{self.name}.{cell}.{i}", seconds)

    def groups(self, plan: Any, shard: TimedShard) -> tuple[str, ...]:
        return (f"{self.name} {shard.cell}",)

    def needs(self, plan: Any, shard: TimedShard) -> tuple[str, ...]:
        return (f"{self._before} {shard.cell}",) if self._before else ()


class ToyPlan:
    """What a scheduler asks of a plan."""

    def __init__(self) -> None:
        names = ("", *CELLS["search"])
        made = (TimedStage(name, before) for before, name in pairwise(names))
        self.all_stages: dict[str, Stage[Any]] = {stage.name: stage for stage in made}
        self.stages = {n: tuple(s.shards(self)) for n, s in self.all_stages.items()}  # type: ignore[arg-type]

    def stage(self, name: str) -> Stage[Any]:
        return self.all_stages[name]


def _compute(task: Task, attempt: int) -> dict[str, Any]:
    time.sleep(task.shard.seconds)
    return {}


def measure_cells() -> None:
    """Seconds of both cells on two actors that are warm."""
    plan: Any = ToyPlan()
    executor = make_executor("ray", functools.partial(lambda: _compute), PoolOptions(actors=ACTORS))
    warm = [Work(f"warm{i}", Task("", TimedShard("", "", 1.0))) for i in range(2 * ACTORS)]
    executor.run(warm, lambda work, receipt: None, _give_up, lambda: False)

    def works(items: Iterable[Any]) -> list[Work]:
        return [Work(shard.key, Task(stage, shard)) for stage, shard in items]

    def wave_by_wave() -> None:
        for name, shards in plan.stages.items():
            todo = works((name, shard) for shard in shards)
            executor.run(todo, lambda work, receipt: None, _give_up, lambda: False)

    def as_needs_allow() -> None:
        scheduler = Scheduler(plan, plan.all_stages, dict.fromkeys(plan.stages, ()))

        def done(work: Work, receipt: dict[str, Any]) -> list[Work]:
            scheduler.done(work.payload.stage, work.payload.shard)
            return works(scheduler.ready())

        executor.run(works(scheduler.ready()), done, _give_up, lambda: False)

    seconds = {}
    for run in (wave_by_wave, as_needs_allow):
        start = time.perf_counter()
        run()
        seconds[run] = time.perf_counter() - start
    executor.close()
    report("unequal_cells", seconds[as_needs_allow], seconds[wave_by_wave], 1 / 1.2, actors=ACTORS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="8 shards, indicative")
    args = parser.parse_args()
    measure(8 if args.quick else 40)
    measure_cells()


if __name__ == "__main__":
    main()
