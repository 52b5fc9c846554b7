"""A cell's graph comes back as it was, with what each node is."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from edgesweep.engine.graph import ERROR, EdgeGraph, FeatureGraph, Graph, GraphSpec
from edgesweep.storage import RunDirectory, StorageError
from edgesweep.storage.arrays import make_store
from edgesweep.storage.graphs import has_graph, read_graph, write_graph

HEADS = EdgeGraph(GraphSpec(n_layers=2, n_heads=4, n_kv_heads=2))
PARENTS = {"embed": (), "resid0": ("embed",), "logits": ("resid0",)}
FEATURES = FeatureGraph.complete(PARENTS, {"embed": [ERROR], "resid0": [7, ERROR]})
EMPTY = FeatureGraph.complete(PARENTS, {})


@pytest.mark.parametrize("graph", [HEADS, FEATURES, EMPTY])
def test_a_graph_comes_back_as_it_was(run: RunDirectory, graph: Graph) -> None:
    make_store(run.attributions)
    assert not has_graph(run, "cell")
    write_graph(run, "cell", graph)
    assert has_graph(run, "cell")
    stored = read_graph(run, "cell")
    assert (stored.sources, stored.targets, stored.nodes) == (
        graph.sources,
        graph.targets,
        graph.nodes,
    )
    assert stored.edges == tuple(graph.edge_name(e) for e in range(graph.n_edges))
    assert np.array_equal(stored.ends, graph.ends.pairs)
    for frame, table in (
        (stored.node_table, graph.node_table),
        (stored.target_table, graph.target_table),
    ):
        for column in ("site", "kind", "layer", "number", "port"):
            assert frame[column].tolist() == list(getattr(table, column))


def test_a_graph_without_a_table_of_nodes_is_one_line(run: RunDirectory) -> None:
    make_store(run.attributions)
    write_graph(run, "cell", HEADS)
    shutil.rmtree(run.path / "attributions.zarr/cell/graph/nodes")
    with pytest.raises(StorageError, match="cell/graph/nodes: no such array; resume the run"):
        read_graph(run, "cell")
