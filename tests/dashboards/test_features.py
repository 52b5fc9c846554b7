"""The page of a run over features, from a real one."""

import time

import numpy as np
import pandas as pd
import pytest

from dashboards.circuit import circuit_figure, on_a_path, roots
from dashboards.data import GraphTables, load_run
from dashboards.report import render
from dashboards.sites import (
    MAX_NAMED,
    forward_key,
    named_nodes,
    over_features,
    site_places,
    sites_of,
)
from engine.graph import FeatureGraph, prune
from engine.graph.features import ERROR
from sweeps.config import load_config
from sweeps.launch import drive, start
from sweeps.progress import Silence

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
    assert "topk, 64 features, 4 at a position, trained" in text
    assert {"embed", "resid1"} <= set(data.config["features"]["dictionaries"])
    assert sorted(shard.partition("-")[0] for shard in data.fits) == ["mlp2", "resid1", "resid3"]


def test_scores_are_those_of_edges_that_were_found(data):
    for cell, scores in data.histograms.items():
        if data.cells[cell]["keep"]:
            assert len(scores) == data.graphs[cell].n_edges
            assert np.isfinite(scores).all()


def test_a_circuit_is_drawn_a_row_a_site(data):
    rows = data.circuits[data.circuits["threshold"] == 400]
    rows = rows[rows["cell"].str.startswith("ig_activations")]
    graph = data.graphs[rows["cell"].iloc[0]]
    assert over_features(graph.nodes)
    assert {n.partition("/")[0] for n in roots(graph)} == {"embed"}
    kept = on_a_path(rows, graph)
    assert 0 < len(kept) <= len(rows)
    figure = circuit_figure(kept, graph)
    assert list(figure.layout.yaxis.ticktext) == ["embed", "resid1", "mlp2", "resid3", "logits"]
    drawn = next(t for t in figure.data if t.meta == {"part": "nodes"})
    assert "diamond" in drawn.marker.symbol
    assert max(drawn.y) == 4.0


SITES = {"embed": (), "resid0": ("embed",), "mlp1": ("resid0",), "resid1": ("resid0", "mlp1")}
GRAPH = FeatureGraph.complete(
    {**SITES, "logits": ("resid1",)}, {site: (0, 1, ERROR) for site in SITES}
)
TABLES = GraphTables(GRAPH.nodes, GRAPH.targets, GRAPH.ends.pairs)


def of_edges(edges):
    pairs = [GRAPH.edge_name(e).split("->") for e in edges]
    frame = pd.DataFrame(pairs, columns=["source", "target"], index=list(edges))
    return frame.assign(weight=[(-1.0) ** e * (1 + e) for e in edges])


@pytest.mark.parametrize("from_roots", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_edges_on_a_path_are_those_that_pruning_keeps(seed, from_roots):
    mask = np.random.default_rng(seed).random(GRAPH.n_edges) < 0.25
    kept = on_a_path(of_edges(np.flatnonzero(mask)), TABLES, from_roots=from_roots)
    assert list(kept.index) == list(np.flatnonzero(prune(GRAPH, mask, both_sides=from_roots)))


def test_paths_of_a_hundred_thousand_edges_are_found_quickly():
    many = {"embed": range(200), "resid0": range(400), "resid1": range(100)}
    parents = {"embed": (), "resid0": ("embed",), "resid1": ("resid0",), "logits": ("resid1",)}
    graph = FeatureGraph.complete(parents, many)
    rows = pd.DataFrame(
        {
            "source": np.array(graph.sources)[graph.edge_source],
            "target": np.array(graph.targets)[graph.edge_target],
            "weight": 1.0,
        }
    )
    began = time.process_time()
    kept = on_a_path(rows, GraphTables(graph.nodes, graph.targets, graph.ends.pairs))
    assert len(kept) == graph.n_edges == 120_100
    assert time.process_time() - began < 10


def test_nodes_tell_their_neighbours_and_few_are_named():
    one = of_edges([GRAPH.edge_index(e) for e in ("embed/f1->resid0/err", "resid0/err->resid1/f0")])
    nodes = circuit_figure(one, TABLES).data[-1]
    told = dict(zip(nodes.text, nodes.hovertext, strict=True))
    assert set(told) == {"f1", "err", "f0"}
    middle = told["err"].split("<br>")
    assert middle[0] == "<b>resid0/err</b>"
    assert [line[:8] for line in middle[1:]] == ["← embed/", "→ resid1"]
    assert dict(zip(nodes.text, nodes.marker.symbol, strict=True))["err"] == "diamond"
    names = named_nodes([f"resid0/f{i}" for i in range(MAX_NAMED + 1)] + ["resid1/f3"])
    assert names == {"resid1/f3": "f3"}


def test_nodes_are_sorted_as_the_model_runs_them():
    names = ["logits", "resid1/err", "mlp1/f2", "resid1/f10", "embed/f3", "attn1/f0", "resid1/f9"]
    wanted = ["embed/f3", "attn1/f0", "mlp1/f2", "resid1/f9", "resid1/f10", "resid1/err", "logits"]
    assert sorted(names, key=forward_key) == wanted
    heads = ["m0", "a1.h10", "a1.h2", "a0.h1", "logits", "embed", "m1"]
    assert sorted(heads, key=forward_key) == [
        "embed", "a0.h1", "m0", "a1.h2", "a1.h10", "m1", "logits"
    ]  # fmt: skip
    assert sites_of(wanted) == ["embed", "attn1", "mlp1", "resid1", "logits"]
    strength = {"resid1/f9": 1.0, "resid1/err": 3.0, "resid1/f10": 2.0, "logits": 3.0}
    where = site_places(wanted, strength)
    row = ["resid1/err", "resid1/f10", "resid1/f9"]
    assert sorted(row, key=lambda n: where[n][0]) == row
    assert {n: y for n, (_, y) in where.items()} == dict.fromkeys(strength, 3.0) | {"logits": 4.0}
