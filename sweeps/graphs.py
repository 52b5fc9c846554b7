"""The graph of a cell, and its scores in that graph's order.

Over heads the architecture decides both. Over features the scores do: the edges that were found, or
for methods that score nodes all edges among the nodes of the cell's circuits.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from edgesweep.engine.graph import FeatureGraph, Graph, circuit_stats, touched_nodes
from edgesweep.engine.graph.circuits import CircuitStats, EdgeMask
from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import read_static
from edgesweep.storage.readers import Committed
from edgesweep.sweeps.granularity.featuresets import FeatureSet
from edgesweep.sweeps.plan.cells import Cell
from edgesweep.sweeps.plan.plan import Plan


def graph_of(run: RunDirectory, plan: Plan, cell: Cell) -> Graph:
    """The graph of a cell; over features, once its scores are reduced."""
    if not cell.features:
        return plan.model(cell).graph
    return feature_graph(run, cell, plan.features(cell))


def feature_graph(run: RunDirectory, cell: Cell, features: FeatureSet) -> FeatureGraph:
    """The graph that a reduced cell's scores have found."""
    return _feature_graph(run.path, cell, features)


@lru_cache(maxsize=8)
def _feature_graph(path: Path, cell: Cell, features: FeatureSet) -> FeatureGraph:
    run, name = RunDirectory.open(path), layout.edges(cell.key)
    if cell.is_sparse:
        ends = Committed(run).read(layout.AGGREGATES, name)
        ends = ends[ends[:, 0] >= 0]
        return features.graph(ends[:, 0], ends[:, 1])
    return features.complete_graph(read_static(run.aggregates, name)[0])


def scores_of(
    committed: Committed, plan: Plan, cell: Cell, aggregation: str, member: str = "all"
) -> np.ndarray | None:
    """Aggregated scores of all inputs or of a member's, in the order of the cell's scores: edges,
    or nodes that write (over features, all of the dictionaries'). None where not committed."""
    group = cell.key if member == "all" else f"{cell.key}/{member}"
    found = committed.aggregate(group, aggregation)
    if found is not None and cell.is_sparse:
        return found[: graph_of(committed.run, plan, cell).n_edges]
    return found


def node_numbers(plan: Plan, cell: Cell, graph: Graph) -> np.ndarray:
    """Where the nodes of a graph stand among the scores of a cell that scores nodes."""
    if isinstance(graph, FeatureGraph):
        return plan.features(cell).numbers(graph)
    return np.arange(len(graph.sources))


def stats_of(graph: Graph, mask: EdgeMask, ablation: str) -> CircuitStats:
    """Size of a circuit as it is run. Node ablation of features runs all edges that the sites allow
    among its nodes, and not only those that were found."""
    stats = circuit_stats(graph, mask)
    if ablation == "edge" or not isinstance(graph, FeatureGraph):
        return stats
    n_edges = graph.n_edges_among(touched_nodes(graph, mask))
    return CircuitStats(stats.n_nodes, n_edges, stats.n_edges_possible)
