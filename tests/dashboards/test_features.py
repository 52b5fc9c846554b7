"""The page of a run over features, from a real one."""

import numpy as np
import pytest

from dashboards.circuit import circuit_figure, on_a_path, roots
from dashboards.data import load_run
from dashboards.report import render
from dashboards.sites import forward_key, over_features, site_places, sites_of
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


def test_nodes_are_sorted_as_the_model_runs_them():
    names = ["logits", "resid1/err", "mlp1/f2", "resid1/f10", "embed/f3", "attn1/f0", "resid1/f9"]
    wanted = ["embed/f3", "attn1/f0", "mlp1/f2", "resid1/f9", "resid1/f10", "resid1/err", "logits"]
    assert sorted(names, key=forward_key) == wanted
    heads = ["m0", "a1.h10", "a1.h2", "a0.h1", "logits", "embed", "m1"]
    assert sorted(heads, key=forward_key) == [
        "embed", "a0.h1", "m0", "a1.h2", "a1.h10", "m1", "logits"
    ]  # fmt: skip
    assert sites_of(wanted) == ["embed", "attn1", "mlp1", "resid1", "logits"]
    assert len({y for _, y in site_places(wanted).values()}) == 5
