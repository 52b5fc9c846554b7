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

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgesweep.engine.baserun import BaseRun
from edgesweep.engine.graph import EdgeGraph
from edgesweep.engine.measures import score_intervals
from edgesweep.engine.metrics import ORIENTATION, measure
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.variants import drop_edges
from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import create_array, read_static, write_static
from edgesweep.storage.blocks import write_block
from edgesweep.storage.readers import Committed
from edgesweep.sweeps.circuits import evaluated_mask
from edgesweep.sweeps.context import Context, with_halving
from edgesweep.sweeps.plan.cells import Cell, Condition, ProbeShard
from edgesweep.sweeps.plan.plan import Plan
from edgesweep.sweeps.prepare import Circuit, circuits_of

Writes = list[dict[str, Any]]
Extra = dict[str, Any]
Row = dict[str, Any]


# --- what the driver prepares ----------------------------------------------------------------


def minimal_circuit(committed: Committed, plan: Plan, cell: Cell) -> Circuit:
    """The circuit of a cell whose pruned edges are nearest in number to what was asked for."""
    wanted = plan.config.measures.minimality

    def distance(circuit: Circuit) -> int:
        return abs(len(kept_edges(plan, cell, circuit)) - wanted)

    return min(circuits_of(committed, plan, cell), key=distance)


def kept_edges(plan: Plan, cell: Cell, circuit: Circuit) -> np.ndarray:
    """The edges of a circuit as it is run."""
    condition = Condition("edge", plan.fitted_patch)
    return np.flatnonzero(evaluated_mask(plan.model(cell).graph, circuit.mask, condition))


def prepare_probes(committed: Committed, plan: Plan, cell: Cell, reduced: Sequence[Cell]) -> None:
    """Which edges are looked at, and the arrays for what is found."""
    shards = [s for s in plan.stages["probe"] if isinstance(s, ProbeShard) and s.cell == cell]
    run, kinds = committed.run, {s.kind: s.patch for s in shards}
    dataset, measures = plan.dataset(cell), plan.config.measures
    if "minimality" in kinds:
        circuit = minimal_circuit(committed, plan, cell)
        edges = kept_edges(plan, cell, circuit)
        _note_edges(run, layout.probed(cell.key, "minimality"), edges, circuit.key)
        n, step = len(dataset.data.evaluation), plan.chunk_rows(dataset, "eval")
        width = max(len(edges), 1)
        for metric in plan.metrics():
            name = layout.minimality(circuit.key, kinds["minimality"], metric)
            create_array(run.evaluations, name, (n, width), (step, width), "float64")
    if "interpolation" in kinds and truth_of(plan, cell) in (None, *reduced):
        edges = _interpolated_edges(committed, plan, cell)
        _note_edges(run, layout.probed(cell.key, "interpolation"), edges, "")
        n, step = len(dataset.data.build), plan.chunk_rows(dataset, "build")
        shape = (len(edges), measures.fractions + 1)
        for metric in plan.metrics():
            name = layout.interpolation(cell.key, metric)
            create_array(run.evaluations, name, (n, *shape), (step, *shape), "float64")


def _note_edges(run: RunDirectory, name: str, edges: np.ndarray, circuit: str) -> None:
    write_static(run.evaluations, name, edges.astype(np.int64), {"circuit": circuit})


def _interpolated_edges(committed: Committed, plan: Plan, cell: Cell) -> np.ndarray:
    """Half of them where the estimate is furthest off, if the run measures that; the others EAP's
    first."""
    n, scores = plan.config.measures.interpolate, committed.aggregate(cell.key, "mean")
    assert scores is not None
    by_size = np.argsort(-np.abs(np.nan_to_num(scores)), kind="stable")
    exact = truth_of(plan, cell)
    if exact is None:
        return by_size[:n]
    truth = committed.aggregate(exact.key, "mean")
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


# --- what an actor does ------------------------------------------------------------------------


def run_probe(context: Context, shard: ProbeShard) -> tuple[Writes, Extra]:
    """Each metric with each edge moved, float64."""
    edges, circuit = _noted(context.run, shard.cell, shard.kind)
    prompts = context.prompts(shard.cell.dataset, shard.split)
    prompts = prompts[shard.rows.start : shard.rows.stop]

    def compute(micro_batch: int) -> dict[str, np.ndarray]:
        batches = (
            PromptBatch.make(prompts[i : i + micro_batch])
            for i in range(0, len(prompts), micro_batch)
        )
        parts = [_measured(context, shard, batch, edges, micro_batch) for batch in batches]
        return {m: np.concatenate([part[m] for part in parts]) for m in parts[0]}

    found, micro_batch = with_halving(context.settings.micro_batch, compute)
    context.check_alive()
    writes = []
    for metric, values in found.items():
        name = layout.interpolation(shard.cell.key, metric)
        if shard.kind == "minimality":
            name = layout.minimality(circuit, shard.patch, metric)
        rows = np.ascontiguousarray(values, dtype=np.float64)
        writes.append(write_block(context.run, layout.EVALUATIONS, name, shard.rows.start, rows))
    return writes, {"micro_batch": micro_batch}


def _measured(
    context: Context, shard: ProbeShard, batch: PromptBatch, edges: np.ndarray, micro_batch: int
) -> dict[str, np.ndarray]:
    """Each metric `[input, edge]` (minimality) or `[input, edge, fraction]` of one batch."""
    graph = context.graph(shard.cell.model)
    rows = micro_batch * context.settings.circuits_per_batch
    if shard.kind == "minimality":
        mask = np.zeros(graph.n_edges, dtype=bool)
        mask[edges] = True
        found = _moved(context, shard, batch, mask, edges, 1.0, rows)
        width = max(len(edges), 1)
        return {m: _padded(values, width) for m, values in found.items()}
    everything, n = np.ones(graph.n_edges, dtype=bool), context.settings.fractions
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
    found = {m: np.empty((len(batch), len(edges))) for m in context.settings.metrics}
    base = BaseRun(model, inputs, values, mask)
    for places, logits in drop_edges(base, edges, rows, amount):
        for metric, into in found.items():
            into[:, places] = measure(metric, logits, batch, clean).cpu().numpy().T
    return found


# --- what the tables say of it -----------------------------------------------------------------


def minimality_rows(committed: Committed, plan: Plan, cell: Cell) -> Iterator[Row]:
    """Rows of minimality.parquet: what the oriented metric loses without each edge."""
    graph, (edges, circuit) = plan.model(cell).graph, _noted(committed.run, cell, "minimality")
    condition, measures = Condition("edge", plan.fitted_patch), plan.config.measures
    groups = np.arange(len(plan.dataset(cell).data.evaluation)) // plan.config.data.n_eval
    for metric in plan.metrics() if len(edges) else ():
        of_circuit = layout.value(circuit, condition.key, metric)
        whole = committed.read(layout.EVALUATIONS, of_circuit, partly=True)
        of_edges = layout.minimality(circuit, plan.fitted_patch, metric)
        without = committed.read(layout.EVALUATIONS, of_edges)
        drops = ORIENTATION.get(metric, 1.0) * (whole[:, None] - without[:, : len(edges)])
        low, high = np.full((2, len(edges)), np.nan)
        if measures.bootstrap:
            n, level, seed = measures.bootstrap, measures.level, plan.config.seed
            low, high = score_intervals(drops, n=n, level=level, seed=seed, groups=groups)
        for i, edge in enumerate(edges.tolist()):
            ends = {"low": float(low[i]), "high": float(high[i])}
            named = {"circuit": circuit, "cell": cell.key, "metric": metric}
            yield {**named, **_ends(graph, edge), "drop": float(drops[:, i].mean()), **ends}


def interpolation_rows(committed: Committed, plan: Plan, cell: Cell) -> Iterator[Row]:
    """Rows of interpolation.parquet: the change of the oriented metric on the way from clean to
    patch, and EAP's straight line where the metric is the one that it was built on."""
    graph, (edges, _) = plan.model(cell).graph, _noted(committed.run, cell, "interpolation")
    scores, n = committed.aggregate(cell.key, "mean"), plan.config.measures.fractions
    assert scores is not None
    named = {"cell": cell.key, "model": cell.model, "task": cell.task}
    for metric in plan.metrics():
        found = committed.read(layout.EVALUATIONS, layout.interpolation(cell.key, metric))
        values = ORIENTATION.get(metric, 1.0) * found
        changes = (values - values[..., :1]).mean(0)
        for i, edge in enumerate(edges.tolist()):
            slope = -float(scores[edge]) if metric == cell.build_metric else np.nan
            for k in range(n + 1):
                yield {
                    **named,
                    **_ends(graph, edge),
                    "metric": metric,
                    "fraction": k / n,
                    "change": float(changes[i, k]),
                    "estimate": slope * k / n,
                    "n_inputs": len(values),
                }


def _noted(run: RunDirectory, cell: Cell, kind: str) -> tuple[np.ndarray, str]:
    """The edges looked at, and the circuit that they are of."""
    edges, about = read_static(run.evaluations, layout.probed(cell.key, kind))
    return edges, str(about["circuit"])


def _ends(graph: EdgeGraph, edge: int) -> Row:
    source, target = graph.edge_source[edge], graph.edge_target[edge]
    return {"edge": edge, "source": graph.sources[source], "target": graph.targets[target]}
