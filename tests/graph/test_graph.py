"""The graph's order, circuits, pruning and counts, worked out by hand on small graphs."""

import numpy as np
import pytest

from edgesweep.engine.graph import (
    SELECTIONS,
    EdgeGraph,
    GraphSpec,
    circuit_stats,
    node_circuit,
    node_edges,
    prune,
    select,
    selections,
    touched_nodes,
)

GROUPED = EdgeGraph(GraphSpec(n_layers=2, n_heads=4, n_kv_heads=2))


def mask_of(graph, *names):
    mask = np.zeros(graph.n_edges, dtype=bool)
    mask[[graph.edge_index(n) for n in names]] = True
    return mask


def names_of(graph, mask):
    return {graph.edge_name(e) for e in np.flatnonzero(mask)}


@pytest.mark.parametrize(
    ("spec", "n_edges"),
    [
        (GraphSpec(12, 12, 12), 32_491),  # GPT-2 small
        (GraphSpec(30, 9, 3), 70_651),  # SmolLM2-135M
        (GraphSpec(1, 1, 1), 8),
        (GraphSpec(1, 1, 1, parallel=True), 7),
    ],
)
def test_number_of_edges(spec, n_edges):
    assert EdgeGraph(spec).n_edges == n_edges


def test_order_of_a_one_layer_graph():
    graph = EdgeGraph(GraphSpec(1, 2, 1))
    assert [graph.edge_name(e) for e in range(graph.n_edges)] == [
        "embed->a0.h0.q",
        "embed->a0.h1.q",
        "embed->a0.kv0.k",
        "embed->a0.kv0.v",
        "embed->m0",
        "a0.h0->m0",
        "a0.h1->m0",
        "embed->logits",
        "a0.h0->logits",
        "a0.h1->logits",
        "m0->logits",
    ]


def test_names_and_indices_are_inverse():
    assert [GROUPED.edge_index(GROUPED.edge_name(e)) for e in range(GROUPED.n_edges)] == list(
        range(GROUPED.n_edges)
    )


def test_edges_that_do_not_exist_have_no_index():
    for name in ("m1->m0", "a1.h0->a1.h1.q", "a0.h9->m0", "embed"):
        with pytest.raises(KeyError):
            GROUPED.edge_index(name)


def test_heads_must_divide_into_groups():
    with pytest.raises(ValueError, match="cannot share 3 key-value heads"):
        GraphSpec(1, 4, 3)


# --- what nodes and targets are ----------------------------------------------------------------
def test_tables_say_what_nodes_and_ports_are():
    graph = EdgeGraph(GraphSpec(1, 2, 1))
    table = graph.node_table
    assert dict(zip(graph.nodes, rows_of(table), strict=True)) == {
        "embed": ("embed", "embed", -1, -1, ""),
        "a0.h0": ("attn0", "head", 0, 0, ""),
        "a0.h1": ("attn0", "head", 0, 1, ""),
        "m0": ("mlp0", "mlp", 0, -1, ""),
        "logits": ("logits", "logits", 1, -1, ""),
    }
    assert dict(zip(graph.targets, rows_of(graph.target_table), strict=True)) == {
        "a0.h0.q": ("attn0", "head", 0, 0, "q"),
        "a0.h1.q": ("attn0", "head", 0, 1, "q"),
        "a0.kv0.k": ("attn0", "head", 0, 0, "k"),
        "a0.kv0.v": ("attn0", "head", 0, 0, "v"),
        "m0": ("mlp0", "mlp", 0, -1, ""),
        "logits": ("logits", "logits", 1, -1, ""),
    }


def rows_of(table):
    return list(zip(table.site, table.kind, table.layer, table.number, table.port, strict=True))


# --- selection ---------------------------------------------------------------------------------
SCORES = np.array([0.5, -2.0, 0.0, 2.0, np.nan, 0.5])


@pytest.mark.parametrize(
    ("selection", "threshold", "kept"),
    [
        ("value", 0.5, [3]),
        ("value", 0.4, [0, 3, 5]),
        ("abs", 0.5, [1, 3]),
        ("topk_value", 2, [0, 3]),  # the tie at 0.5 goes to the lower index
        ("topk_abs", 2, [1, 3]),
        ("topk_abs", 0, []),
        ("topk_abs", 99, [0, 1, 2, 3, 5]),  # nan is never kept
    ],
)
def test_selection(selection, threshold, kept):
    assert np.flatnonzero(select(SCORES, selection, threshold)).tolist() == kept


@pytest.mark.parametrize("selection", SELECTIONS)
def test_many_thresholds_select_as_one_by_one(selection):
    graph = EdgeGraph(GraphSpec(n_layers=1, n_heads=1, n_kv_heads=1))
    scores = np.array([0.5, np.nan, -2.0, 0.5, np.inf, 0.0, 1.0, 0.25])
    together = list(selections(scores, selection, [0, 1, 3, 20], graph))
    assert [m.tolist() for m in together] == [
        select(scores, selection, threshold, graph).tolist() for threshold in (0, 1, 3, 20)
    ]


def test_selection_refuses_nonsense():
    with pytest.raises(ValueError, match="selection 'best' is none of"):
        select(SCORES, "best", 1)
    with pytest.raises(ValueError, match=r"whole number of edges >= 0; got 1\.5"):
        select(SCORES, "topk_abs", 1.5)


# --- pruning -----------------------------------------------------------------------------------
def test_output_side_pruning_drops_what_leads_nowhere():
    mask = mask_of(GROUPED, "embed->a0.h0.q", "a0.h0->logits", "embed->m0", "embed->a1.h3.q")
    assert names_of(GROUPED, prune(GROUPED, mask, both_sides=False)) == {
        "embed->a0.h0.q",
        "a0.h0->logits",
    }


def test_a_key_value_port_leads_on_if_any_head_of_its_group_does():
    mask = mask_of(GROUPED, "embed->a0.kv0.k", "embed->a0.kv1.v", "a0.h1->logits")
    assert names_of(GROUPED, prune(GROUPED, mask, both_sides=False)) == {
        "embed->a0.kv0.k",
        "a0.h1->logits",
    }


def test_input_side_pruning_drops_what_nothing_feeds():
    mask = mask_of(
        GROUPED, "m0->logits", "embed->a0.h0.q", "a0.h0->logits", "a0.h2->m1", "m1->logits"
    )
    assert names_of(GROUPED, prune(GROUPED, mask, both_sides=True)) == {
        "embed->a0.h0.q",
        "a0.h0->logits",
    }


def test_coupled_heads_reach_what_their_siblings_reach():
    graph = EdgeGraph(GraphSpec(1, 2, 2, coupled=True))
    mask = mask_of(graph, "embed->a0.h1.q", "a0.h0->logits")
    assert names_of(graph, prune(graph, mask, both_sides=False)) == names_of(graph, mask)


def test_pruning_keeps_all_of_a_full_graph_and_none_of_an_empty_one():
    full = np.ones(GROUPED.n_edges, dtype=bool)
    assert prune(GROUPED, full, both_sides=True).all()
    assert not prune(GROUPED, ~full, both_sides=True).any()


# --- views over nodes --------------------------------------------------------------------------
def test_node_view_merges_ports_and_spreads_groups():
    mask = mask_of(GROUPED, "embed->a0.h0.q", "embed->a0.kv0.k", "embed->a0.kv0.v", "a0.h1->logits")
    pairs = {(GROUPED.nodes[a], GROUPED.nodes[b]) for a, b in node_edges(GROUPED, mask)}
    assert pairs == {("embed", "a0.h0"), ("embed", "a0.h1"), ("a0.h1", "logits")}
    stats = circuit_stats(GROUPED, mask)
    assert (stats.n_nodes, stats.n_edges, stats.average_degree) == (4, 4, 2.0)
    assert stats.density == 4 / GROUPED.n_edges


def test_empty_circuit_has_no_degree():
    stats = circuit_stats(GROUPED, np.zeros(GROUPED.n_edges, dtype=bool))
    assert (stats.n_nodes, stats.n_edges, stats.average_degree, stats.density) == (0, 0, 0.0, 0.0)


def test_node_circuit_drops_exactly_the_edges_out_of_other_nodes():
    mask = mask_of(GROUPED, "embed->a0.h0.q", "a0.h0->logits")
    kept = node_circuit(GROUPED, mask)
    inside = {n for n, k in zip(GROUPED.nodes, touched_nodes(GROUPED, mask), strict=True) if k}
    assert inside == {"embed", "a0.h0", "logits"}
    assert {n.split("->")[0] for n in names_of(GROUPED, kept)} == {"embed", "a0.h0"}
    assert kept.sum() == np.isin(GROUPED.edge_source, [0, 1]).sum()


@pytest.mark.parametrize("both_sides", [True, False])
def test_siblings_that_share_a_kept_port_and_are_patched_are_not_counted(both_sides):
    """V_C is embed, a0.h0, a1.h2 and the logits; a0.h1 and a1.h3 share their keys and values."""
    names = ("embed->a0.kv0.v", "a0.h0->a1.kv1.k", "a0.h0->logits", "embed->a1.kv1.v")
    by_edges = mask_of(GROUPED, *names, "embed->a0.h0.q", "a1.h2->logits")
    inside = [n in ("embed", "a0.h0", "a1.h2") for n in GROUPED.sources]
    kept = prune(GROUPED, np.array(inside)[GROUPED.edge_source], both_sides=both_sides)
    assert {"embed->a0.kv0.k", "a0.h0->a1.kv1.k"} < names_of(GROUPED, kept)
    stats = circuit_stats(GROUPED, kept, by_nodes=True)
    assert (stats.n_nodes, stats.n_edges) == (4, kept.sum())
    assert stats.average_degree == 2 * kept.sum() / 4
    assert circuit_stats(GROUPED, kept).n_nodes == 6  # as views over nodes have it
    assert circuit_stats(GROUPED, by_edges).n_nodes == 6
    nothing = np.zeros(GROUPED.n_edges, dtype=bool)
    assert circuit_stats(GROUPED, nothing, by_nodes=True).n_nodes == 0
