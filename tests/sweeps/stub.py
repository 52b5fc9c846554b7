"""A run whose works cost nothing: made-up numbers in place of a model's, or receipts of nothing
written. What is left is the driver's own work, which is measured."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from edgesweep.engine.runtime import Failure, Work
from edgesweep.storage.layout import ATTRIBUTIONS, PER_INPUT, per_input, scores
from edgesweep.sweeps import driver
from edgesweep.sweeps.actor.context import Context, WorkerSettings
from edgesweep.sweeps.actor.worker import SweepWorker, Task
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.driver import Driver, Outcome
from edgesweep.sweeps.launch import start, worker_settings
from edgesweep.sweeps.progress import Silence
from tests.sweeps.helpers import tiny

GIVEN_UP = ("subtrees", "reduce")


class MadeNodes:
    """Nodes whose numbers are drawn; all else is that of the real ones."""

    def __init__(self, nodes: Any, config: Any) -> None:
        self._nodes, self._config = nodes, config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._nodes, name)

    def scores(self, context, cell, prompts, micro_batch) -> Iterator[dict[str, Any]]:
        draw, n = np.random.default_rng(int(cell.key[-8:], 16)), len(prompts)
        drawn = draw.standard_normal((n, self._nodes.n_scores(cell)), np.float32)
        yield {"scores": torch.from_numpy(drawn), **{name: np.ones(n) for name in PER_INPUT}}

    def reference(self, context, dataset, eval_patch) -> Callable[..., dict[Any, np.ndarray]]:
        names = self._config.reference_metrics
        values = {"full": 2.0, "empty": 1.0}
        return lambda batch: {
            (s, m): np.full(len(batch), v) for s, v in values.items() for m in names
        }

    def evaluation(self, context, cell, condition, masks) -> Callable[..., dict[str, np.ndarray]]:
        names, sizes = self._config.evaluate.metric, masks.mean(1)[:, None]
        return lambda batch: {metric: 1 + np.repeat(sizes, len(batch), 1) for metric in names}


class MadeContext(Context):
    def nodes(self, cell: Any) -> Any:
        return MadeNodes(super().nodes(cell), self.config)

    def nodes_of(self, model: str, name: str) -> Any:
        return MadeNodes(super().nodes_of(model, name), self.config)


class Answers:
    """An executor that answers at once, and knows how long its own side took.

    Attributes:
        stub: stages whose shards are answered with a receipt of nothing; reduction is then given
            up.
        away_s: CPU seconds that are not the driver's.
    """

    def __init__(self, settings: WorkerSettings, stub: Sequence[str] = ()) -> None:
        self._worker = SweepWorker(settings)
        self._worker.context = MadeContext(settings)
        self._stub, self.away_s = stub, 0.0
        self.asked: Counter[str] = Counter()

    def run(
        self, works: Iterable[Work], on_done: Any, on_failed: Any, should_stop: Any, to_come: Any
    ) -> None:
        queue = deque(works)
        while queue:
            work = queue.popleft()
            self.asked[work.payload.stage] += 1
            if self._stub and work.payload.stage in GIVEN_UP:
                on_failed(work, Failure(work.key, 1, "exception", "a stub reduces nothing"))
                continue
            began = time.process_time()
            receipt = self._receipt(work.payload)
            self.away_s += time.process_time() - began
            queue.extend(on_done(work, receipt) or ())

    def _receipt(self, task: Task) -> dict[str, Any]:
        if task.stage not in self._stub:
            return self._worker(task, 1)
        rows, cell = task.shard.rows, task.shard.cell.key
        block = {"start": rows.start, "rows": rows.stop - rows.start, "crc": 2**31}
        arrays = (scores(cell), per_input(cell))
        writes = [{"store": ATTRIBUTIONS, "array": array, **block} for array in arrays]
        done = {"attempt": 1, "crc": 2**31, "rows": block["rows"], "micro_batch": 1}
        return {**done, "device": "cpu", "seconds": 0.1, "writes": writes, "n_bad": 0}


class Watched(Driver):
    """A driver that knows how long it was at tables, of cells and of the run."""

    tables_s = 0.0

    def _write_part(self, cell: Any) -> None:
        self._timed(super()._write_part, cell)

    def _timed(self, work: Callable[..., Any], *arguments: Any) -> Any:
        began = time.process_time()
        try:
            return work(*arguments)
        finally:
            self.tables_s += time.process_time() - began


class Timed:
    """A run with its costs: CPU seconds of planning, of the driver's tables, and of all else that
    the driver does; shards and cells."""

    def __init__(self, out: Path, raw: dict[str, Any], stub: Sequence[str] = ()) -> None:
        began = time.process_time()
        self.launch = start(parse_config(raw), out)
        self.plan = self.launch.plan
        self.plan_s = time.process_time() - began
        self.executor = Answers(worker_settings(self.plan, self.launch.run), stub)
        watched = Watched(self.plan, self.launch.run, self.executor, Silence())
        build = partial(watched._timed, driver.build_tables)
        began = time.process_time()
        with patch.object(driver, "build_tables", build):
            self.outcome: Outcome = watched.drive()
        away_s = self.executor.away_s + watched.tables_s
        self.tables_s = watched.tables_s
        self.driver_s = time.process_time() - began - away_s

    @property
    def cpu_s(self) -> float:
        """With tables."""
        return self.plan_s + self.driver_s + self.tables_s

    @property
    def n_shards(self) -> int:
        return sum(map(len, self.plan.stages.values()))


def many_rows(n: int) -> dict[str, Any]:
    """A config of one cell with `n` attribution shards."""
    return tiny(
        sweep={"task": "ioi", "method": "eap"},
        evaluate={"threshold": [5], "ablation": "edge", "metric": "logit_diff"},
        data={"n_build": n, "n_eval": 1},
        measures={"bootstrap": 0},
        execution={"shard_inputs": 1},
    )


def many_cells(n: int, seeds: int = 5) -> dict[str, Any]:
    """A config of `n` cells, `seeds` of them alike but for their prompts."""
    return tiny(
        sweep={
            "task": "ioi",
            "seed": list(range(seeds)),
            "method": ["eap", "ig_inputs"],
            "steps": list(range(1, n // seeds)),
        },
        evaluate={"threshold": [5, 40], "ablation": "edge", "metric": "logit_diff"},
        measures={"bootstrap": 0},
        execution={"shard_inputs": 4},
    )
