"""What the driver writes before an actor starts: prompts, graphs, every array that will be filled,
and, once scores are reduced, the circuits' masks. Done again on resume, it changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgesweep.engine.graph import induced_edges, select
from edgesweep.engine.patches import mean_groups
from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import create_array, make_store, read_static, write_static
from edgesweep.storage.atomic import replace
from edgesweep.storage.fold import AGGREGATIONS, STATS
from edgesweep.storage.graphs import write_graph
from edgesweep.storage.readers import Committed
from edgesweep.storage.records import seal
from edgesweep.sweeps.graphs import graph_of, node_numbers, scores_of
from edgesweep.sweeps.plan.canonical import digest
from edgesweep.sweeps.plan.cells import (
    BootstrapShard,
    Cell,
    CircuitSpec,
    MeanShard,
    ReduceShard,
    ReferenceShard,
)
from edgesweep.sweeps.plan.plan import Plan
from edgesweep.sweeps.plan.points import ranking_of
from edgesweep.sweeps.plan.resolve import Dataset, prompts_to_json


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
        if not cell.features:
            write_graph(run, cell.key, plan.model(cell).graph)
        _make_score_arrays(run, plan, cell)
        _make_folded_arrays(run, plan, cell)
        _make_value_arrays(run, plan, cell)
        _make_interval_arrays(run, plan, cell)


def _write_prompts(run: RunDirectory, dataset: Dataset) -> None:
    path = run.path / layout.prompts(dataset.key)
    splits = {"build": dataset.data.build, "eval": dataset.data.evaluation}
    data = seal({split: prompts_to_json(prompts) for split, prompts in splits.items()})
    if not path.exists() or path.read_bytes() != data:
        replace(path, data)


def _make_score_arrays(run: RunDirectory, plan: Plan, cell: Cell) -> None:
    n_scores, n = plan.n_scores(cell), len(plan.dataset(cell).data.build)
    n_shards, step = len(plan.build_rows(cell)), plan.build_chunk(cell)
    if cell.is_sparse:
        _make_lists(run, plan, cell, n, step)
        return
    create_array(run.attributions, layout.scores(cell.key), (n, n_scores), (step, n_scores))
    for name in layout.PER_INPUT:
        create_array(run.attributions, layout.per_input(cell.key, name), (n,), (step,), "float64")
    shape = (n_shards, len(STATS), n_scores)
    create_array(run.aggregates, layout.partials(cell.key), shape, (1, *shape[1:]), "float64")


def _make_lists(run: RunDirectory, plan: Plan, cell: Cell, n: int, step: int) -> None:
    """Of each input and block of target positions, its largest edges; what they are is not known
    before, so that their number is what bounds them."""
    n_rows, keep = n * plan.config.features.position_shards, cell.keep or 0
    for name, dtype in layout.LISTS.items():
        shape, chunk = (n_rows, keep), (step, keep)
        path = layout.listed(cell.key, name)
        create_array(run.attributions, path, shape, chunk, dtype, compress=True)
    for name in layout.PER_LIST:
        create_array(run.attributions, layout.listed(cell.key, name), (n_rows,), (step,), "float64")
    ends = (plan.n_scores(cell), 2)
    create_array(run.aggregates, layout.edges(cell.key), ends, ends, "int64", compress=True)


def _make_folded_arrays(run: RunDirectory, plan: Plan, cell: Cell) -> None:
    n_scores = plan.n_scores(cell)
    shards = [*plan.stages["reduce"], *plan.stages["reduce_refined"]]
    groups = {s.group for s in shards if isinstance(s, ReduceShard) and s.cell == cell}
    if cell.is_sparse:  # one shard folds the members too
        groups = {ReduceShard(cell, subset, ()).group for subset in plan.dataset(cell).subsets}
    for group in sorted(groups):
        for name in (*AGGREGATIONS, *layout.COUNTS):
            dtype = "int64" if name in layout.COUNTS else "float64"
            create_array(
                run.aggregates, layout.folded(group, name), (n_scores,), (n_scores,), dtype
            )


def _make_interval_arrays(run: RunDirectory, plan: Plan, cell: Cell) -> None:
    if any(s.cell == cell for s in plan.stages["bootstrap"] if isinstance(s, BootstrapShard)):
        shape, n = (2, plan.n_scores(cell)), plan.config.measures.bootstrap
        create_array(run.aggregates, layout.interval(cell.key), shape, shape, "float64")
        create_array(run.aggregates, layout.stability(cell.key), (n,), (n,), "float64")


def _make_mean_arrays(run: RunDirectory, plan: Plan, dataset: Dataset) -> None:
    model = plan.resolved.models[dataset.model]
    pooled = plan.config.data.mean_positions == "pooled"
    dtype = "float64" if plan.config.execution.dtype == "float64" else "float32"
    make_store(run.path / layout.MEANS)
    prompts = dataset.data.build
    lengths = dict(zip(mean_groups(prompts, pooled=pooled), map(len, prompts), strict=True))
    for features in plan.feature_digests(dataset):
        rows, columns = len(model.graph.sources), model.sizes.d_model
        if features:
            chosen = plan.resolved.features[dataset.model].dictionaries
            rows, columns = 1, sum(d.n_features + model.sizes.d_model for d in chosen)
        for index, group in enumerate(dataset.build_groups(pooled)):
            shape = (rows, 1 if pooled else lengths[group], columns)
            name = layout.mean(MeanShard(dataset.key, group, index, features).source, index)
            create_array(run.path / layout.MEANS, name, shape, shape, dtype)


def _make_reference_arrays(run: RunDirectory, plan: Plan, dataset: Dataset) -> None:
    n, step = len(dataset.data.evaluation), plan.chunk_rows(dataset, "eval")
    sides = [(side, metric) for side in ("full", "empty") for metric in plan.reference_metrics()]
    for shard in plan.stages["evaluate"]:
        if isinstance(shard, ReferenceShard) and shard.dataset == dataset.key:
            more = layout.DISTANCES if shard.features else ()
            for side, metric in (*sides, *more):
                name = layout.reference(shard.source, shard.eval_patch, side, metric)
                create_array(run.evaluations, name, (n,), (step,), "float64")


def _make_value_arrays(run: RunDirectory, plan: Plan, cell: Cell) -> None:
    dataset = plan.dataset(cell)
    n, step = len(dataset.data.evaluation), plan.chunk_rows(dataset, "eval")
    for circuit in plan.circuits(cell):
        for condition in plan.conditions():
            for metric in plan.metrics():
                name = layout.value(circuit.key, condition.key, metric)
                create_array(run.evaluations, name, (n,), (step,), "float64")


# --- candidates -------------------------------------------------------------------------------


def write_candidates(committed: Committed, plan: Plan, cell: Cell) -> None:
    """The edges that a refined cell looks at: those that EAP ranks first by |mean score|, and some
    drawn, with a seed of the cell's own, from the others."""
    scores = committed.aggregate(ranking_of(cell).key, "mean")
    assert scores is not None
    assert cell.n_top is not None
    mask = select(scores, "topk_abs", cell.n_top)
    others = np.flatnonzero(~mask)
    draw = np.random.default_rng([plan.config.seed, int(digest(cell.as_dict())[:8], 16)])
    mask[draw.choice(others, min(cell.n_random, len(others)), replace=False)] = True
    write_static(committed.run.evaluations, layout.candidates(cell.key), mask, compress=True)


def read_candidates(run: RunDirectory, cell: Cell) -> np.ndarray:
    """Bool `[edge]`: the edges that a refined cell looks at."""
    return read_static(run.evaluations, layout.candidates(cell.key))[0]


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


def circuits_of(committed: Committed, plan: Plan, cell: Cell) -> Iterator[Circuit]:
    """The circuits of a cell whose scores are reduced, from its aggregates over all inputs. Of a
    cell that scores nodes, a circuit is all edges among the nodes that are kept."""
    graph = graph_of(committed.run, plan, cell)
    for spec, weights, mask in _selected(committed, plan, cell):
        if plan.is_nodes(cell):
            numbers = node_numbers(plan, cell, graph)
            mask, weights = induced_edges(graph, mask[numbers]), weights[numbers[graph.edge_source]]
        yield Circuit(spec.key, spec.aggregation, spec.selection, spec.threshold, mask, weights)


def _selected(
    committed: Committed, plan: Plan, cell: Cell
) -> Iterator[tuple[CircuitSpec, np.ndarray, np.ndarray]]:
    """Each circuit with the scores that decide it and which of them are kept."""
    aggregates: dict[str, np.ndarray] = {}
    for spec in plan.circuits(cell):
        if spec.aggregation not in aggregates:
            found = scores_of(committed, plan, cell, spec.aggregation)
            assert found is not None
            aggregates[spec.aggregation] = found
        weights = aggregates[spec.aggregation]
        yield spec, weights, select(weights, spec.selection, spec.threshold)


def _write_nodes(committed: Committed, plan: Plan, cell: Cell) -> None:
    """Over features: the nodes of all circuits of a cell that scores nodes; its graph is over
    them."""
    kept = np.zeros(plan.n_scores(cell), dtype=bool)
    for _, _, mask in _selected(committed, plan, cell):
        kept |= mask
    write_static(committed.run.aggregates, layout.edges(cell.key), np.flatnonzero(kept))


def write_masks(committed: Committed, plan: Plan, cell: Cell) -> None:
    """The masks of a cell's circuits, where actors find them; of features also their graph."""
    run = committed.run
    if cell.features:
        if plan.is_nodes(cell):
            _write_nodes(committed, plan, cell)
        write_graph(run, cell.key, graph_of(run, plan, cell))
    for circuit in circuits_of(committed, plan, cell):
        write_mask(run, circuit.key, "all", circuit.mask)


def write_mask(run: RunDirectory, circuit: str, blocks: str, mask: np.ndarray) -> None:
    """The edges of a circuit, or what a block ablation leaves of them."""
    write_static(run.evaluations, layout.mask(circuit, blocks), mask, compress=True)


def read_mask(run: RunDirectory, circuit: str, blocks: str = "all") -> np.ndarray:
    """A circuit's edges, or what a block ablation leaves of them."""
    return read_static(run.evaluations, layout.mask(circuit, blocks))[0]


def make_block_arrays(run: RunDirectory, plan: Plan, cell: Cell, circuit: str) -> None:
    """Where the block ablations of a cell's fitted circuit are measured."""
    dataset = plan.dataset(cell)
    n, step = len(dataset.data.evaluation), plan.chunk_rows(dataset, "eval")
    for condition in plan.block_conditions(cell):
        for metric in plan.metrics():
            name = layout.value(circuit, condition.key, metric)
            create_array(run.evaluations, name, (n,), (step,), "float64")
