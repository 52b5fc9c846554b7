"""Integrated gradients along activations, against one edge and one autograd call at a time."""

import pytest
import torch

from edgesweep.engine.methods import METHODS, Settings
from edgesweep.engine.methods.paths import modules, share_of_a_pass, variants_a_run
from edgesweep.engine.methods.quadrature import RULES, points
from tests.oracles.slow_gradients import KINDS, Ends, patch_of, slow_edges
from tests.tiny import FLOAT32_NORMS, ORACLE_FAMILIES, assert_agree, model_and_batch

BOTH = ("ig_activations", "ig_activations_joint")


def attribute(method, model, batch, kind="counterfactual", metric="logit_diff", **settings):
    patch = patch_of(kind, model)
    return METHODS[method].attribute(model, batch, patch, metric, Settings(**settings))


def oracle(method, model, batch, kind, metric, quadrature):
    """Every edge by itself; the paths are those of its source's module, or of all modules."""
    ends = Ends.of(model, batch, kind)

    def own(source):
        return [(ends.at(ends.module_of(source), t), weight) for t, weight in quadrature]

    def joint(_):
        every = ends.modules()
        return [(ends.at(m, t), weight / len(every)) for m in every for t, weight in quadrature]

    return slow_edges(model, batch, ends, metric, own if method == "ig_activations" else joint)


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("family", ORACLE_FAMILIES)
def test_every_family_equals_one_autograd_call_an_edge(family, method):
    model, batch = model_and_batch(family, n_layers=2, dtype=torch.float64)
    ours = attribute(method, model, batch, steps=2, rule="right")
    slow = oracle(method, model, batch, "counterfactual", "logit_diff", points("right", 2))
    assert_agree(ours.scores, slow, 1e-5 if family in FLOAT32_NORMS else 1e-6)


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("family", "metric"), [("gpt2", "kl"), ("gemma2", "logit_diff")])
def test_every_patch_equals_one_autograd_call_an_edge(family, metric, kind, method):
    model, batch = model_and_batch(family, n_layers=2, dtype=torch.float64)
    ours = attribute(method, model, batch, kind, metric, steps=1)
    slow = oracle(method, model, batch, kind, metric, points("midpoint", 1))
    assert_agree(ours.scores, slow, 1e-5 if family in FLOAT32_NORMS else 1e-6)


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma3_text"])
def test_how_many_rows_share_a_run_changes_nothing(family, method):
    model, batch = model_and_batch(family)
    whole = attribute(method, model, batch, steps=3).scores
    for rows in (1, 6, 15):
        assert_agree(attribute(method, model, batch, steps=3, rows=rows).scores, whole, 1e-5)


def test_a_run_holds_the_rows_it_may_and_one_variant_at_least():
    assert [variants_a_run(4, rows) for rows in (1, 4, 11, 40, 1000)] == [1, 1, 2, 10, 16]
    assert variants_a_run(100, 256) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_edges_out_of_embed_are_those_of_ig_inputs(kind, rule):
    """The path of module `embed` is the path of the inputs, and so are its runs."""
    model, batch = model_and_batch("qwen2", dtype=torch.float64)
    ours = attribute("ig_activations", model, batch, kind, "kl", steps=3, rule=rule)
    other = attribute("ig_inputs", model, batch, kind, "kl", steps=3, rule=rule)
    out = model.graph.edge_source == 0
    assert_agree(ours.scores[:, out], other.scores[:, out], 1e-6)
    assert_agree(ours.residual[:, None], other.residual[:, None], 1e-4)


@pytest.mark.parametrize("kind", ["counterfactual", "mean"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2"])
def test_edges_out_of_every_module_are_complete(family, kind):
    """They sum to λ(clean) − λ(the module alone at its patch value), biases of no node included."""
    model, batch = model_and_batch(family, dtype=torch.float64)
    result = attribute(
        "ig_activations", model, batch, kind, steps=48, rule="gauss_legendre", rows=72
    )
    ends = Ends.of(model, batch, kind)
    source = torch.as_tensor(model.graph.edge_source)
    for module, nodes in zip(modules(model.graph), ends.modules(), strict=True):
        assert list(model.graph.sources[module.sources]) == nodes
        with torch.no_grad():
            patched = ends.value("logit_diff", batch, ends.at(nodes, 0.0))
        mine = (source >= module.sources.start) & (source < module.sources.stop)
        total = result.metric_clean - patched
        assert_agree(result.scores[:, mine].double().sum(1)[:, None], total[:, None], 1e-3)


def test_the_joint_form_is_another_estimand():
    """Its gradients also come from other modules' paths (field: Pearson .82 with the own path)."""
    model, batch = model_and_batch("gpt2")
    own, joint = (attribute(method, model, batch, steps=4).scores for method in BOTH)
    correlation = torch.corrcoef(torch.stack([own.flatten(), joint.flatten()]))[0, 1]
    assert 0.5 < correlation < 0.999


def test_the_joint_form_promises_no_completeness():
    model, batch = model_and_batch("gpt2")
    result = attribute("ig_activations_joint", model, batch, steps=2)
    assert bool(result.residual.isnan().all())
    assert bool(result.metric_baseline.isnan().all())


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_passes_count_the_layers_that_are_run(family, monkeypatch):
    """Rows × half layers (attention or MLP), counted as they run."""
    model, batch = model_and_batch(family)
    n_blocks, blocks_run = 2 * model.spec.n_layers, 0

    def count(layer, name):
        plain = getattr(layer, name)

        def counted(stream, *rest):
            nonlocal blocks_run
            blocks_run += len(stream)
            return plain(stream, *rest)

        monkeypatch.setattr(layer, name, counted)

    for layer in model.layers:
        count(layer, "attend")
        count(layer, "mlp")
    for method, patch in [("ig_activations", "counterfactual"), ("ig_activations_joint", "zero")]:
        blocks_run = 0
        attribute(method, model, batch, patch, steps=2)
        passes = METHODS[method].passes(model.graph, Settings(steps=2), patch)
        assert blocks_run / n_blocks / len(batch) == pytest.approx(passes.forwards)


def test_paths_of_all_modules_cost_as_stated():
    model, _ = model_and_batch("llama", n_layers=3)
    assert share_of_a_pass(model.graph) == pytest.approx(3 + 0.5)
