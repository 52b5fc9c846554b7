"""Scores of cells over features, by name."""

import numpy as np
import pytest

import edgesweep as es
from tests.sweeps.helpers import run_tiny, tiny

TRAINED = {"kind": "relu", "features": 24, "steps": 5, "prompts": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Target positions in two blocks, and room for all edges."""
    raw = tiny(
        sweep={"nodes": "features", "task": "ioi", "method": ["ig_activations", "node_ap"]},
        features={
            "dictionaries": {"resid1": TRAINED},
            "keep": 50_000,
            "edges": 50_000,
            "position_shards": 2,
        },
        evaluate={"threshold": [20], "node_threshold": [5], "metric": "logit_diff"},
    )
    out = tmp_path_factory.mktemp("features") / "run"
    assert run_tiny(out, raw).exit_code == 0
    return es.open(out)


def test_lists_of_edges_have_the_names_and_weights_of_circuits(run):
    """A weight is the mean over prompts; an edge that a prompt does not list is 0 there."""
    found = [run.scores("ig", prompt=prompt) for prompt in range(4)]
    circuit = run.circuit("ig", threshold=20)
    assert circuit.n_edges == 20
    for edge, weight in circuit.edges.items():
        listed = [float(s.sel(edge=edge)) if edge in s["edge"] else 0.0 for s in found]
        assert np.mean(listed) == pytest.approx(weight, rel=1e-5)
    assert all(len(set(s["edge"].values)) == s.size > 20 for s in found)
    with pytest.raises(
        ValueError, match=r"has a list of edges for each prompt; give prompt=0 to 3"
    ):
        run.scores("ig")


def test_nodes_are_numbered_as_the_engine_numbers_them(run):
    scores = run.scores("node_ap")
    names = scores["node"].values.tolist()
    (site,) = {name.split("/")[0] for name in names} - {"embed"}
    assert (scores.sizes["prompt"], site) == (4, "resid1")
    n_embed = sum(name.startswith("embed/") for name in names)
    assert names[n_embed - 1 : n_embed + 2] == ["embed/err", "resid1/f0", "resid1/f1"]
    assert names[-1] == "resid1/err"
    kept = {name.split("->")[0] for name in run.circuit("node_ap", threshold=5).edges}
    strongest = np.abs(scores.values.astype("float64").mean(0)).argsort()[::-1][:5]
    assert kept <= {names[i] for i in strongest}
