"""The graph over features: its order, and circuits, pruning and block views by hand."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from edgesweep.engine.graph import (
    ERROR,
    EdgeGraph,
    FeatureGraph,
    GraphSpec,
    circuit_stats,
    edge_ends,
    induced_edges,
    node_circuit,
    node_edges,
    prune,
    select,
    touched_nodes,
)
from edgesweep.sweeps.labelled import LabelledBlocks, edge_nodes, simple_graph
from tests.graph.made import graph_of_names

#: embed -> resid0 -> (attn1 between) resid1 -> logits
PARENTS = {
    "embed": (),
    "resid0": ("embed",),
    "attn1": ("resid0",),
    "resid1": ("resid0", "attn1"),
    "logits": ("resid1",),
}
NODES = {"embed": [3, ERROR], "resid0": [ERROR, 9, 1], "attn1": [4], "resid1": [2, ERROR]}


def complete():
    return FeatureGraph.complete(PARENTS, NODES)


def mask_of(graph, *names):
    mask = np.zeros(graph.n_edges, dtype=bool)
    mask[[graph.edge_index(n) for n in names]] = True
    return mask


def names_of(graph, mask):
    return {graph.edge_name(e) for e in np.flatnonzero(mask)}


# --- the order -----------------------------------------------------------------------------------
def test_tables_say_what_nodes_and_targets_are():
    graph = complete()
    table = graph.node_table
    found = list(zip(table.site, table.kind, table.layer, table.number, strict=True))
    assert dict(zip(graph.nodes, found, strict=True)) == {
        "embed/f3": ("embed", "feature", -1, 3),
        "embed/err": ("embed", "error", -1, ERROR),
        "resid0/f1": ("resid0", "feature", 0, 1),
        "resid0/f9": ("resid0", "feature", 0, 9),
        "resid0/err": ("resid0", "error", 0, ERROR),
        "attn1/f4": ("attn1", "feature", 1, 4),
        "resid1/f2": ("resid1", "feature", 2, 2),
        "resid1/err": ("resid1", "error", 2, ERROR),
        "logits": ("logits", "logits", 3, -1),
    }
    assert graph.target_table.site == table.site[2:]
    assert graph.target_table.number.tolist() == table.number[2:].tolist()


def test_nodes_are_by_site_then_number_then_the_error():
    graph = complete()
    assert graph.nodes == (
        "embed/f3",
        "embed/err",
        "resid0/f1",
        "resid0/f9",
        "resid0/err",
        "attn1/f4",
        "resid1/f2",
        "resid1/err",
        "logits",
    )
    assert graph.sources == graph.nodes[:-1]
    assert graph.targets == graph.nodes[2:]
    assert graph.features("resid0").tolist() == [1, 9]
    assert graph.nodes[graph.error_node("resid0")] == "resid0/err"
    assert graph.error_node("attn1") is None


def test_edges_are_by_target_then_source():
    graph = complete()
    assert [graph.edge_name(e) for e in range(5)] == [
        "embed/f3->resid0/f1",
        "embed/err->resid0/f1",
        "embed/f3->resid0/f9",
        "embed/err->resid0/f9",
        "embed/f3->resid0/err",
    ]
    assert [graph.edge_name(e) for e in range(graph.n_edges - 2, graph.n_edges)] == [
        "resid1/f2->logits",
        "resid1/err->logits",
    ]
    assert np.all(np.diff(graph.edge_target) >= 0)
    for block in graph.blocks:
        targets = graph.edge_target[block.edges]
        assert ((targets >= block.first_target) & (targets < block.first_target + 3)).all()


def test_possible_edges_join_parents_and_children_alone():
    # embed 2 x resid0 3, resid0 3 x attn1 1, (resid0 3 + attn1 1) x resid1 2, resid1 2 x logits
    assert complete().n_edges == complete().n_edges_possible == 6 + 3 + 8 + 2
    some = FeatureGraph(PARENTS, NODES, complete_pairs()[:4])
    assert (some.n_edges, some.n_edges_possible) == (4, 19)
    assert circuit_stats(some, np.ones(4, bool)).density == 4 / 19


def complete_pairs():
    graph = complete()
    return np.stack([graph.edge_source, graph.edge_target + graph.n_roots], axis=1)


def test_the_order_does_not_depend_on_how_edges_are_given():
    pairs = complete_pairs()
    shuffled = np.random.default_rng(0).permutation(np.concatenate([pairs, pairs[3:8]]))
    graph = FeatureGraph(PARENTS, NODES, shuffled)
    assert np.array_equal(graph.edge_source, complete().edge_source)
    assert np.array_equal(graph.edge_target, complete().edge_target)


def test_names_and_indices_are_inverse():
    graph = complete()
    edges = range(graph.n_edges)
    assert [graph.edge_index(graph.edge_name(e)) for e in edges] == list(edges)
    again = graph_of_names(PARENTS, [graph.edge_name(e) for e in edges])
    assert again.nodes == graph.nodes
    assert np.array_equal(again.edge_source, graph.edge_source)


def test_edges_that_are_not_there_have_no_index():
    for name in ("embed/f3->attn1/f4", "embed/f4->resid0/f1", "embed/f3", "logits->embed/f3"):
        with pytest.raises(KeyError):
            complete().edge_index(name)


def test_an_edge_past_a_site_is_refused():
    with pytest.raises(ValueError, match="embed/f3->resid1/f2: resid1/f2 does not read its site"):
        graph_of_names(PARENTS, ["embed/f3->resid1/f2"])
    with pytest.raises(ValueError, match="no index of one of the 9 nodes"):
        FeatureGraph(PARENTS, NODES, np.array([[0, 9]]))
    with pytest.raises(ValueError, match="a parent of resid0 is not before it"):
        FeatureGraph({"embed": (), "resid0": ("resid0",), "logits": ()}, {}, np.zeros((0, 2), int))


def test_edge_masks_select_as_in_any_graph():
    scores = np.arange(complete().n_edges, dtype=float)
    assert np.flatnonzero(select(scores, "topk_abs", 2)).tolist() == [17, 18]


# --- pruning -------------------------------------------------------------------------------------
PATH = (
    "embed/f3->resid0/f1",
    "resid0/f1->attn1/f4",
    "attn1/f4->resid1/f2",
    "resid1/f2->logits",
)


def test_pruning_keeps_paths_from_the_embeddings_to_the_logits():
    graph = complete()
    dangling = mask_of(graph, *PATH, "embed/err->resid0/f9")
    assert names_of(graph, prune(graph, dangling, both_sides=False)) == set(PATH)
    unfed = mask_of(graph, *PATH, "resid0/f9->resid1/f2")
    assert names_of(graph, prune(graph, unfed, both_sides=False)) == names_of(graph, unfed)
    assert names_of(graph, prune(graph, unfed, both_sides=True)) == set(PATH)


def test_what_enters_an_error_node_reaches_the_features_that_fall_back_on_its_mask():
    graph = complete()
    into_error = mask_of(graph, *PATH, "embed/err->resid0/err")
    assert names_of(graph, prune(graph, into_error, both_sides=True)) == names_of(graph, into_error)
    only_fallback = mask_of(graph, "embed/err->resid0/err", "resid0/f9->resid1/f2", PATH[-1])
    kept = prune(graph, only_fallback, both_sides=True)
    assert names_of(graph, kept) == names_of(graph, only_fallback)
    nobody = mask_of(graph, "embed/err->resid0/err", PATH[-1])
    assert names_of(graph, prune(graph, nobody, both_sides=False)) == {PATH[-1]}


def test_pruning_keeps_all_of_a_full_graph_and_none_of_an_empty_one():
    graph = complete()
    full = np.ones(graph.n_edges, dtype=bool)
    assert prune(graph, full, both_sides=True).all()
    assert not prune(graph, ~full, both_sides=True).any()


def test_errors_that_are_no_nodes_have_no_edges():
    graph = complete()
    left = names_of(graph, graph.without_errors(np.ones(graph.n_edges, bool)))
    assert "embed/f3->resid0/err" in left
    assert not any(name.split("->")[0].endswith("/err") for name in left)


# --- views over nodes ----------------------------------------------------------------------------
def test_counts_and_node_views():
    graph = complete()
    mask = mask_of(graph, *PATH)
    stats = circuit_stats(graph, mask)
    assert (stats.n_nodes, stats.n_edges, stats.average_degree) == (5, 4, 8 / 5)
    touched = [n for n, t in zip(graph.nodes, touched_nodes(graph, mask), strict=True) if t]
    assert touched == ["embed/f3", "resid0/f1", "attn1/f4", "resid1/f2", "logits"]
    pairs = [f"{graph.nodes[a]}->{graph.nodes[b]}" for a, b in node_edges(graph, mask)]
    assert pairs == list(PATH)
    writers = {n.split("->")[0] for n in names_of(graph, node_circuit(graph, mask))}
    assert writers == {"embed/f3", "resid0/f1", "attn1/f4", "resid1/f2"}


def test_circuits_of_nodes():
    graph = complete()
    kept = np.isin(graph.sources, ["embed/f3", "resid0/f1", "resid1/f2"])
    among = {"embed/f3->resid0/f1", "resid0/f1->resid1/f2", "resid1/f2->logits"}
    assert names_of(graph, induced_edges(graph, kept)) == among


def test_block_models_see_a_feature_graph_as_any_other():
    graph = complete()
    mask = mask_of(graph, *PATH, "embed/err->resid0/f9", "resid0/f9->resid1/f2")
    nodes, pairs = simple_graph(graph, mask)
    assert [graph.nodes[n] for n in nodes] == [
        "embed/f3",
        "embed/err",
        "resid0/f1",
        "resid0/f9",
        "attn1/f4",
        "resid1/f2",
        "logits",
    ]
    assert sorted(map(tuple, pairs.tolist())) == [(0, 2), (1, 3), (2, 4), (3, 5), (4, 5), (5, 6)]
    assert edge_nodes(graph, mask, nodes) == [(0, 2), (1, 3), (2, 4), (3, 5), (4, 5), (5, 6)]
    scores = np.zeros((2, graph.n_edges))
    scores[0, graph.edge_index("embed/err->resid0/f9")] = 1.0
    scores[1, graph.edge_index("embed/f3->resid0/f1")] = 1.0
    scores[1, graph.edge_index("resid1/f2->logits")] = 0.1
    blocks = LabelledBlocks(graph, mask, nodes, np.array([1, 0, 1, 0, 1, 1, 1]), scores, 1.0)
    assert blocks.labels.tolist() == [0, 1]
    of_err = {"embed/err->resid0/f9", "resid0/f9->resid1/f2"}
    assert names_of(graph, blocks.without(0)) == set(PATH)
    assert names_of(graph, blocks.without(1)) == {"embed/err->resid0/f9"}
    assert names_of(graph, blocks.only(0)) == {"embed/err->resid0/f9"}
    assert of_err & names_of(graph, blocks.only(1)) == set()


def test_a_lone_root_belongs_to_no_block():
    nodes = NODES | {"embed": [ERROR]}
    graph = FeatureGraph.complete(PARENTS, nodes)
    assert [graph.nodes[n] for n in graph.fixed_nodes] == ["embed/err", "logits"]
    assert [complete().nodes[n] for n in complete().fixed_nodes] == ["logits"]


# --- the two kinds of graph agree with the tables that they stand for -----------------------------
@pytest.mark.parametrize(
    "spec",
    [GraphSpec(2, 4, 2), GraphSpec(2, 4, 2, coupled=True), GraphSpec(1, 2, 2, parallel=True)],
)
def test_ends_of_ports_are_the_table_of_target_nodes(spec):
    graph = EdgeGraph(spec)
    mask = np.random.default_rng(0).random(graph.n_edges) < 0.3
    source, node, edge = edge_ends(graph, mask)
    kept = np.flatnonzero(mask)
    found = list(zip(kept[edge].tolist(), source.tolist(), node.tolist(), strict=True))
    assert found == [
        (e, graph.edge_source[e], n)
        for e in kept
        for n in np.flatnonzero(graph.target_nodes[graph.edge_target[e]])
    ]


def test_twenty_thousand_nodes_need_no_table_over_pairs_of_them():
    draw = np.random.default_rng(0)
    sites = ["embed", *(f"resid{i}" for i in range(6))]
    parents = {"embed": ()} | {b: (a,) for a, b in zip(sites, [*sites[1:], "logits"], strict=True)}
    nodes = {site: [*range(3000), ERROR] for site in sites}
    bare = FeatureGraph(parents, nodes, np.zeros((0, 2), int))
    starts = [(bare.site_nodes(a).start, bare.site_nodes(b).start) for a, b in pairwise(sites)]
    pairs = [draw.integers(0, 3001, (40_000, 2)) + np.array(start) for start in starts]
    last = np.arange(bare.site_nodes("resid5").start, bare.site_nodes("resid5").stop)
    tracemalloc.start()
    graph = FeatureGraph(
        parents, nodes, np.concatenate([*pairs, np.stack([last, last * 0 + 21_007], axis=1)])
    )
    mask = draw.random(graph.n_edges) < 0.5
    kept = prune(graph, mask, both_sides=True)
    _, edges = simple_graph(graph, kept)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(graph.nodes) == 21_008
    assert len(edges) == kept.sum() > 50_000
    assert peak < 100e6  # one bool table of 21,008 squared would be 441 MB
