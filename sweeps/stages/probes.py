"""Single edges, one at a time: taken out of a circuit (minimality), or moved from clean to patch in
the full model (interpolation; Syed et al. 2023, figures 4 and 9).

    minimality     value[input, i]     the metric of the circuit without its i-th edge
    interpolation  value[input, i, k]  the metric of the model whose i-th edge carries
                                       u_clean + k/n · (u_patch − u_clean)

Minimality is asked of one circuit a cell, the one whose number of edges is nearest to
`measures.minimality`; interpolation of the edges on which EAP and exact patching differ most, where
both were run, and of those that EAP ranks first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.baserun import BaseRun
from edgesweep.engine.methods import METHODS
from edgesweep.engine.metrics import measure
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.variants import drop_edges
from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import create_array, write_static
from edgesweep.storage.blocks import write_block
from edgesweep.storage.tables import INTERPOLATION as INTERPOLATION_TABLE
from edgesweep.storage.tables import MINIMALITY as MINIMALITY_TABLE
from edgesweep.storage.tables import Table
from edgesweep.sweeps.actor.halving import with_halving
from edgesweep.sweeps.circuits import nearest, read_ran
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.cells import Cell, Rows
from edgesweep.sweeps.stages.base import Done, Gate, Passes, Row, Stage
from edgesweep.sweeps.tables.probes import interpolation_rows, minimality_rows, read_probed

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.view import View

MINIMALITY, INTERPOLATION = "minimality", "interpolation"


@dataclass(frozen=True)
class ProbeShard:
    """Single edges of one cell on a block of inputs, `minimality` or `interpolation`."""

    cell: Cell
    kind: str
    patch: str
    rows: Rows

    @property
    def split(self) -> str:
        return "eval" if self.kind == MINIMALITY else "build"

    @property
    def key(self) -> str:
        return f"{self.cell.key}.{self.kind}.{self.patch}.{self.rows.key}"


class Probes(Stage[ProbeShard]):
    """Each metric with each edge moved, float64."""

    name = "probe"
    title = "single edges"
    runs_model = True
    tables = (MINIMALITY_TABLE, INTERPOLATION_TABLE)

    def shards(self, plan: Plan) -> Iterator[ProbeShard]:
        for cell in plan.cells:
            if _has_minimality(plan, cell):
                for rows in plan.rows(plan.dataset(cell), "eval", plan.nodes(cell)):
                    yield ProbeShard(cell, MINIMALITY, plan.fitted_condition.eval_patch, rows)
            if _has_interpolation(plan, cell):
                for rows in plan.rows(plan.dataset(cell), "build", plan.nodes(cell)):
                    yield ProbeShard(cell, INTERPOLATION, cell.build_patch, rows)

    def needs(self, plan: Plan, shard: ProbeShard) -> tuple[str, ...]:
        values = plan.values(shard.cell, shard.patch)
        return (*values, groups.probed(shard.cell.key, shard.kind))

    def gates(self, plan: Plan) -> Iterator[Gate]:
        for cell in plan.cells:
            if _has_minimality(plan, cell):
                needs: tuple[str, ...] = (groups.circuits(cell.key),)
                name = groups.probed(cell.key, MINIMALITY)
                yield Gate(name, needs, partial(_choose_minimal, cell=cell))
            if _has_interpolation(plan, cell):
                cells = [cell, truth_of(plan, cell)]
                needs = tuple(groups.reduced(c.key) for c in cells if c is not None)
                name = groups.probed(cell.key, INTERPOLATION)
                yield Gate(name, needs, partial(_choose_interpolated, cell=cell))

    def run(self, context: Context, shard: ProbeShard) -> Done:
        edges, _ = read_probed(context.run, shard.cell, shard.kind)
        prompts = context.prompts(shard.cell.dataset, shard.split)
        prompts = prompts[shard.rows.start : shard.rows.stop]

        def compute(micro_batch: int) -> dict[str, np.ndarray]:
            batches = (
                PromptBatch.make(prompts[i : i + micro_batch])
                for i in range(0, len(prompts), micro_batch)
            )
            parts = [_measured(context, shard, batch, edges, micro_batch) for batch in batches]
            return {m: np.concatenate([part[m] for part in parts]) for m in parts[0]}

        found, micro_batch = with_halving(context.micro_batch, compute)
        context.check_alive()
        writes = []
        for metric, values in found.items():
            name = layout.interpolation(shard.cell.key, metric)
            if shard.kind == MINIMALITY:
                name = layout.minimality(shard.cell.key, shard.patch, metric)
            rows = np.ascontiguousarray(values, dtype=np.float64)
            write = write_block(context.run, layout.EVALUATIONS, name, shard.rows.start, rows)
            writes.append(write)
        return writes, {"micro_batch": micro_batch}

    def passes(self, plan: Plan, shard: ProbeShard) -> Passes:
        """A run that starts at its edge's target counts as half a forward."""
        measures, n = plan.config.measures, plan.batches(shard.rows)
        if shard.kind == MINIMALITY:
            return Passes(n * (2 + measures.minimality / 2))
        return Passes(n * (2 + measures.interpolate * measures.fractions / 2))

    def alike(self, shard: ProbeShard) -> str:
        return f"{shard.cell.key}.{shard.kind}"

    def rows(self, view: View, cell: Cell) -> Mapping[Table, Iterable[Row]]:
        rows_of = {
            MINIMALITY: (MINIMALITY_TABLE, minimality_rows),
            INTERPOLATION: (INTERPOLATION_TABLE, interpolation_rows),
        }
        shards = view.plan.of_cell(cell).get(self.name, ())
        left = {s.kind for s in shards if s.key not in view.done[self.name]}
        kinds = dict.fromkeys(s.kind for s in shards if s.kind not in left)
        return {table: rows(view, cell) for table, rows in map(rows_of.__getitem__, kinds)}


def _has_minimality(plan: Plan, cell: Cell) -> bool:
    return bool(plan.config.measures.minimality) and not METHODS[cell.method].scores_nodes


def _has_interpolation(plan: Plan, cell: Cell) -> bool:
    return bool(plan.config.measures.interpolate) and cell.method == "eap"


# --- which edges ------------------------------------------------------------------------------


def _choose_minimal(view: View, cell: Cell) -> None:
    """The edges that are run of a circuit, and the arrays for what is found."""
    plan, condition = view.plan, view.plan.fitted_condition
    circuit = nearest(view, cell, plan.config.measures.minimality)
    edges = np.flatnonzero(read_ran(view.run, cell, condition)[circuit])
    _note_edges(view.run, layout.probed(cell.key, MINIMALITY), edges, circuit)
    dataset, width = plan.dataset(cell), max(len(edges), 1)
    n, step = len(dataset.data.evaluation), plan.chunk_rows(dataset, "eval", plan.nodes(cell))
    for metric in plan.config.evaluate.metric:
        name = layout.minimality(cell.key, condition.eval_patch, metric)
        create_array(view.run.evaluations, name, (n, width), (step, width), "float64")


def _choose_interpolated(view: View, cell: Cell) -> None:
    plan, edges = view.plan, _interpolated_edges(view, cell)
    _note_edges(view.run, layout.probed(cell.key, INTERPOLATION), edges, "")
    dataset = plan.dataset(cell)
    n, step = len(dataset.data.build), plan.chunk_rows(dataset, "build", plan.nodes(cell))
    shape = (len(edges), plan.config.measures.fractions + 1)
    for metric in plan.config.evaluate.metric:
        name = layout.interpolation(cell.key, metric)
        create_array(view.run.evaluations, name, (n, *shape), (step, *shape), "float64")


def _note_edges(run: RunDirectory, name: str, edges: np.ndarray, circuit: str) -> None:
    write_static(run.evaluations, name, edges.astype(np.int64), {"circuit": circuit})


def _interpolated_edges(view: View, cell: Cell) -> np.ndarray:
    """Half of them where the estimate is furthest off, if the run measures that; the others EAP's
    first."""
    n, scores = view.plan.config.measures.interpolate, view.scores(cell, "mean")
    assert scores is not None
    by_size = np.argsort(-np.abs(np.nan_to_num(scores)), kind="stable")
    exact = truth_of(view.plan, cell)
    if exact is None:
        return by_size[:n]
    truth = view.scores(exact, "mean")
    assert truth is not None
    off = np.argsort(-np.nan_to_num(np.abs(scores - truth)), kind="stable")
    return np.array(list(dict.fromkeys([*off[: n // 2], *by_size]))[:n])


def truth_of(plan: Plan, cell: Cell) -> Cell | None:
    """The cell that measures what a cell estimates, if the run has one. Which edges are looked at
    hangs on its scores, so they wait for it, or an interrupted run would choose others."""

    def is_it(exact: Cell) -> bool:
        fields = ("dataset", "nodes", "build_patch", "build_metric")
        same = all(getattr(exact, f) == getattr(cell, f) for f in fields)
        return exact.method == "exact" and same

    return next(filter(is_it, plan.cells), None)


# --- what an actor does -----------------------------------------------------------------------


def _measured(
    context: Context, shard: ProbeShard, batch: PromptBatch, edges: np.ndarray, micro_batch: int
) -> dict[str, np.ndarray]:
    """Each metric `[input, edge]` (minimality) or `[input, edge, fraction]` of one batch."""
    graph = context.nodes(shard.cell).graph(context.run, shard.cell)
    rows = micro_batch * context.config.execution.circuits_per_batch
    if shard.kind == "minimality":
        mask = np.zeros(graph.n_edges, dtype=bool)
        mask[edges] = True
        found = _moved(context, shard, batch, mask, edges, 1.0, rows)
        width = max(len(edges), 1)
        return {m: _padded(values, width) for m, values in found.items()}
    everything, n = np.ones(graph.n_edges, dtype=bool), context.config.measures.fractions
    steps = [_moved(context, shard, batch, everything, edges, k / n, rows) for k in range(n + 1)]
    return {m: np.stack([step[m] for step in steps], axis=-1) for m in steps[0]}


def _padded(values: np.ndarray, width: int) -> np.ndarray:
    """A circuit without edges has nothing to take out: its one column is NaN."""
    return values if values.shape[1] == width else np.full((len(values), width), np.nan)


def _moved(
    context: Context,
    shard: ProbeShard,
    batch: PromptBatch,
    mask: np.ndarray,
    edges: np.ndarray,
    amount: float,
    rows: int,
) -> dict[str, np.ndarray]:
    """Each metric `[input, edge]` of the circuit in which one edge is moved by that share."""
    model = context.model(shard.cell.model)
    patch = context.patch(shard.patch, shard.cell.dataset, shard.split)
    inputs = model.prepare(batch.clean, batch.real)
    values = patch.values(model, batch, inputs)
    clean = model.run(inputs).logits
    assert clean is not None
    found = {m: np.empty((len(batch), len(edges))) for m in context.config.evaluate.metric}
    base = BaseRun(model, inputs, values, mask)
    for places, logits in drop_edges(base, edges, rows, amount):
        for metric, into in found.items():
            into[:, places] = measure(metric, logits, batch, clean).cpu().numpy().T
    return found
