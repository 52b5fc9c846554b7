"""Scores of nodes against one node and one autograd call at a time; random scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgesweep.engine.methods import METHODS, MethodError, Passes, Settings
from edgesweep.engine.methods.quadrature import points
from tests.oracles.slow_gradients import KINDS, Ends, patch_of, slow_nodes
from tests.tiny import FAMILIES, FLOAT32_NORMS, assert_agree, model_and_batch


def attribute(method, model, batch, kind="counterfactual", metric="logit_diff", **settings):
    patch = patch_of(kind, model)
    return METHODS[method].attribute(model, batch, patch, metric, Settings(**settings))


def oracle(method, model, batch, kind, metric, quadrature):
    ends = Ends.of(model, batch, kind)

    def own(source):
        return [(ends.at(ends.module_of(source), t), weight) for t, weight in quadrature]

    points_of = own if method == "node_ig" else lambda _: [({}, 1.0)]
    return slow_nodes(model, batch, ends, metric, points_of)


@pytest.mark.parametrize("method", ["node_ap", "node_ig"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_equals_one_autograd_call_a_node(family, method):
    model, batch = model_and_batch(family, dtype=torch.float64)
    ours = attribute(method, model, batch, steps=2, rule="gauss_legendre")
    quadrature = points("gauss_legendre", 2)
    slow = oracle(method, model, batch, "counterfactual", "logit_diff", quadrature)
    assert ours.scores.shape == (len(batch), len(model.graph.sources))
    assert_agree(ours.scores, slow, 1e-5 if family in FLOAT32_NORMS else 1e-6)


@pytest.mark.parametrize("method", ["node_ap", "node_ig"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_every_patch_equals_one_autograd_call_a_node(family, kind, method):
    model, batch = model_and_batch(family, n_layers=2, dtype=torch.float64)
    metric = "kl" if method == "node_ig" else "logit_diff"
    ours = attribute(method, model, batch, kind, metric, steps=1)
    slow = oracle(method, model, batch, kind, metric, points("midpoint", 1))
    assert_agree(ours.scores, slow, 1e-5 if family in FLOAT32_NORMS else 1e-6)


@pytest.mark.parametrize(("nodes", "edges"), [("node_ap", "eap"), ("node_ig", "ig_activations")])
@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2"])
def test_a_node_is_the_sum_of_its_edges(family, nodes, edges):
    model, batch = model_and_batch(family, dtype=torch.float64)
    of_edges = attribute(edges, model, batch, "mean", steps=3).scores.double()
    summed = of_edges.new_zeros(len(batch), len(model.graph.sources))
    source = torch.as_tensor(model.graph.edge_source).long()
    summed.index_add_(1, source, of_edges)
    assert_agree(attribute(nodes, model, batch, "mean", steps=3).scores, summed, 1e-5)


@pytest.mark.parametrize("kind", ["counterfactual", "mean"])
@pytest.mark.parametrize("metric", ["logit_diff", "kl"])
def test_integrated_gradients_of_every_module_are_complete(metric, kind):
    """A module's nodes sum to λ(clean) − λ(the module alone at its patch value)."""
    model, batch = model_and_batch("qwen3", dtype=torch.float64)
    result = attribute("node_ig", model, batch, kind, metric, steps=48, rule="gauss_legendre")
    ends = Ends.of(model, batch, kind)
    for nodes in ends.modules():
        with torch.no_grad():
            total = result.metric_clean - ends.value(metric, batch, ends.at(nodes, 0.0))
        mine = [model.graph.sources.index(node) for node in nodes]
        assert_agree(result.scores[:, mine].double().sum(1)[:, None], total[:, None], 1e-3)
    assert float(result.residual.abs().max()) < 1e-3 * float(result.scores.abs().max())


def test_hisp_is_the_absolute_value_normalised_over_a_layers_heads_and_mlp():
    model, batch = model_and_batch("llama")
    plain = attribute("node_ap", model, batch).scores.double().abs()
    ours = attribute("hisp", model, batch).scores.double()
    assert torch.equal(ours[:, 0], torch.ones(len(batch), dtype=torch.float64))
    for layer in range(model.spec.n_layers):
        nodes = slice(model.graph.head_source(layer, 0), model.graph.mlp_source(layer) + 1)
        expected = plain[:, nodes] / plain[:, nodes].square().sum(1, keepdim=True).sqrt()
        assert_agree(ours[:, nodes], expected, 1e-5)


def test_hisp_of_a_layer_that_does_nothing_is_zero():
    model, batch = model_and_batch("llama")
    same = type(batch).make([replace(p, patch=p.clean) for p in batch.prompts])
    assert bool((attribute("hisp", model, same).scores == 0).all())


@pytest.mark.parametrize("method", ["node_ap", "hisp"])
@pytest.mark.parametrize("metric", ["kl", "kl_reverse", "stat_dist", "accuracy"])
def test_metrics_without_a_gradient_at_clean_are_refused(method, metric):
    with pytest.raises(MethodError, match=rf"'{method}' cannot use metric '{metric}'.*use "):
        METHODS[method].check(metric, "counterfactual")


def test_random_scores_are_of_the_seed_alone():
    model, batch = model_and_batch("llama")
    _, one = model_and_batch("llama", n=1)
    result = attribute("random", model, batch, seed=3)
    again = attribute("random", model, one, "zero", "accuracy", seed=3)
    assert torch.equal(result.scores, again.scores.expand_as(result.scores))
    assert not torch.equal(result.scores, attribute("random", model, batch, seed=4).scores)
    row = result.scores[0].numpy()
    assert len(np.unique(row)) == model.graph.n_edges
    assert 0 < row.min() < row.max() < 1
    assert bool(result.metric_clean.isnan().all())


def test_random_scores_cost_nothing():
    model, _ = model_and_batch("llama")
    method = METHODS["random"]
    assert method.passes(model.graph, Settings(), "counterfactual") == Passes(0, 0)
    method.check("accuracy", "zero")


def test_random_scores_have_no_drift_along_the_edges():
    model, batch = model_and_batch("llama")
    rows = [attribute("random", model, batch, seed=s).scores[0].double() for s in range(200)]
    mean = torch.stack(rows).mean(0)
    assert float((mean - 0.5).abs().max()) < 5 * (1 / 12 / 200) ** 0.5
