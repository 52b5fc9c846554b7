"""Random graphs of given degrees: what a chain keeps, and that it reaches all of them alike."""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from edgesweep.engine.graph import EdgeGraph, GraphSpec, allowed_edges, allowed_pairs, node_edges
from edgesweep.engine.graph.features import FeatureGraph
from edgesweep.engine.graph.rewiring import Allowed, rewire

SEQUENTIAL = EdgeGraph(GraphSpec(n_layers=4, n_heads=4, n_kv_heads=2))
PARALLEL = EdgeGraph(GraphSpec(n_layers=4, n_heads=4, n_kv_heads=2, parallel=True))
#: 2 sites read one before them, the last both: what targets may read is nested
NESTED = Allowed(
    np.array([0, 0, 0, 1, 1]), np.array([1, 1, 2, 2, 2]), np.triu(np.ones((3, 3)), 1) > 0
)


def degrees(pairs: np.ndarray) -> tuple[Counter[int], Counter[int]]:
    return Counter(pairs[:, 0].tolist()), Counter(pairs[:, 1].tolist())


def some_edges(graph: EdgeGraph, share: float = 0.2) -> np.ndarray:
    return np.random.default_rng(0).random(graph.n_edges) < share


@pytest.mark.parametrize("graph", [SEQUENTIAL, PARALLEL], ids=["sequential", "parallel"])
@pytest.mark.parametrize("of", ["nodes", "ports"])
def test_a_chain_keeps_degrees_and_makes_possible_simple_graphs(graph, of):
    mask = some_edges(graph)
    if of == "nodes":
        pairs, allowed, possible = (
            node_edges(graph, mask),
            allowed_pairs(graph),
            ~np.zeros_like(mask),
        )
        all_pairs = {tuple(pair) for pair in node_edges(graph, possible).tolist()}
    else:
        ends = np.stack([graph.edge_source, graph.edge_target], axis=1)
        pairs, allowed = ends[mask], allowed_edges(graph)
        all_pairs = {tuple(pair) for pair in ends.tolist()}
    drawn = rewire(pairs, allowed, 20 * len(pairs), seed=1)
    found = {tuple(pair) for pair in drawn.pairs.tolist()}
    assert len(found) == len(drawn.pairs) == len(pairs)
    assert found <= all_pairs
    assert degrees(drawn.pairs) == degrees(np.asarray(pairs))
    assert drawn.kept < 0.6
    assert abs(drawn.kept - drawn.kept_halfway) < 0.2
    assert 0 < drawn.swapped < 1


def test_what_is_allowed_over_features_is_what_the_sites_allow():
    parents = {"embed": (), "resid1": ("embed",), "mlp2": ("resid1",), "logits": ("resid1", "mlp2")}
    nodes = {"embed": [1, 2, -1], "resid1": [3, 4, 5], "mlp2": [6, -1]}
    complete = FeatureGraph.complete(parents, nodes)
    allowed = allowed_pairs(complete)
    n = len(complete.nodes)
    every = np.array(list(itertools.product(range(n), range(n))))
    found = {tuple(pair) for pair in every[allowed.holds(every)].tolist()}
    everything = np.ones(complete.n_edges, dtype=bool)
    assert found == {tuple(pair) for pair in node_edges(complete, everything).tolist()}


def all_graphs(pairs: np.ndarray, allowed: Allowed) -> set[frozenset[tuple[int, int]]]:
    """Every possible simple graph with these degrees, by trying all of as many edges."""
    n_sources, n_targets = len(allowed.source), len(allowed.target)
    every = np.array(list(itertools.product(range(n_sources), range(n_targets))))
    possible = [tuple(pair) for pair in every[allowed.holds(every)].tolist()]
    wanted = degrees(pairs)
    return {
        frozenset(some)
        for some in itertools.combinations(possible, len(pairs))
        if degrees(np.array(some)) == wanted
    }


def test_a_chain_reaches_all_graphs_of_its_degrees_alike():
    start = np.array([[0, 0], [1, 1], [2, 2], [0, 3], [3, 2], [4, 4], [1, 4]])
    graphs = sorted(all_graphs(start, NESTED), key=sorted)
    assert len(graphs) > 20
    drawn = Counter(
        frozenset(map(tuple, rewire(start, NESTED, 150, seed).pairs.tolist()))
        for seed in range(4000)
    )
    assert set(drawn) == set(graphs)
    assert chisquare([drawn[graph] for graph in graphs]).pvalue > 0.01


def test_the_same_seed_gives_the_same_graph_whatever_the_order_of_edges():
    start = np.array([[0, 0], [1, 1], [2, 2], [3, 3]])
    one, other = (rewire(pairs, NESTED, 50, 3).pairs for pairs in (start, start.copy()))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("pairs", [np.zeros((0, 2), int), np.array([[0, 2]])])
def test_what_cannot_be_swapped_stays(pairs):
    drawn = rewire(pairs, NESTED, 10, seed=0)
    np.testing.assert_array_equal(drawn.pairs, pairs)
    assert (drawn.kept, drawn.swapped) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("pairs", "message"), [([[0, 0], [0, 0]], "there twice"), ([[3, 0]], "none of those")]
)
def test_graphs_that_are_not_simple_or_not_possible_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        rewire(np.array(pairs), NESTED, 10, seed=0)
