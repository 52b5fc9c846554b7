"""What the driver writes before an actor starts: prompts, graphs, every array that will be filled,
and, once scores are reduced, the circuits' masks. Done again on resume, it changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.graph import select
from engine.patches import mean_groups
from storage import RunDirectory
from storage.arrays import create_array, has_array, make_store, open_array, read_rows, write_static
from storage.atomic import replace, to_json
from storage.blocks import write_block
from storage.fold import AGGREGATIONS, STATS
from storage.readers import aggregate
from sweeps import layout
from sweeps.cells import Cell, ReduceShard
from sweeps.plan import Plan
from sweeps.resolve import Dataset, prompts_to_json

COUNTS = ("n", "n_bad")


def prepare(run: RunDirectory, plan: Plan) -> None:
    """Prompts, graphs and arrays of the whole plan."""
    for store in (layout.ATTRIBUTIONS, layout.AGGREGATES, layout.EVALUATIONS):
        make_store(run.path / store)
    for dataset in plan.resolved.datasets.values():
        _write_prompts(run, dataset)
        _make_reference_arrays(run, plan, dataset)
        if plan.mean_is_used:
            _make_mean_arrays(run, plan, dataset)
    for cell in plan.cells:
        _write_graph(run, plan, cell)
        _make_score_arrays(run, plan, cell)
        _make_folded_arrays(run, plan, cell)
        _make_value_arrays(run, plan, cell)


def _write_prompts(run: RunDirectory, dataset: Dataset) -> None:
    path = run.path / layout.prompts(dataset.key)
    splits = {"build": dataset.data.build, "eval": dataset.data.evaluation}
    data = to_json({split: prompts_to_json(prompts) for split, prompts in splits.items()})
    if not path.exists() or path.read_bytes() != data:
        replace(path, data)


def _write_graph(run: RunDirectory, plan: Plan, cell: Cell) -> None:
    graph = plan.model(cell).graph
    tables = {
        "edge_source": (graph.edge_source, {"names": list(graph.sources)}),
        "edge_target": (graph.edge_target, {"names": list(graph.targets)}),
        "target_nodes": (graph.target_nodes, {"nodes": list(graph.nodes)}),
    }
    for name, (values, attributes) in tables.items():
        if not has_array(run.attributions, layout.graph(cell, name)):
            write_static(run.attributions, layout.graph(cell, name), values, attributes)


def _make_score_arrays(run: RunDirectory, plan: Plan, cell: Cell) -> None:
    n_edges, dataset = plan.model(cell).graph.n_edges, plan.dataset(cell)
    n, step = len(dataset.data.build), plan.shard_rows(dataset, "build")
    create_array(run.attributions, layout.scores(cell), (n, n_edges), (step, n_edges))
    for name in layout.PER_INPUT:
        create_array(run.attributions, layout.per_input(cell, name), (n,), (step,), "float64")
    shape = (n // step, len(STATS), n_edges)
    create_array(run.aggregates, layout.partials(cell), shape, (1, *shape[1:]), "float64")


def _make_folded_arrays(run: RunDirectory, plan: Plan, cell: Cell) -> None:
    n_edges = plan.model(cell).graph.n_edges
    shards = [s for s in plan.stages["reduce"] if isinstance(s, ReduceShard)]
    groups = {s.group for s in shards if s.cell == cell}
    for group in sorted(groups):
        for name in (*AGGREGATIONS, *COUNTS):
            dtype = "int64" if name in COUNTS else "float64"
            create_array(run.aggregates, layout.folded(group, name), (n_edges,), (n_edges,), dtype)


def _make_mean_arrays(run: RunDirectory, plan: Plan, dataset: Dataset) -> None:
    model = plan.resolved.models[dataset.model]
    pooled = plan.config.data.mean_positions == "pooled"
    dtype = "float64" if plan.config.execution.dtype == "float64" else "float32"
    make_store(run.path / layout.MEANS)
    prompts = dataset.data.build
    lengths = dict(zip(mean_groups(prompts, pooled=pooled), map(len, prompts), strict=True))
    for index, group in enumerate(dataset.build_groups(pooled)):
        length = 1 if pooled else lengths[group]
        shape = (len(model.graph.sources), length, model.sizes.d_model)
        create_array(run.path / layout.MEANS, layout.mean(dataset.key, index), shape, shape, dtype)


def _make_reference_arrays(run: RunDirectory, plan: Plan, dataset: Dataset) -> None:
    n, step = len(dataset.data.evaluation), plan.shard_rows(dataset, "eval")
    for patch in plan.config.evaluate.eval_patch:
        for side in ("full", "empty"):
            for metric in plan.reference_metrics():
                name = layout.reference(dataset.key, patch, side, metric)
                create_array(run.evaluations, name, (n,), (step,), "float64")


def _make_value_arrays(run: RunDirectory, plan: Plan, cell: Cell) -> None:
    dataset = plan.dataset(cell)
    n, step = len(dataset.data.evaluation), plan.shard_rows(dataset, "eval")
    for circuit in plan.circuits(cell):
        for condition in plan.conditions():
            for metric in plan.metrics():
                name = layout.value(circuit.key, condition, metric)
                create_array(run.evaluations, name, (n,), (step,), "float64")


# --- circuits ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Circuit:
    """A circuit with its edges: `mask` `[edge]` is what the threshold keeps, `weights` `[edge]` the
    aggregated scores."""

    key: str
    aggregation: str
    selection: str
    threshold: float
    mask: np.ndarray
    weights: np.ndarray


def circuits_of(run: RunDirectory, plan: Plan, cell: Cell) -> Iterator[Circuit]:
    """The circuits of a cell whose scores are reduced, from its aggregates over all inputs."""
    aggregates: dict[str, np.ndarray] = {}
    for spec in plan.circuits(cell):
        if spec.aggregation not in aggregates:
            found = aggregate(run, cell.key, spec.aggregation)
            assert found is not None
            aggregates[spec.aggregation] = found
        weights = aggregates[spec.aggregation]
        mask = select(weights, spec.selection, spec.threshold)
        yield Circuit(spec.key, spec.aggregation, spec.selection, spec.threshold, mask, weights)


def write_masks(run: RunDirectory, plan: Plan, cell: Cell) -> None:
    """The masks of a cell's circuits, where actors find them."""
    for circuit in circuits_of(run, plan, cell):
        write_mask(run, circuit.key, "all", circuit.mask)


def write_mask(run: RunDirectory, circuit: str, blocks: str, mask: np.ndarray) -> None:
    """A bool `[edge]` array; not written if it is there as it should be."""
    name, shape = layout.mask(circuit, blocks), mask.shape
    if has_array(run.evaluations, name) and _holds(run, name, mask):
        return
    create_array(run.evaluations, name, shape, shape, "bool", compress=True)
    write_block(run, layout.EVALUATIONS, name, 0, mask)


def read_mask(run: RunDirectory, circuit: str, blocks: str = "all") -> np.ndarray:
    """A circuit's edges, or what a block ablation leaves of them."""
    array = open_array(run.evaluations, layout.mask(circuit, blocks))
    return read_rows(array, 0, array.shape[0])


def _holds(run: RunDirectory, name: str, mask: np.ndarray) -> bool:
    try:
        array = open_array(run.evaluations, name)
        return bool(np.array_equal(read_rows(array, 0, len(mask)), mask))
    except Exception:  # damaged or half written: it is written again
        return False


def make_block_arrays(run: RunDirectory, plan: Plan, cell: Cell, circuit: str) -> None:
    """Where the block ablations of a cell's fitted circuit are measured."""
    dataset = plan.dataset(cell)
    n, step = len(dataset.data.evaluation), plan.shard_rows(dataset, "eval")
    for condition in plan.block_conditions(cell):
        for metric in plan.metrics():
            name = layout.value(circuit, condition, metric)
            create_array(run.evaluations, name, (n,), (step,), "float64")
