"""A run as Python values: what is read is what is stored."""

import shutil

import numpy as np
import pandas as pd
import pytest

import edgesweep as es
from edgesweep.storage import CommitLog, RunDirectory, StorageError, readers
from edgesweep.storage.graphs import read_graph


@pytest.fixture
def run(finished):
    return es.open(finished)


def test_tables_are_the_files(run):
    for name in ("results", "circuits", "blocks", "measures", "overlap", "known"):
        pd.testing.assert_frame_equal(
            getattr(run, name), pd.read_parquet(run.path / f"{name}.parquet")
        )
    assert run.status["state"] == "done"
    assert run.config["data"]["n_eval"] == 4
    assert run.cells["method"].tolist() == ["eap", "node_ap"]
    assert "2 cells" in repr(run)


def test_prompts_are_those_that_scores_are_of(run):
    assert run.prompts("eap")["task"].tolist() == 4 * ["ioi"] + 4 * ["agreement"]
    assert " gave " in run.prompts("eap", "eval")["clean_text"][0]


def test_scores_are_the_stored_bits_with_names(run):
    rows, stored = readers.scores(run.directory, run.cells["key"][0])
    found = run.scores("eap")
    assert found.dims == ("prompt", "edge")
    assert rows.tolist() == list(range(8))
    assert found.values.tobytes() == stored.tobytes()
    graph = read_graph(run.directory, run.cells["key"][0])
    assert tuple(found["edge"].values) == graph.edges
    for prompt in range(8):
        one = run.scores("eap", prompt=prompt)
        assert one.values.tobytes() == stored[prompt].tobytes()
    place = graph.edges.index("a0.h3->a1.h2.q")
    assert one.sel(edge="a0.h3->a1.h2.q").item() == stored[7, place]
    assert set(one.where(one["target"] == "m0", drop=True)["source"].values) == {
        "embed",
        *(f"a0.h{h}" for h in range(4)),
    }
    nodes = run.scores("node_ap", prompt=0)
    assert tuple(nodes["node"].values) == graph.sources


def test_what_is_not_committed_is_missing(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    key = run.cells["key"][0]
    log = CommitLog(RunDirectory.open(tmp_path / "run"))
    log.claim_epoch()
    (shard,) = (s for s in log.keys("attribute") if s.startswith(f"{key}.000002"))
    log.uncommit("attribute", shard, "a test")
    there = es.open(tmp_path / "run")
    assert np.isnan(there.scores(key)).all("edge").values.tolist() == [False, False, True, True] + (
        4 * [False]
    )
    assert np.array_equal(there.scores(key, prompt=1), run.scores(key, prompt=1))
    with pytest.raises(StorageError, match="scores: row 3 is not committed; resume the run"):
        there.scores(key, prompt=3)


# --- circuits ----------------------------------------------------------------------------------
def test_a_circuit_is_chosen_by_size_threshold_or_faithfulness(run):
    points = run.results.query(
        "method == 'eap' and subset == 'all' and ablation == 'edge' and metric == 'kl' "
        "and eval_patch == 'zero'"
    ).set_index("threshold")
    how = {"ablation": "edge", "metric": "kl", "eval_patch": "zero"}
    for threshold, point in points.iterrows():
        circuit = run.circuit("eap", threshold=threshold, ran=True, **how)
        assert circuit.name == point["circuit"]
        assert (circuit.n_edges, len(circuit.nodes)) == (point["n_edges"], point["n_nodes"])
        assert circuit == run.circuit("eap", n_edges=point["n_edges"], ran=True, **how)
        assert run.circuit("eap", threshold=threshold, **how).n_edges == threshold
    phi = points["faithfulness"].median()
    best = points[points["faithfulness"] >= phi]["n_edges"].idxmin()
    found = run.circuit("eap", phi=phi, **how)
    assert found.selected["threshold"] == best
    assert found.selected["faithfulness"] == points.loc[best, "faithfulness"]
    assert (found.model, found.task) == ("tiny-random", "ioi+agreement")


def test_weights_are_the_aggregated_scores(run):
    mean = run.scores("eap").mean("prompt", dtype="float64")
    for edge, weight in run.circuit("eap", threshold=40).edges.items():
        assert weight == pytest.approx(mean.sel(edge=edge).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda run: run.scores("ig"), "no cell begins with 'ig'; cells: eap-"),
        (lambda run: run.scores(""), "2 cells begin with ''"),
        (lambda run: run.scores("eap", prompt=8), "prompt 8 is none of the 8 of cell eap-"),
        (lambda run: run.circuit("eap"), "give one of phi, n_edges and threshold"),
        (lambda run: run.circuit("eap", threshold=7), "no circuit has threshold 7; thresholds: 5,"),
        (lambda run: run.circuit("eap", phi=1e9), r"no circuit is faithful to 1e\+09; the best"),
        (lambda run: run.circuit("eap", n_edges=5, metric="js"), "metric: 'js' was not run; there"),
        (lambda run: run.circuit("eap", n_edges=5, patch="zero"), "unknown 'patch'; allowed: agg"),
    ],
)
def test_what_is_not_there_is_one_line(run, call, what):
    with pytest.raises(ValueError, match=what) as told:
        call(run)
    assert "\n" not in str(told.value)


def test_no_run_and_a_run_of_another_version_are_one_line(tmp_path, finished):
    with pytest.raises(StorageError, match=r"holds no run: there is no plan\.json"):
        es.open(tmp_path)
    shutil.copytree(finished, tmp_path / "old")
    old = es.open(tmp_path / "old")
    (graph,) = (old.path / "attributions.zarr/graphs").glob("[!z]*")
    shutil.rmtree(graph / "nodes")
    with pytest.raises(StorageError, match=r"graphs/\w+/nodes: no such array"):
        old.circuit("eap", threshold=40)
