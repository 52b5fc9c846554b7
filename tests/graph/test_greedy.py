"""Circuits from the logits backwards: by hand, and by the definition."""

import numpy as np
import pytest

from edgesweep.engine.graph import EdgeGraph, FeatureGraph, GraphSpec, prune, select
from edgesweep.engine.graph.greedy import greedy_order
from tests.graph.made import graph_of_names
from tests.oracles.slow_greedy import slow_greedy


def scores_of(graph, by_name):
    scores = np.zeros(graph.n_edges)
    for name, score in by_name.items():
        scores[graph.edge_index(name)] = score
    return scores


def names(graph, mask):
    return {graph.edge_name(e) for e in np.flatnonzero(mask)}


def test_by_hand():
    """One layer, two heads that share keys and values. The largest scores do not hang together."""
    graph = EdgeGraph(GraphSpec(n_layers=1, n_heads=2, n_kv_heads=1))
    scores = scores_of(
        graph,
        {
            "embed->a0.h0.q": 9.0,  # a0.h0 joins last of all
            "embed->a0.kv0.v": -8.0,  # a candidate as soon as a0.h1 has joined
            "embed->m0": 1.0,
            "a0.h1->m0": 3.0,
            "a0.h0->m0": 0.5,
            "m0->logits": -2.0,
            "embed->logits": 1.5,
            "a0.h0->logits": 0.25,
            "embed->a0.h1.q": 0.75,
        },
    )
    taken = [graph.edge_name(e) for e in greedy_order(graph, np.abs(scores), 99)]
    assert taken[:9] == [
        "m0->logits",
        "a0.h1->m0",
        "embed->a0.kv0.v",
        "embed->logits",
        "embed->m0",
        "embed->a0.h1.q",
        "a0.h0->m0",
        "embed->a0.h0.q",
        "a0.h0->logits",
    ]
    assert len(taken) == graph.n_edges  # all are candidates in the end
    three = select(scores, "greedy", 3, graph)
    assert names(graph, three) == set(taken[:3])
    assert (prune(graph, three, both_sides=True) == three).all()
    top = select(scores, "topk_abs", 3)
    assert names(graph, top) == {"embed->a0.h0.q", "embed->a0.kv0.v", "a0.h1->m0"}
    assert not prune(graph, top, both_sides=True).any()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("parallel", [False, True])
def test_by_its_definition(seed, parallel):
    graph = EdgeGraph(GraphSpec(n_layers=2, n_heads=4, n_kv_heads=2, parallel=parallel))
    scores = np.random.default_rng(seed).normal(size=graph.n_edges).round(1)  # with ties
    taken = [graph.edge_name(e) for e in greedy_order(graph, np.abs(scores), graph.n_edges)]
    assert taken == slow_greedy(graph, scores, graph.n_edges)
    for size in (1, 5, 40):
        assert names(graph, select(scores, "greedy", size, graph)) == set(taken[:size])


def test_scores_that_are_not_finite_are_never_taken_and_what_hangs_on_them_neither():
    graph = EdgeGraph(GraphSpec(n_layers=1, n_heads=1, n_kv_heads=1))
    scores = np.ones(graph.n_edges)
    for name in ("m0->logits", "a0.h0->logits"):
        scores[graph.edge_index(name)] = np.nan
    assert names(graph, select(scores, "greedy", 99, graph)) == {"embed->logits"}


def test_over_features_only_the_edges_that_were_found_are_candidates():
    parents = {"embed": (), "resid0": ("embed",), "logits": ("resid0",)}
    edges = ("embed/f1->resid0/f2", "embed/f1->resid0/f3", "resid0/f3->logits")
    graph: FeatureGraph = graph_of_names(parents, edges)
    scores = scores_of(graph, dict(zip(edges, (5.0, 1.0, 2.0), strict=True)))
    taken = [graph.edge_name(e) for e in greedy_order(graph, scores, 99)]
    assert taken == ["resid0/f3->logits", "embed/f1->resid0/f3"]


def test_a_graph_is_needed():
    with pytest.raises(ValueError, match="selection 'greedy' builds on a graph's edges"):
        select(np.ones(3), "greedy", 1)
