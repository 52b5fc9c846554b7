"""Metrics of circuits of features, and what they are compared with."""

import numpy as np
import pytest
import torch

from edgesweep.engine.evaluation import faithfulness
from edgesweep.engine.features.ablation.evaluation import (
    evaluate_feature_circuits,
    evaluate_feature_nodes,
    evaluate_feature_reference,
)
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.graph import touched_nodes
from edgesweep.engine.metrics import METRICS, measure
from tests.features.made import CHAIN, case, oracle_logits, random_masks
from tests.tiny import assert_agree

NAMES = tuple(METRICS)


def given_of(made):
    return FeatureBatch.of(made.features, made.batch, made.feature_patch)


@pytest.mark.parametrize("patch", ["counterfactual", "zero", "mean"])
def test_metrics_are_those_of_the_slow_logits(patch):
    made = case("llama", CHAIN, "relu", patch=patch, dtype=torch.float64)
    masks = random_masks(made.graph)[:2]
    ours, done = evaluate_feature_circuits(given_of(made), made.graph, masks, NAMES)
    clean = made.model.run(made.inputs).logits
    for name in NAMES:
        assert ours[name].dtype == np.float64
        for circuit, mask in enumerate(masks):
            slow = measure(name, oracle_logits(made, mask), made.batch, clean)
            assert_agree(torch.as_tensor(ours[name][circuit])[None], slow[None], 1e-8)
    assert done.n_rows + done.n_shared + done.n_skipped == done.n_masks


def test_the_reference_is_the_model_and_the_patch_run():
    made = case("gpt2", CHAIN, "relu")
    found = evaluate_feature_reference(given_of(made), NAMES)
    clean = made.model.run(made.inputs).logits
    patched = made.model.run(made.model.prepare(made.batch.patch, made.batch.real)).logits
    for name in NAMES:
        full, empty = (measure(name, x, made.batch, clean).numpy() for x in (clean, patched))
        assert np.array_equal(found.full[name], full)
        assert np.abs(found.empty[name] - empty).max() < 1e-4
    assert (found.distance < 1e-5 * found.scale).all()


@pytest.mark.parametrize("errors", ["clean", "patch", "zero"])
@pytest.mark.parametrize("patch", ["counterfactual", "mean"])
def test_under_fixed_errors_the_reference_is_what_the_graph_gives(errors, patch):
    made = case("gpt2", CHAIN, "relu", patch=patch, dtype=torch.float64)
    given, n_edges = given_of(made), made.graph.n_edges
    ends = np.stack([np.ones(n_edges, bool), np.zeros(n_edges, bool)])
    of_edges, done = evaluate_feature_circuits(given, made.graph, ends, NAMES, errors=errors)
    found = evaluate_feature_reference(given, NAMES, errors=errors)
    for name in NAMES:
        assert np.allclose(found.empty[name], of_edges[name][1], rtol=1e-9, atol=1e-12)
    if errors == "clean":
        distance = (done.logits[0] - given.logits).abs().amax(-1).numpy()
        assert np.allclose(found.distance, distance, atol=1e-9)
        assert (found.distance < 1e-9 * found.scale).all()
    else:
        assert (found.distance > 1e-2 * found.scale).all()


def test_faithfulness_runs_from_nothing_to_one():
    made = case("llama", CHAIN, "relu")
    given, n_edges = given_of(made), made.graph.n_edges
    ends = np.stack([np.ones(n_edges, bool), np.zeros(n_edges, bool)])
    found = evaluate_feature_reference(given, ["logit_diff"])
    values, _ = evaluate_feature_circuits(given, made.graph, ends, ["logit_diff"])
    reference = (found.full["logit_diff"].mean(), found.empty["logit_diff"].mean())
    ratios = [faithfulness(float(v), *map(float, reference)) for v in values["logit_diff"].mean(1)]
    assert ratios == pytest.approx([1.0, 0.0], abs=1e-4)


def test_node_ablation_by_metric():
    made = case("llama", CHAIN, "relu", dtype=torch.float64)
    given = given_of(made)
    nodes = np.stack([touched_nodes(made.graph, m) for m in random_masks(made.graph)[:2]])
    ours = evaluate_feature_nodes(given, made.graph, nodes, ["kl"])["kl"]
    among = np.stack([kept[made.graph.edge_source] for kept in nodes])
    edges, _ = evaluate_feature_circuits(given, made.graph, among, ["kl"])
    assert np.allclose(ours, edges["kl"], rtol=1e-7, atol=1e-10)
