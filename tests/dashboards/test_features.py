"""The page of a run over features, from a real one."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from edgesweep.dashboards.data import load_run
from edgesweep.dashboards.figures.circuit import circuit_figure
from edgesweep.dashboards.figures.curves import axes_of, faithfulness_figure
from edgesweep.dashboards.figures.places import MAX_NAMED, Drawing
from edgesweep.dashboards.report import render
from edgesweep.dashboards.sections.blockmodels.blocks import MOST_OF_MANY, block_list, memberships
from edgesweep.dashboards.sections.dictionaries import words
from edgesweep.engine.graph import FeatureGraph
from edgesweep.engine.graph.features import ERROR
from edgesweep.sweeps.config.load import load_config
from edgesweep.sweeps.launch import drive, start
from edgesweep.sweeps.progress import Silence
from tests.dashboards.made import tables_of

FEW = (
    "execution.executor=serial",
    "sweep.task=ioi",
    "data={n_build: 4, n_eval: 4}",
    "evaluate.aggregation=mean",
    "evaluate.threshold=[20, 400]",
    "blocks.fit=none",
    "measures.bootstrap=0",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "run"
    drive(start(load_config("tiny-features", FEW), out), Silence())
    return load_run(out)


def test_the_page_has_every_section_that_features_have(data):
    text = render(data)
    for section in ("curves", "methods", "circuit", "dictionaries", "scores"):
        assert f"<section id='{section}'>" in text
    for section in ("known", "overlap", "interpolation"):
        assert f"<section id='{section}'>" not in text
    assert "Circles are features" in text
    assert "<td>topk, 4 at a position</td><td>trained in this run</td><td class=n>64</td>" in text
    assert "How far all features are from the model" not in text  # errors are nodes
    (kind,) = data.kinds.values()
    assert [site["site"] for site in kind.sites] == ["embed", "resid1", "mlp2", "resid3"]
    assert set(data.facts.fits) == {site["shard"] for site in kind.sites[1:]}


def test_a_share_of_no_loss_is_not_a_share(data):
    def shown(**losses):
        fit = {"dead_share": 0.0, "l0": 4.0, "variance_explained": 0.5, **losses}
        fit |= {"positions": 1234, "sinks": 16} if losses else {}
        fits = {shard: fit for shard in data.facts.fits}
        facts = dataclasses.replace(data.facts, fits=fits)
        return render(dataclasses.replace(data, facts=facts))

    nothing = shown(loss_clean=6.108, loss_median=6.11, loss_spliced=6.08, loss_recovered=13.57)
    assert "1357%" not in nothing
    told = "not defined</span><small>loss 6.108, with the median 6.110, with the features 6.080<"
    assert told in nothing
    worse = shown(loss_clean=6.1, loss_median=6.0, loss_spliced=6.2, loss_recovered=None)
    assert "loss 6.100, with the median 6.000, with the features 6.200" in worse
    sound = shown(loss_clean=3.0, loss_median=5.0, loss_spliced=3.5, loss_recovered=0.75)
    assert "<td class=n>75%</td>" in sound
    assert "<td class=n>1,234</td><td class=n>16</td>" in sound
    assert "nothing was held out" in shown()
    assert "not defined</span>" not in sound


def test_costs_that_were_not_measured_are_not_drawn(data):
    text = render(data)
    assert "Area under faithfulness" in text
    assert "The same against cost" not in text
    assert "Cost counts" not in text


def test_what_lists_leave_out_is_told(data):
    (facts,) = data.facts.lists.values()
    assert len(facts.residual) == 4
    assert (facts.residual > 0).all()
    assert 0 <= facts.dropped_in_lists < 1
    assert f"<td class=n>{facts.residual.max():.2g}</td>" in render(data)
    assert list(data.facts.distance) == ["counterfactual"]
    gap, scale = data.facts.distance["counterfactual"]
    assert (gap <= 1e-4 * scale).all()  # errors are nodes


def test_fixed_errors_tell_how_far_the_graph_is_from_the_model(data):
    told = {**data.plan["kinds"]["features"], "error": "zero"}
    plan = {**data.plan, "kinds": {"features": told}}
    distance = {"mean": (np.array([1.0, 2.0]), np.array([4.0, 5.0]))}
    facts = dataclasses.replace(data.facts, distance=distance)
    text = render(dataclasses.replace(data, plan=plan, facts=facts))
    assert "Errors are left out" in text
    row = ("mean</td>", "1.5</td>", "4.5</td>", "0.4</td>")
    assert "<td class=n>".join(row) in text


def test_dictionaries_in_words():
    assert words("hub:layer1/ae.pt") == ("loaded", "hub:layer1/ae.pt")
    assert words({"kind": "pca"})[0] == "principal axes"
    assert words({"kind": "lib"}) == ("local interaction basis", "computed in this run")
    assert words("identity") == ("identity", "")
    assert words("none")[0] == "none: all is error"


def test_curves_are_the_papers(data):
    assert set(data.marks) == {"IG edges ×2", "node IG ×2 (Marks et al.)"}
    whole = data.results[(data.results["blocks"] == "all") & (data.results["metric"] == "kl")]
    axes = axes_of(data.kinds.values())
    for x in ("n_nodes", "average_degree"):
        figure = faithfulness_figure(data.results, x, None, data.marks, axes=axes)
        assert figure.layout.xaxis.type == "log"
        drawn = {t.name: t for t in figure.data if t.meta["metric"] == "kl"}
        assert set(drawn) == {f"{m}, {a} ablation" for m in data.marks for a in ("edge", "node")}
        for name, trace in drawn.items():
            rows = whole[whole["method_name"] + ", " + whole["ablation"] + " ablation" == name]
            rows = rows[rows[x] > 0].sort_values("n_edges")
            assert list(trace.x) == list(rows[x])
            assert list(trace.y) == list(rows["faithfulness"])
    assert axes["n_nodes"] == ("features and errors in the circuit", "log")


def test_of_many_features_of_a_block_the_strongest_are_named():
    nodes = [f"resid1/f{i}" for i in range(MOST_OF_MANY + 5)]
    rows = pd.DataFrame({"node": nodes, "block": 0, "label": "ioi", "level": 0, "margin": 2.0})
    strength = {n: float(i) for i, n in enumerate(nodes)}
    text = block_list(memberships(rows, nodes), strength, many=True)
    assert "resid1/f4," not in text
    assert "resid1/f5, resid1/f6" in text
    assert "and 5 with weaker edges" in text


def test_scores_are_those_of_edges_that_were_found(data):
    for cell, scores in data.histograms.items():
        if data.cells[cell]["keep"]:
            assert len(scores) == data.graphs[cell].n_edges
            assert np.isfinite(scores).all()


def test_a_circuit_is_drawn_a_row_a_site(data):
    rows = data.ran[data.ran["threshold"] == 400]
    rows = rows[rows["cell"].str.startswith("ig_activations")]
    graph = data.graphs[rows["cell"].iloc[0]]
    assert not Drawing(graph).by_layer
    figure = circuit_figure(rows, graph)
    assert list(figure.layout.yaxis.ticktext) == ["embed", "resid1", "mlp2", "resid3", "logits"]
    drawn = next(t for t in figure.data if t.meta == {"part": "nodes"})
    assert "diamond" in drawn.marker.symbol
    assert max(drawn.y) == 4.0


SITES = {"embed": (), "resid0": ("embed",), "mlp1": ("resid0",), "resid1": ("resid0", "mlp1")}
GRAPH = FeatureGraph.complete(
    {**SITES, "logits": ("resid1",)}, {site: (0, 1, ERROR) for site in SITES}
)
TABLES = tables_of(GRAPH)


def of_edges(edges):
    pairs = [GRAPH.edge_name(e).split("->") for e in edges]
    frame = pd.DataFrame(pairs, columns=["source", "target"], index=list(edges))
    return frame.assign(weight=[(-1.0) ** e * (1 + e) for e in edges])


def test_nodes_tell_their_neighbours_and_few_are_named():
    one = of_edges([GRAPH.edge_index(e) for e in ("embed/f1->resid0/err", "resid0/err->resid1/f0")])
    nodes = circuit_figure(one, TABLES).data[-1]
    told = dict(zip(nodes.text, nodes.hovertext, strict=True))
    assert set(told) == {"f1", "err", "f0"}
    middle = told["err"].split("<br>")
    assert middle[0] == "<b>resid0/err</b>"
    assert [line[:8] for line in middle[1:]] == ["← embed/", "→ resid1"]
    assert dict(zip(nodes.text, nodes.marker.symbol, strict=True))["err"] == "diamond"


MANY = MAX_NAMED + 1
CROWD = FeatureGraph.complete(
    {"embed": (), "resid1": ("embed",), "logits": ("resid1",)},
    {"embed": tuple(range(MANY)), "resid1": (3, 9, 10, ERROR)},
)


def test_of_a_site_of_many_drawn_nodes_none_is_named():
    drawing = Drawing(tables_of(CROWD))
    texts = drawing.texts([*(f"embed/f{i}" for i in range(MANY)), "resid1/f3", "logits"])
    assert {name: text for name, text in texts.items() if text} == {
        "resid1/f3": "f3",
        "logits": "logits",
    }


def test_nodes_stand_in_the_row_of_their_site_by_strength():
    drawing = Drawing(tables_of(CROWD))
    assert drawing.sites == ["embed", "resid1", "logits"]
    strength = {"resid1/f9": 1.0, "resid1/err": 3.0, "resid1/f10": 2.0, "logits": 3.0}
    where = drawing.places(strength)
    row = ["resid1/err", "resid1/f10", "resid1/f9"]
    assert sorted(row, key=lambda n: where[n][0]) == row
    assert {n: y for n, (_, y) in where.items()} == dict.fromkeys(strength, 1.0) | {"logits": 2.0}
