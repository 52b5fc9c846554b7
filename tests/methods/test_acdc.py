"""ACDC against Algorithm 1 as it is written, edge for edge."""

import numpy as np
import pytest
import torch

from edgesweep.engine.ablation import ablated_logits
from edgesweep.engine.methods import METHODS, MethodError, Settings
from edgesweep.engine.metrics import ORIENTATION, measure
from tests.oracles.slow_acdc import slow_acdc
from tests.oracles.slow_gradients import patch_of
from tests.tiny import FAMILIES, FLOAT32_NORMS, assert_agree, model_and_batch


def search(model, batch, kind="counterfactual", metric="kl", method="acdc", **settings):
    patch = patch_of(kind, model)
    return METHODS[method].attribute(model, batch, patch, metric, Settings(**settings)).scores


def circuit_of(scores, tau):
    """As a sweep selects it: mean score > τ; what was not measured is out."""
    return scores.double().mean(0).numpy() > tau


def assert_same_search(ours, slow, tau, rtol):
    searched = ~torch.isnan(slow.scores)
    assert torch.equal(~torch.isnan(ours), searched)
    assert np.array_equal(circuit_of(ours, tau), slow.circuit)
    assert_agree(ours.nan_to_num(), slow.scores.nan_to_num(), rtol)


def some_candidates(graph, share, seed=0):
    return np.random.default_rng(seed).random(graph.n_edges) < share


@pytest.mark.parametrize(
    ("metric", "tau"), [("kl", 0.003), ("kl", 0.01), ("logit_diff", 0.0), ("logit_diff", 0.05)]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_equals_one_edge_at_a_time(family, metric, tau):
    model, batch = model_and_batch(family, n_layers=2, dtype=torch.float64)
    slow = slow_acdc(model, batch, "counterfactual", metric, tau)
    assert 0 < slow.circuit.sum() < model.graph.n_edges
    ours = search(model, batch, metric=metric, tau=tau)
    assert_same_search(ours, slow, tau, 1e-4 if family in FLOAT32_NORMS else 1e-6)


@pytest.mark.parametrize("kind", ["zero", "mean", "counterfactual"])
@pytest.mark.parametrize("share", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_the_search_may_begin_with_candidates(family, kind, share):
    model, batch = model_and_batch(family, n_layers=2, dtype=torch.float64)
    candidates = some_candidates(model.graph, share)
    slow = slow_acdc(model, batch, kind, "kl", 0.003, candidates)
    ours = search(model, batch, kind, tau=0.003, candidates=candidates)
    assert_same_search(ours, slow, 0.003, 1e-4 if family in FLOAT32_NORMS else 1e-6)


@pytest.mark.parametrize("tau", [0.0, 0.002])
@pytest.mark.parametrize("metric", ["accuracy", "js", "prob_diff", "nll"])
def test_any_metric_may_be_searched_with(metric, tau):
    model, batch = model_and_batch("llama", n_layers=2, dtype=torch.float64)
    slow = slow_acdc(model, batch, "zero", metric, tau)
    assert_same_search(search(model, batch, "zero", metric, tau=tau), slow, tau, 1e-6)


@pytest.mark.parametrize("rows", [1, 3, 7, 24])
@pytest.mark.parametrize("tau", [0.0, 0.02, 0.5])
def test_guessing_ahead_decides_as_one_at_a_time(rows, tau):
    model, batch = model_and_batch("gpt2", dtype=torch.float64)
    one = search(model, batch, tau=tau, rows=len(batch))
    ahead = search(model, batch, tau=tau, rows=rows * len(batch))
    assert np.array_equal(circuit_of(ahead, tau), circuit_of(one, tau))
    assert_agree(ahead, one, 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_when_nothing_may_go_every_score_is_the_exact_one(family):
    model, batch = model_and_batch(family, n_layers=2, dtype=torch.float64)
    ours = search(model, batch, metric="logit_diff", tau=-1e9)
    exact = search(model, batch, metric="logit_diff", method="exact")
    assert_agree(ours, exact, 1e-4 if family in FLOAT32_NORMS else 1e-6)
    assert circuit_of(ours, -1e9).all()


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_when_all_may_go_edges_into_what_is_not_read_any_more_score_exactly_zero(family):
    model, batch = model_and_batch(family, n_layers=2)
    ours = search(model, batch, tau=1e9)
    into_logits = model.graph.edge_target == len(model.graph.targets) - 1
    assert not ours[:, ~into_logits].any()
    assert bool(ours[:, into_logits].any(0).all())
    assert not circuit_of(ours, 1e9).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edge_that_carries_its_patch_value_already_scores_exactly_zero(family):
    """Nothing feeds the heads of the first layer. What rounding leaves of u − u_patch is no effect,
    and at τ = 0 their edges go."""
    model, batch = model_and_batch(family, n_layers=2)
    graph = model.graph
    into_first = graph.edge_target < graph.spec.n_attention_ports
    from_first = (graph.edge_source > 0) & (graph.edge_source <= graph.spec.n_heads)
    ours = search(model, batch, metric="logit_diff", tau=0.0, candidates=~into_first)
    assert not ours[:, from_first].any()
    assert bool(ours[:, ~into_first & ~from_first].any())


@pytest.mark.parametrize("metric", ["kl", "logit_diff"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_what_the_removed_edges_cost_is_what_the_circuit_lacks(family, metric):
    """λ(model) − λ(circuit) of every input is the sum of its scores of removed edges."""
    model, batch = model_and_batch(family, dtype=torch.float64)
    ours = search(model, batch, "mean", metric, tau=0.01)
    circuit = circuit_of(ours, 0.01)
    inputs = model.prepare(batch.clean, batch.real)
    values = patch_of("mean", model).values(model, batch, inputs)
    masks = np.stack([np.ones_like(circuit), circuit])
    whole, found = ablated_logits(model, inputs, values, masks)
    drop = measure(metric, whole, batch, whole) - measure(metric, found, batch, whole)
    lost = ours[:, ~circuit].double().sum(1)
    assert_agree(lost[:, None], (ORIENTATION[metric] * drop)[:, None], 1e-4)


def test_padding_changes_nothing():
    model, right = model_and_batch("llama", n_layers=2)
    _, left = model_and_batch("llama", n_layers=2, side="left")
    assert_agree(search(model, left, tau=0.02), search(model, right, tau=0.02), 1e-4)


def test_a_dead_port_is_kept_where_even_harm_is_asked_for():
    """Below zero an edge stays unless removing it helps by more: zero is above τ."""
    model, batch = model_and_batch("gpt2", n_layers=2, dtype=torch.float64)
    candidates = some_candidates(model.graph, 0.3)
    slow = slow_acdc(model, batch, "counterfactual", "logit_diff", -0.05, candidates)
    ours = search(model, batch, metric="logit_diff", tau=-0.05, candidates=candidates)
    assert_same_search(ours, slow, -0.05, 1e-6)


def test_after_eap_it_is_the_same_search():
    model, batch = model_and_batch("llama", n_layers=2)
    candidates = some_candidates(model.graph, 0.5)
    settings = {"tau": 0.01, "candidates": candidates}
    ours = search(model, batch, method="eap_acdc", **settings)
    assert torch.equal(ours.nan_to_num(-1.0), search(model, batch, **settings).nan_to_num(-1.0))


def test_after_eap_it_asks_for_candidates():
    model, batch = model_and_batch("llama", n_layers=1)
    with pytest.raises(MethodError, match=r"'eap_acdc' .* give candidates, or use method acdc"):
        search(model, batch, method="eap_acdc")


def test_an_unknown_metric_is_refused():
    with pytest.raises(MethodError, match="'acdc' cannot use metric 'speed'; use logit_diff or"):
        METHODS["acdc"].check("speed", "zero")
