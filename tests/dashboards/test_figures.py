"""Figures hold the numbers of the tables they are made from."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from edgesweep.dashboards.figures import curves
from edgesweep.dashboards.figures.blocks import (
    block_ablation_figure,
    block_matrix,
    block_matrix_figure,
)
from edgesweep.dashboards.figures.circuit import CURVE_POINTS, MAX_DRAWN_EDGES, circuit_figure
from edgesweep.dashboards.figures.curves import (
    axes_of,
    faithfulness_figure,
    marks_of_variants,
    thinned,
)
from edgesweep.dashboards.figures.places import Drawing
from edgesweep.dashboards.figures.scores import histogram_figure
from edgesweep.dashboards.kinds import Kind
from edgesweep.dashboards.names import cell_names, circuit_names, share
from edgesweep.dashboards.searched import SEARCHED, Searched
from edgesweep.dashboards.sections.blockmodels.blocks import memberships
from edgesweep.dashboards.sections.smallest import key_table, smallest_faithful
from edgesweep.dashboards.series import menus, with_series
from edgesweep.engine.graph import EdgeGraph, GraphSpec
from tests.dashboards.made import tables_of

GRAPH = EdgeGraph(GraphSpec(n_layers=2, n_heads=2, n_kv_heads=1))
TABLES = tables_of(GRAPH)


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


def test_random_orders_are_one_line_with_their_range():
    one = results().query("method == 'eap' and ablation == 'edge'").assign(method="random")
    other = one.assign(cell="b", circuit=one["circuit"] + "b", faithfulness=one["faithfulness"] / 2)
    (line,) = faithfulness_figure(pd.concat([one, other]), "n_edges").data
    assert list(line.x) == [10, 100]
    assert list(line.y) == [0.375, 0.75]
    assert list(line.error_y.array) == list(line.error_y.arrayminus) == [0.125, 0.25]


def test_series_are_named_by_what_varies():
    assert sorted(set(with_series(results())["series"])) == ["EAP", "IG inputs ×5"]
    two = pd.concat([results(), results(aggregation="max")])
    assert "EAP · max" in set(with_series(two)["series"])


def test_kinds_of_nodes_are_compared_by_the_share_of_their_edges():
    """One method over several sets of dictionaries: a colour a set, for the method has but one."""
    one = results().query("method == 'eap' and ablation == 'edge'")
    table = pd.concat([one.assign(nodes=nodes, cell=nodes) for nodes in ("sae", "lib")])
    assert "density" not in axes_of([Kind()])
    axes = axes_of([Kind(), Kind()])
    figure = faithfulness_figure(table, "density", axes=axes)
    assert {line.line.color for line in figure.data} == {
        mark.colour for mark in marks_of_variants(with_series(table)).values()
    }
    assert len({line.line.color for line in figure.data}) == 2
    assert [list(line.x) for line in figure.data] == [[0.05, 0.5]] * 2
    assert not marks_of_variants(with_series(results()))


@pytest.mark.parametrize("x", ["n_edges", "n_nodes", "average_degree"])
def test_curves_hold_the_tables_values(x):
    figure = faithfulness_figure(results(), x)
    trace = next(t for t in figure.data if t.name == "EAP, edge ablation")
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
    assert len({t.line.color for t in figure.data if t.name.startswith("EAP")}) == 1
    assert len({t.line.dash for t in figure.data if t.name == "EAP, node ablation"}) == 1


def test_smallest_faithful_circuits():
    table = smallest_faithful(results(), (0.5, 0.95)).query("ablation == 'edge'")
    found = {(r.series, r.level): r.n_edges for r in table.itertuples()}
    assert found["EAP", 0.5] == 10
    assert found["EAP", 0.95] == 100
    assert np.isnan(found["IG inputs ×5", 0.95])
    missed = table.query("series == 'IG inputs ×5' and level == 0.95").iloc[0]
    assert (missed["best"], missed["best_n_edges"]) == (2 / 2.2, 100)


def test_the_rule_of_what_is_small_is_that_of_headlines():
    """One that is faithful by chance is none, nor one that does more than the model."""
    phi = [0.9, 0.5, 0.85, 1.3, 0.9]
    line = results().query("method == 'eap' and ablation == 'edge'").iloc[[0] * 5]
    line = line.assign(n_edges=[5, 10, 20, 40, 80], faithfulness=phi)
    table = smallest_faithful(line, (0.8, 0.95)).set_index("level")
    assert table.n_edges[0.8] == 80
    assert np.isnan(table.n_edges[0.95])
    quoted = {c: line.iloc[0][c] for c in (*SEARCHED, "subset")} | {
        "level": 0.8,
        "reached": True,
        "n_edges": 20,
        "n_edges_possible": 200,
        "faithfulness": 0.82,
        "low": 0.7,
        "high": 0.9,
    }
    text = key_table(line, Searched(pd.DataFrame()), pd.DataFrame([quoted])).html()
    assert "to quote, φ&nbsp;≥&nbsp;0.8" in text
    assert "20<small>10%, φ&nbsp;0.82 [0.70, 0.90]</small>" in text


def test_menus_begin_with_the_leading_point_and_one_value_of_what_would_crowd():
    two = pd.concat([results(model="a"), results(model="b")])
    names = {m.name: (list(m.options), m.chosen) for m in menus(two, two.iloc[-1])}
    assert names == {
        "metric": (["kl"], "kl"),
        "subset": (["all"], "all"),
        "model": (["a", "b"], "b"),
    }
    few = pd.concat([results(), results(aggregation="max")])
    assert menus(few)[-1].chosen == "*"  # 8 lines can be told apart
    many = pd.concat([few, results(aggregation="rms")])
    assert menus(many, many.iloc[-1])[-1].chosen == "rms"
    figure = faithfulness_figure(many, "n_edges", many.iloc[-1])
    assert {t.meta["aggregation"] for t in figure.data if t.visible} == {"rms"}


def test_points_beyond_the_cap_are_said_to_be_left_out(monkeypatch):
    table = pd.concat([results(), results(subset="ioi")])
    assert thinned(table)[1] == ""
    monkeypatch.setattr(curves, "MAX_POINTS", 15)
    kept, said = thinned(table)
    assert (len(kept), set(kept["subset"])) == (12, {"all"})
    assert said.startswith("This run measured 24 points; the figures hold 12 of them")


def test_histogram_counts_every_edge_with_a_finite_score():
    draw = np.random.default_rng(0)
    scores = draw.normal(size=1000) * 10.0 ** draw.integers(-6, 1, 1000)
    figure = histogram_figure(np.append(scores, [0.0, np.nan]))
    assert sum(np.nansum(t.y) for t in figure.data) == 1000
    tiny = histogram_figure(np.array([1.0, 1e-30, -1e-30]))
    assert sum(np.nansum(t.y) for t in tiny.data) == 3  # beyond the axis, but not lost
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
    assert set(nodes.text) == {"embed", "0", "1", "logits"}


def test_nodes_stand_apart_and_information_flows_upwards():
    where = Drawing(TABLES).places({})
    assert len(set(where.values())) == len(GRAPH.nodes)
    for edge in range(GRAPH.n_edges):
        source, target = GRAPH.edge_name(edge).split("->")
        ends = GRAPH.ends.node[GRAPH.ends.target == GRAPH.targets.index(target)]
        assert all(where[source][1] < where[GRAPH.nodes[n]][1] for n in ends)


def test_a_kind_of_nodes_that_no_page_has_heard_of_is_drawn_a_row_a_site():
    table = TABLES.node_table.assign(kind="neuron", site=[f"hidden{i // 4}" for i in range(8)])
    drawing = Drawing(dataclasses.replace(TABLES, node_table=table))
    assert drawing.sites == ["hidden0", "hidden1"]
    figure = circuit_figure(circuit("embed->m0", "m0->logits"), drawing.graph)
    assert list(figure.layout.yaxis.ticktext) == ["hidden0", "hidden1"]
    assert set(figure.data[-1].marker.symbol) == {"circle"}


def test_only_the_strongest_edges_of_a_large_circuit_are_drawn():
    graph = EdgeGraph(GraphSpec(6, 6, 6))
    names = [graph.edge_name(e) for e in range(2 * MAX_DRAWN_EDGES)]
    figure = circuit_figure(circuit(*names), tables_of(graph))
    lines = [t for t in figure.data if t.mode == "lines"]
    assert sum(len(t.x) for t in lines) == MAX_DRAWN_EDGES * (CURVE_POINTS + 1)


def test_shares_read_well():
    assert [share(s) for s in (1, 0.296, 0.0296, 0.00042)] == ["100%", "30%", "3%", "0.042%"]


def test_names_tell_what_varies():
    cells = [
        {
            "key": "a",
            "method": "eap",
            "steps": None,
            "model": "m",
            "build_patch": "zero",
            "nodes": "heads",
        },
        {
            "key": "b",
            "method": "ig_inputs",
            "steps": 5,
            "model": "m",
            "build_patch": "mean",
            "nodes": "heads",
        },
    ]
    cells = [{**cell, "model": "m", "nodes": "heads"} for cell in cells]
    assert cell_names(cells, {"heads": Kind()}) == {"a": "EAP · zero", "b": "IG inputs ×5 · mean"}
    row = {"circuit": "c", "cell": "a", "aggregation": "mean", "threshold": 1000.0}
    top, low = {**row, "selection": "topk_abs"}, {**row, "circuit": "d", "selection": "value"}
    assert circuit_names(pd.DataFrame([top]), {"a": "EAP"}) == {"c": "EAP · top 1,000"}
    both = circuit_names(pd.DataFrame([top, low]), {"a": "EAP"})
    assert both["d"] == "EAP · value · score > 1e+03"


BLOCKS = pd.DataFrame(
    {
        "node": ["embed", "a0.h0", "a0.h1", "logits", "embed"],
        "block": [0, 1, 1, 0, 0],
        "label": ["ioi", "gt", "gt", "ioi", ""],
        "margin": [1.6, 2.5, 2.5, 1.6, 1.6],
        "level": [0, 0, 0, 0, 1],
    }
)


def test_block_matrix_counts_node_pairs_once():
    edges = circuit("embed->a0.kv0.k", "embed->a0.h0.q", "a0.h1->logits")
    counts, names = block_matrix(edges, BLOCKS, TABLES)
    assert counts.tolist() == [[0, 2], [1, 0]]
    assert names == ["0 ioi", "1 gt"]
    heat = block_matrix_figure(counts, names).data[0]
    assert np.square(heat.z).round().tolist() == counts.tolist()
    assert heat.customdata[0, 1].tolist() == ["2", "0 ioi", "1 gt"]


def test_memberships_list_the_bottom_level_in_forward_order():
    assert [(b["block"], b["label"], b["nodes"]) for b in memberships(BLOCKS, GRAPH.nodes)] == [
        (0, "ioi", ["embed", "logits"]),
        (1, "gt", ["a0.h0", "a0.h1"]),
    ]


def test_block_ablation_heatmap():
    rows = [
        {"blocks": f"{mode}:{label}", "subset": task, "metric": "kl", "faithfulness": value}
        | {"eval_patch": "zero"}
        for mode, label, task, value in (
            ("without", "ioi", "ioi", 0.1),
            ("without", "ioi", "gt", 0.9),
            ("without", "gt", "ioi", 0.8),
            ("without", "gt", "gt", 0.2),
            ("only", "gt", "gt", -0.001),
        )
    ]
    rows.append({**rows[3], "blocks": "all", "faithfulness": 1.0})
    rows += [{**row, "metric": "accuracy", "faithfulness": 0.5} for row in rows]
    rows += [{**row, "eval_patch": "mean", "faithfulness": 0.3} for row in rows[:6]]
    table = pd.DataFrame(rows)
    heat, other, mean = block_ablation_figure(table, "without").data
    assert (mean.meta["eval_patch"], mean.visible) == ("mean", False)
    assert (heat.meta["metric"], heat.visible) == ("kl", True)
    assert (other.meta["metric"], other.visible) == ("accuracy", False)
    assert (list(heat.x), list(heat.y)) == (["all blocks", "gt", "ioi"], ["gt", "ioi"])
    values = np.asarray(heat.z, dtype=float)
    assert values[0].tolist() == [1.0, 0.2, 0.9]
    assert values[1, 1:].tolist() == [0.8, 0.1]
    assert np.isnan(values[1, 0])
    assert list(heat.text[1]) == ["", "0.80", "0.10"]
    only = block_ablation_figure(table, "only").data[0]
    assert list(only.text[0]) == ["1.00", "0.00"]  # never -0.00
