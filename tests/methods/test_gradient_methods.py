"""EAP and integrated gradients against one edge, one autograd call at a time."""

import math

import numpy as np
import pytest
import torch

from edgesweep.engine.methods import METHODS, MethodError, Settings
from edgesweep.engine.methods.gradients import contract, empty_gradients
from edgesweep.engine.methods.quadrature import RULES, points
from edgesweep.engine.metrics import oriented
from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.network.layers import NoNorm
from edgesweep.engine.network.values import Spread
from edgesweep.engine.patches import Noise, make_patch
from tests.oracles.slow_eap_ig import eap_ig_inputs
from tests.oracles.slow_gradients import KINDS, Ends, patch_of, slow_edges
from tests.tiny import FAMILIES, ORACLE_FAMILIES, assert_agree, model_and_batch


def attribute(method, model, batch, kind="counterfactual", metric="logit_diff", **settings):
    patch = patch_of(kind, model)
    return METHODS[method].attribute(model, batch, patch, metric, Settings(**settings))


def oracle(model, batch, kind, metric, line):
    """Every edge by itself, expanded at (t, weight) of the line from embed's patch value."""
    ends = Ends.of(model, batch, kind)
    expanded = [(ends.at(["embed"], t), weight) for t, weight in line]
    return slow_edges(model, batch, ends, metric, lambda source: expanded)


#: method -> the points of the line of embeddings at which it takes its gradient, and their weights
LINES = {
    "eap": [(1.0, 1.0)],
    "eap_patch": [(0.0, 1.0)],
    "eap_both": [(0.0, 0.5), (1.0, 0.5)],
    "ig_inputs": [(0.25, 0.5), (0.75, 0.5)],
}


@pytest.mark.parametrize("method", LINES)
@pytest.mark.parametrize("family", ORACLE_FAMILIES)
def test_every_family_equals_one_autograd_call_an_edge(family, method):
    model, batch = model_and_batch(family, n_layers=2)
    ours = attribute(method, model, batch, steps=2)
    assert_agree(
        ours.scores, oracle(model, batch, "counterfactual", "logit_diff", LINES[method]), 1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "metric"),
    [(m, "logit_diff") for m in LINES] + [(m, "kl") for m in LINES if m != "eap"],
)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_patch_equals_one_autograd_call_an_edge(family, method, metric, kind):
    model, batch = model_and_batch(family, n_layers=2, dtype=torch.float64)
    ours = attribute(method, model, batch, kind, metric, steps=2)
    slow = oracle(model, batch, kind, metric, LINES[method])
    assert_agree(ours.scores, slow, 1e-6)  # scores are kept in float32


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_eap_is_the_gradient_of_a_mask_over_the_edges(family, kind):
    """∂λ/∂m at m = 1, where a port reads Σ m_e u + (1 − m_e) u_patch, in one autograd call."""
    model, batch = model_and_batch(family, n_layers=2, dtype=torch.float64)
    ends, graph = Ends.of(model, batch, kind), model.graph
    mask = torch.ones(len(batch), graph.n_edges, dtype=torch.float64, requires_grad=True)

    def stream_of(target, values, constant):
        total = constant
        for source in ends.slow.sources_of(target):
            kept = mask[:, graph.edge_index(f"{source}->{target}"), None, None]
            total = total + kept * values[source] + (1 - kept) * ends.patch[source]
        return total

    logits, _ = ends.slow.forward(stream_of)
    value = oriented("logit_diff", logits, batch, ends.logits).sum()
    ours = attribute("eap", model, batch, kind)
    assert_agree(ours.scores, torch.autograd.grad(value, mask)[0], 1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_integrated_gradients_take_the_points_of_their_rule(rule):
    model, batch = model_and_batch("gpt2", n_layers=2, dtype=torch.float64)
    ours = attribute("ig_inputs", model, batch, steps=3, rule=rule)
    slow = oracle(model, batch, "counterfactual", "logit_diff", points(rule, 3))
    assert_agree(ours.scores, slow, 1e-6)


@pytest.mark.parametrize("metric", ["logit_diff", "kl"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_left_rule_is_the_sum_that_eap_ig_publishes(family, metric):
    model, batch = model_and_batch(family, n_layers=2, dtype=torch.float64)
    published = eap_ig_inputs(model, batch, metric, steps=3)
    left = attribute("ig_inputs", model, batch, metric=metric, steps=3, rule="left").scores
    assert_agree(left, published, 1e-6)
    right = attribute("ig_inputs", model, batch, metric=metric, steps=3, rule="right").scores
    assert float((right - published).abs().max()) > 1e-3 * float(published.abs().max())


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if "rule" in m.takes])
def test_one_point_is_too_few_for_a_rule_of_both_ends(method):
    model, batch = model_and_batch("gpt2", n_layers=1)
    with pytest.raises(MethodError, match="use steps >= 2, or rule midpoint"):
        attribute(method, model, batch, steps=1, rule="trapezoid")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if not m.whole])
def test_left_padding_and_batching_change_nothing(family, method):
    model, right = model_and_batch(family)
    _, left = model_and_batch(family, side="left")

    def scores(batch):
        return attribute(method, model, batch, steps=3).scores

    alone = torch.cat([scores(type(right).make([p])) for p in right.prompts])
    assert_agree(scores(right), alone, 1e-5)
    assert_agree(scores(left), alone, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["logit_diff", "kl"])
def test_integrated_gradients_are_complete(kind, metric):
    model, batch = model_and_batch("llama")
    model = with_eps(model, 0.02)  # a zero baseline sits on the norm's singular point: soften it
    result = attribute("ig_inputs", model, batch, kind, metric, steps=400)
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
    sizes = [
        float(attribute("ig_inputs", model, batch, steps=n).residual.abs().max())
        for n in (1, 8, 64)
    ]
    assert sizes[0] > 4 * sizes[1] > 16 * sizes[2]


@pytest.mark.parametrize("method", ["eap", "eap_patch", "eap_both"])
def test_eap_promises_no_completeness(method):
    model, batch = model_and_batch("llama")
    result = attribute(method, model, batch, "zero")
    assert all(math.isnan(x) for x in result.residual.tolist())


def test_eap_at_both_ends_is_the_mean_of_the_two():
    model, batch = model_and_batch("gpt_neox", dtype=torch.float64)
    ends = [attribute(m, model, batch, "mean").scores.double() for m in ("eap", "eap_patch")]
    both = attribute("eap_both", model, batch, "mean")
    assert_agree(both.scores, sum(ends) / 2, 1e-6)
    assert bool(both.metric_baseline.isfinite().all())


@pytest.mark.parametrize("patch", [make_patch("counterfactual"), make_patch("zero"), Noise(0, 1.0)])
@pytest.mark.parametrize("method", [*LINES, "node_ap", "hisp"])
def test_passes_count_the_forwards_and_backwards_that_are_run(method, patch, monkeypatch):
    model, batch = model_and_batch("llama")
    runs, pulls, plain, grad = [], [], model.run, torch.autograd.grad
    monkeypatch.setattr(model, "run", lambda *a, **k: runs.append(1) or plain(*a, **k))
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: pulls.append(1) or grad(*a, **k))
    METHODS[method].attribute(model, batch, patch, "logit_diff", Settings(steps=3))
    passes = METHODS[method].passes(model.graph, Settings(steps=3), patch.kind)
    assert (len(runs), len(pulls)) == (passes.forwards, passes.backwards)


def test_metrics_without_any_gradient_are_refused():
    for name, method in METHODS.items():
        if name in LINES or "steps" in method.takes:
            with pytest.raises(MethodError, match=rf"'{name}' cannot use metric 'accuracy'.*use "):
                method.check("accuracy", "counterfactual")


@pytest.mark.parametrize("metric", ["kl", "kl_reverse", "stat_dist", "accuracy"])
def test_eap_refuses_metrics_without_a_gradient_at_clean(metric):
    with pytest.raises(MethodError, match=rf"'eap' cannot use metric '{metric}'.*use "):
        METHODS["eap"].check(metric, "counterfactual")


def test_scores_on_a_linear_model_add_up_across_every_cut():
    """With linear MLPs and no attention, any layer cut carries λ(clean) − λ(patch)."""
    model, batch = model_and_batch("gpt2", dtype=torch.float64)
    linear_model_(model)
    result = attribute("eap", model, batch)
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
    for layer in model.layers:
        layer.mlp = lambda x: (
            x
            @ torch.linspace(-1, 1, x.shape[-1] ** 2, dtype=x.dtype).reshape(x.shape[-1], -1)
            * 0.1
        )
        layer.attend = lambda q, k, v, context: v + 0 * (q + k)
        layer.norm_attention = NoNorm()
    model._final_norm = NoNorm()


def test_half_precision_is_summed_in_single():
    """Scores of a bfloat16 model are products of its bfloat16 numbers, summed in float32."""
    model, batch = model_and_batch("llama", n_layers=2)
    draw = torch.Generator().manual_seed(0)
    shape = (len(batch), len(model.graph.sources), 7, model.d_model)
    delta = _table(torch.randn(shape, generator=draw).bfloat16(), dim=1)
    half = tiny_model("llama", n_layers=2, dtype=torch.bfloat16)
    gradients = empty_gradients(half, half.prepare(batch.clean, batch.real))
    ((_, rows),) = gradients
    assert rows.dtype == torch.float32
    rows += torch.randn(rows.shape, generator=draw)
    exact = contract(model, _table(delta.parts[0][1].double(), dim=1), _table(rows.double()))
    assert_agree(contract(model, delta, gradients), exact, 1e-5)


def _table(rows: torch.Tensor, dim: int = 0) -> Spread:
    return Spread(((slice(0, rows.shape[dim]), rows),), dim)
