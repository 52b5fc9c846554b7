"""Evaluation: each metric of each circuit under each condition, input by input. Circuits are known
once a cell is reduced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.storage import layout
from edgesweep.storage.arrays import Planned
from edgesweep.storage.tables import CIRCUITS, RESULTS, Table
from edgesweep.sweeps.actor.measuring import measured, write_values
from edgesweep.sweeps.circuits import read_fitted_key, read_ran, write_circuits
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.cells import Cell, Condition, Rows
from edgesweep.sweeps.stages.base import Done, Gate, Passes, Row, Stage
from edgesweep.sweeps.stages.references import RUN_PATCHES
from edgesweep.sweeps.tables.results import circuit_rows, edge_rows

if TYPE_CHECKING:
    import pandas as pd

    from edgesweep.storage import RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.view import View


@dataclass(frozen=True, slots=True)
class EvaluateShard:
    """Some circuits of one cell under one condition on a block of inputs; none named: the fitted
    one. `index` counts the groups of circuits of the cell."""

    cell: Cell
    circuits: tuple[str, ...]
    index: int
    condition: Condition
    rows: Rows

    @property
    def key(self) -> str:
        return f"{self.cell.key}.{self.index:03d}.{self.condition.key}.{self.rows.key}"


class Evaluate(Stage[EvaluateShard]):
    """Each metric of whole circuits and of their complements, `[input, circuit, metric]`, float64,
    one block a shard."""

    name = "evaluate"
    title = "evaluation"
    runs_model = True
    tables: tuple[Table, ...] = (CIRCUITS, RESULTS)

    def shards(self, plan: Plan) -> Iterator[EvaluateShard]:
        size = plan.config.execution.circuits_per_batch
        for cell in plan.cells:
            circuits = [c.key for c in plan.circuits(cell)]
            for condition in plan.conditions():
                for rows in plan.eval_rows(plan.dataset(cell)):
                    for index, start in enumerate(range(0, len(circuits), size)):
                        some = tuple(circuits[start : start + size])
                        yield EvaluateShard(cell, some, index, condition, rows)

    def groups(self, plan: Plan, shard: EvaluateShard) -> Iterable[str]:
        return (groups.evaluated(shard.cell.key, shard.condition.key),)

    def needs(self, plan: Plan, shard: EvaluateShard) -> tuple[str, ...]:
        values = plan.values(shard.cell, shard.condition.eval_patch)
        return (*values, groups.circuits(shard.cell.key))

    def gates(self, plan: Plan) -> Iterator[Gate]:
        for cell in plan.cells:
            needs = (groups.reduced(cell.key),)
            yield Gate(groups.circuits(cell.key), needs, partial(write_circuits, cell=cell))

    def arrays(self, run: RunDirectory, plan: Plan) -> Iterator[Planned]:
        for cell in plan.cells:
            n, width = len(plan.circuits(cell)), plan.config.execution.circuits_per_batch
            for condition in plan.conditions():
                yield planned_values(run, plan, cell, condition, n, width)

    def run(self, context: Context, shard: EvaluateShard) -> Done:
        cell, condition = shard.cell, shard.condition
        circuits = shard.circuits or (read_fitted_key(context.run, cell),)
        ran = read_ran(context.run, cell, condition)
        masks = np.stack([ran[key] for key in circuits])
        values, extra = measured(context, cell, condition, shard.rows, masks)
        context.check_alive()
        name, first = layout.values(cell.key, condition.key), ran.circuits.index(circuits[0])
        return [write_values(context, name, shard.rows, values, first)], extra

    def passes(self, plan: Plan, shard: EvaluateShard) -> Passes:
        patch = shard.condition.eval_patch in RUN_PATCHES
        return Passes(plan.batches(shard.rows) * (max(len(shard.circuits), 1) + patch))

    def rows(self, view: View, cell: Cell) -> Mapping[Table, pd.DataFrame | Iterable[Row]]:
        return {CIRCUITS: edge_rows(view, cell), RESULTS: circuit_rows(view, cell)}


def planned_values(
    run: RunDirectory, plan: Plan, cell: Cell, condition: Condition, n_circuits: int, width: int
) -> Planned:
    """Where the values of a cell's circuits under a condition are written."""
    dataset, n_metrics = plan.dataset(cell), len(plan.config.evaluate.metric)
    n, step = len(dataset.data.evaluation), plan.eval_chunk(dataset)
    name, chunks = layout.values(cell.key, condition.key), (step, min(width, n_circuits), n_metrics)
    return Planned(run.evaluations, name, (n, n_circuits, n_metrics), chunks, "float64")
