"""Circuits evaluated from Python agree with those of a sweep."""

import numpy as np
import pytest

import edgesweep as es
from edgesweep.engine.graph import Circuit, CircuitError
from edgesweep.sweeps.config.fields import ConfigError
from tests.api.conftest import PATCHES

HOW = {"metric": ["logit_diff", "kl"], "n": 4, "mean_positions": "pooled"}


@pytest.mark.parametrize("ablation", ["edge", "node"])
@pytest.mark.parametrize("patch", PATCHES)
def test_a_found_circuit_has_the_values_of_its_rows(finished, patch, ablation):
    run = es.open(finished)
    circuit = run.circuit("eap", threshold=40)
    found = es.evaluate(
        "tiny-random", "ioi+agreement", circuit, ablation=ablation, eval_patch=patch, **HOW
    )
    rows = run.results.query(
        "circuit == @circuit.name and ablation == @ablation and eval_patch == @patch"
    ).set_index(["subset", "metric"])
    assert len(found) == len(rows) == 10
    for point in found.to_dict("records"):
        row = rows.loc[(point.pop("subset"), point.pop("metric"))]
        wanted = row[list(point)].to_numpy(dtype=float)
        np.testing.assert_allclose(list(point.values()), wanted, rtol=1e-4, atol=1e-6)


def test_a_file_and_the_known_circuit_are_run_too(tmp_path):
    known = es.evaluate("wired-induction", "own", "known", n=8)
    assert known["faithfulness"].tolist() == [pytest.approx(1.0, abs=1e-3)]
    circuit = Circuit.of_edges(["embed->logits"])
    circuit.to_json(tmp_path / "edges.json")
    ours = es.evaluate("wired-induction", "own", tmp_path / "edges.json", n=8)
    assert ours["n_edges"].tolist() == [1]
    assert ours["faithfulness"][0] < 0.5
    everything = es.evaluate(
        "wired-induction", "own", es.load_circuit(tmp_path / "edges.json"), n=8
    )
    assert everything.equals(ours)


def test_what_cannot_be_evaluated_is_one_line():
    with pytest.raises(CircuitError, match="edge 'm9->logits': there is no 'm9'"):
        es.evaluate("tiny-random", "ioi", Circuit.of_edges(["m9->logits"]))
    with pytest.raises(
        CircuitError, match="no circuit of tiny-random on ioi is known; give a file"
    ):
        es.evaluate("tiny-random", "ioi", "known")
    with pytest.raises(ConfigError, match=r"evaluate\.ablation: 'edges' is not known; allowed"):
        es.evaluate("tiny-random", "ioi", "known", ablation="edges")
    with pytest.raises(ConfigError, match=r"unknown key 'data\.n_bild'"):
        es.evaluate("tiny-random", "ioi", "known", n_bild=3)
