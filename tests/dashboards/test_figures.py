"""Figures hold the numbers of the tables they are made from."""

import numpy as np
import pandas as pd
import pytest

from dashboards.curves import faithfulness_figure, smallest_faithful, with_series
from dashboards.data import GraphTables
from dashboards.structure import (
    MAX_DRAWN_EDGES,
    block_ablation_figure,
    block_matrix,
    circuit_figure,
    histogram_figure,
    memberships,
)
from engine.graph import EdgeGraph, GraphSpec

GRAPH = EdgeGraph(GraphSpec(n_layers=2, n_heads=2, n_kv_heads=1))
TABLES = GraphTables(GRAPH.nodes, GRAPH.targets, GRAPH.target_nodes)


def results(**changes):
    rows = []
    for method, steps in (("eap", 0), ("ig_inputs", 5)):
        for ablation in ("edge", "node"):
            for i, n_edges in enumerate((0, 10, 100)):
                rows.append(
                    {
                        "cell": method,
                        "circuit": f"{method}-{n_edges}",
                        "model": "m",
                        "task": "t",
                        "subset": "all",
                        "method": method,
                        "steps": steps,
                        "build_patch": "counterfactual",
                        "build_metric": "logit_diff",
                        "aggregation": "mean",
                        "selection": "topk_abs",
                        "eval_patch": "counterfactual",
                        "threshold": float(n_edges),
                        "ablation": ablation,
                        "blocks": "all",
                        "n_nodes": 2 * i,
                        "n_edges": n_edges,
                        "n_edges_possible": 200,
                        "average_degree": float(i),
                        "density": n_edges / 200,
                        "metric": "kl",
                        "value": 1.0 - i / 2,
                        "value_full": 0.0,
                        "value_empty": 1.0,
                        "faithfulness": i / 2 if method == "eap" else i / 2.2,
                        "n_inputs": 8,
                    }
                )
    return pd.DataFrame(rows).assign(**changes)


def test_series_are_named_by_what_varies():
    assert sorted(set(with_series(results())["series"])) == ["eap", "ig_inputs ×5"]
    two = pd.concat([results(), results(aggregation="max")])
    assert "eap · max" in set(with_series(two)["series"])


@pytest.mark.parametrize("x", ["n_edges", "n_nodes", "average_degree"])
def test_curves_hold_the_tables_values(x):
    figure = faithfulness_figure(results(), x)
    trace = next(t for t in figure.data if t.name == "eap, edge ablation")
    rows = results().query("method == 'eap' and ablation == 'edge'")
    if x != "n_nodes":  # logarithmic axes have no place for an empty circuit
        rows = rows[rows[x] > 0]
    assert list(trace.x) == list(rows[x])
    assert list(trace.y) == list(rows["faithfulness"])
    assert trace.meta == {"metric": "kl", "subset": "all"}


def test_one_metric_and_subset_is_shown_and_a_method_keeps_its_colour():
    table = pd.concat([results(), results(metric="accuracy"), results(subset="ioi")])
    figure = faithfulness_figure(table, "n_edges")
    shown = {(t.meta["metric"], t.meta["subset"]) for t in figure.data if t.visible}
    assert shown == {("kl", "all")}
    assert len({t.line.color for t in figure.data if t.name.startswith("eap")}) == 1
    assert len({t.line.dash for t in figure.data if t.name == "eap, node ablation"}) == 1


def test_smallest_faithful_circuits():
    table = smallest_faithful(results(), (0.5, 0.95)).query("ablation == 'edge'")
    found = {(r.series, r.level): r.n_edges for r in table.itertuples()}
    assert found["eap", 0.5] == 10
    assert found["eap", 0.95] == 100
    assert np.isnan(found["ig_inputs ×5", 0.95])


def test_histogram_counts_every_edge_with_a_finite_score():
    draw = np.random.default_rng(0)
    scores = draw.normal(size=1000) * 10.0 ** draw.integers(-6, 1, 1000)
    figure = histogram_figure(np.append(scores, [0.0, np.nan]))
    assert sum(np.nansum(t.y) for t in figure.data) == 1000
    positive = next(t for t in figure.data if t.name == "raises the metric")
    assert np.nansum(positive.y) == (scores > 0).sum()


def circuit(*names):
    pairs = [name.split("->") for name in names]
    weights = [(-1) ** i * (1.0 + i) for i in range(len(names))]
    return pd.DataFrame(
        {"source": [p[0] for p in pairs], "target": [p[1] for p in pairs], "weight": weights}
    )


def test_a_circuit_shows_its_nodes_and_no_others():
    figure = circuit_figure(circuit("embed->a0.kv0.k", "a0.h1->logits"), TABLES)
    nodes = figure.data[-1]
    named = {text.split("</b>")[0][3:] for text in nodes.hovertext}
    assert named == {"embed", "a0.h0", "a0.h1", "logits"}  # a kv port belongs to its whole group
    assert any("→ logits -2" in text for text in nodes.hovertext)


def test_only_the_strongest_edges_of_a_large_circuit_are_drawn():
    graph = EdgeGraph(GraphSpec(6, 6, 6))
    names = [graph.edge_name(e) for e in range(2 * MAX_DRAWN_EDGES)]
    tables = GraphTables(graph.nodes, graph.targets, graph.target_nodes)
    figure = circuit_figure(circuit(*names), tables)
    segments = [len(t.x) // 3 for t in figure.data[:-1] if len(t.x) > 1]
    assert sum(segments) == MAX_DRAWN_EDGES


BLOCKS = pd.DataFrame(
    {
        "node": ["embed", "a0.h0", "a0.h1", "logits", "embed"],
        "block": [0, 1, 1, 0, 0],
        "label": ["ioi", "gt", "gt", "ioi", ""],
        "level": [0, 0, 0, 0, 1],
    }
)


def test_block_matrix_counts_node_pairs_once():
    edges = circuit("embed->a0.kv0.k", "embed->a0.h0.q", "a0.h1->logits")
    counts, names = block_matrix(edges, BLOCKS, TABLES)
    assert counts.tolist() == [[0, 2], [1, 0]]
    assert names == ["0 ioi", "1 gt"]


def test_memberships_list_the_bottom_level_in_forward_order():
    assert [(b["block"], b["label"], b["nodes"]) for b in memberships(BLOCKS)] == [
        (0, "ioi", ["embed", "logits"]),
        (1, "gt", ["a0.h0", "a0.h1"]),
    ]


def test_block_ablation_heatmap():
    rows = [
        {"blocks": f"{mode}:{label}", "subset": task, "metric": "kl", "faithfulness": value}
        for mode, label, task, value in (
            ("without", "ioi", "ioi", 0.1),
            ("without", "ioi", "gt", 0.9),
            ("without", "gt", "ioi", 0.8),
            ("without", "gt", "gt", 0.2),
            ("only", "gt", "gt", 0.7),
        )
    ]
    figure = block_ablation_figure(pd.DataFrame(rows), "kl", "without")
    heat = figure.data[0]
    assert (list(heat.x), list(heat.y)) == (["gt", "ioi"], ["gt", "ioi"])
    assert np.asarray(heat.z).tolist() == [[0.2, 0.9], [0.8, 0.1]]
