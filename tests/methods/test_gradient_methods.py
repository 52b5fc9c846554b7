"""EAP and integrated gradients against one edge, one autograd call at a time."""

import math

import numpy as np
import pytest
import torch

from engine.methods import METHODS, MethodError, Settings
from engine.methods.ig_inputs import IntegratedGradientsInputs
from engine.metrics import oriented
from engine.patches import Mean, make_patch, mean_partials
from tests.oracles.slow_model import SlowModel
from tests.tiny import FAMILIES, assert_agree, model_and_batch, prompts

KINDS = ("counterfactual", "zero", "mean")


def patch_of(kind, model):
    if kind != "mean":
        return make_patch(kind)
    partials = mean_partials(model, prompts(6), pooled=True, over="patch", micro_batch=4)
    return Mean({g: p.mean() for g, p in partials.items()}, pooled=True)


def patch_values(kind, model, batch, slow):
    """What every source writes under the patch, by the slow model alone."""
    if kind == "counterfactual":
        other = SlowModel(model.hf, model.graph, batch.patch, batch.real)
        return other.forward(other.plain)[1]
    _, clean = slow.forward(slow.plain)
    if kind == "zero":
        return {name: torch.zeros_like(value) for name, value in clean.items()}
    totals, count = dict.fromkeys(clean, 0.0), 0
    for prompt in prompts(6):
        tokens = torch.tensor([prompt.patch])
        one = SlowModel(model.hf, model.graph, tokens, torch.ones_like(tokens).bool())
        written = one.forward(one.plain)[1]
        totals = {name: totals[name] + written[name].sum((0, 1)) for name in clean}
        count += tokens.shape[1]
    return {name: (totals[name] / count).expand_as(clean[name]) for name in clean}


def slow_scores(model, batch, kind, metric, points):
    """Σ over points of weight × one autograd call an edge, edge by edge."""
    slow = SlowModel(model.hf, model.graph, batch.clean, batch.real)
    with torch.no_grad():
        clean_logits, clean = slow.forward(slow.plain)
        patch = patch_values(kind, model, batch, slow)
    scores = torch.zeros(len(batch), model.graph.n_edges, dtype=torch.float64)
    for edge in range(model.graph.n_edges):
        name = model.graph.edge_name(edge)
        source = name.partition("->")[0]
        for at, weight in points:
            embed = torch.lerp(patch["embed"], clean["embed"], at)
            size = torch.zeros(len(batch), 1, 1, dtype=embed.dtype, requires_grad=True)
            by = size * (clean[source] - patch[source])
            logits, _ = slow.forward(slow.disturbed(name, by), embed)
            value = oriented(metric, logits, batch, clean_logits).sum()
            scores[:, edge] += weight * torch.autograd.grad(value, size)[0].flatten()
    return scores


@pytest.mark.parametrize("family", FAMILIES)
def test_eap_equals_one_autograd_call_an_edge(family):
    model, batch = model_and_batch(family, n_layers=2)
    ours = METHODS["eap"].attribute(
        model, batch, make_patch("counterfactual"), "logit_diff", Settings()
    )
    oracle = slow_scores(model, batch, "counterfactual", "logit_diff", [(1.0, 1.0)])
    assert_agree(ours.scores, oracle, 1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["logit_diff", "kl"])
def test_ig_inputs_equals_one_autograd_call_an_edge(kind, metric):
    model, batch = model_and_batch("llama", n_layers=2, dtype=torch.float64)
    ours = METHODS["ig_inputs"].attribute(
        model, batch, patch_of(kind, model), metric, Settings(steps=2)
    )
    oracle = slow_scores(model, batch, kind, metric, [(0.25, 0.5), (0.75, 0.5)])
    assert_agree(ours.scores, oracle, 1e-6)  # scores are kept in float32


@pytest.mark.parametrize("kind", KINDS)
def test_eap_equals_its_oracle_under_every_patch(kind):
    model, batch = model_and_batch("gpt2", n_layers=2)
    ours = METHODS["eap"].attribute(model, batch, patch_of(kind, model), "logit_diff", Settings())
    oracle = slow_scores(model, batch, kind, "logit_diff", [(1.0, 1.0)])
    assert_agree(ours.scores, oracle, 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_left_padding_and_batching_change_nothing(family, method):
    model, right = model_and_batch(family)
    _, left = model_and_batch(family, side="left")

    def scores(batch):
        return (
            METHODS[method]
            .attribute(model, batch, make_patch("counterfactual"), "logit_diff", Settings(steps=3))
            .scores
        )

    alone = torch.cat([scores(type(right).make([p])) for p in right.prompts])
    assert_agree(scores(right), alone, 1e-5)
    assert_agree(scores(left), alone, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["logit_diff", "kl"])
def test_integrated_gradients_are_complete(kind, metric):
    model, batch = model_and_batch("llama")
    model = with_eps(model, 0.02)  # a zero baseline sits on the norm's singular point: soften it
    result = METHODS["ig_inputs"].attribute(
        model, batch, patch_of(kind, model), metric, Settings(steps=400)
    )
    total = result.metric_clean - result.metric_baseline
    reached = result.scores[:, model.graph.edge_source == 0].sum(-1)
    assert torch.allclose(reached, total, rtol=1e-2, atol=1e-3 * float(total.abs().max()))
    assert torch.allclose(result.residual.float(), reached - total, atol=1e-4)


def with_eps(model, eps):
    for module in model.hf.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = eps
    return type(model)(model.hf, model.name)


def test_residual_shrinks_with_steps():
    model, batch = model_and_batch("gpt2")
    method, patch = IntegratedGradientsInputs(), make_patch("counterfactual")
    sizes = [
        float(
            method.attribute(model, batch, patch, "logit_diff", Settings(steps=n))
            .residual.abs()
            .max()
        )
        for n in (1, 8, 64)
    ]
    assert sizes[0] > 4 * sizes[1] > 16 * sizes[2]


def test_eap_promises_no_completeness():
    model, batch = model_and_batch("llama")
    result = METHODS["eap"].attribute(model, batch, make_patch("zero"), "logit_diff", Settings())
    assert all(math.isnan(x) for x in result.residual.tolist())


@pytest.mark.parametrize("metric", ["kl", "kl_reverse", "stat_dist", "accuracy"])
def test_eap_refuses_metrics_without_a_gradient_at_clean(metric):
    with pytest.raises(MethodError, match=rf"'eap' cannot use metric '{metric}'.*use "):
        METHODS["eap"].check(metric, "counterfactual")


def test_scores_on_a_linear_model_add_up_across_every_cut():
    """With linear MLPs and no attention, any layer cut carries λ(clean) − λ(patch)."""
    model, batch = model_and_batch("gpt2", dtype=torch.float64)
    linear_model_(model)
    result = METHODS["eap"].attribute(
        model, batch, make_patch("counterfactual"), "logit_diff", Settings()
    )
    with torch.no_grad():
        clean = model.run(model.prepare(batch.clean, batch.real)).logits
        patch = model.run(model.prepare(batch.patch, batch.real)).logits
    total = oriented("logit_diff", clean, batch, clean) - oriented(
        "logit_diff", patch, batch, clean
    )
    graph = model.graph
    depth_of_source = np.array([_depth(s) for s in graph.sources])
    depth_of_target = np.array([_depth(t) for t in graph.targets])
    for cut in range(2 * model.spec.n_layers + 1):
        crosses = (depth_of_source[graph.edge_source] <= cut) & (
            depth_of_target[graph.edge_target] > cut
        )
        assert_agree(result.scores[:, crosses].double().sum(1)[:, None], total[:, None], 1e-5)


def _depth(name: str) -> int:
    if name == "embed":
        return 0
    if name == "logits":
        return 1000
    layer = int(name[1:].split(".")[0])
    return 2 * layer + (1 if name[0] == "a" else 2)


def linear_model_(model):
    """Make a GPT-2 linear in its embeddings: no norms, no attention, linear MLPs."""
    identity = torch.nn.Identity()
    identity.weight, identity.bias, identity.eps = torch.ones(()), None, 0.0

    for layer in model.layers:
        layer.mlp = lambda x: (
            x
            @ torch.linspace(-1, 1, x.shape[-1] ** 2, dtype=x.dtype).reshape(x.shape[-1], -1)
            * 0.1
        )
        layer.attend = lambda q, k, v, context: v + 0 * (q + k)
        layer.norm_attention = _NoNorm(model)
    model._final_norm = lambda x: x


class _NoNorm:
    bias = None
    centred = False

    def __init__(self, model):
        self.weight = torch.ones(model.d_model, dtype=torch.float64)

    def __call__(self, x):
        return x

    def unit(self, x):
        # x̂ = 0 switches the norm's own derivative off: with it the pull-back is the identity's.
        return torch.zeros_like(x), torch.ones_like(x[..., :1])
