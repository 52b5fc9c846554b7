"""Relevance patching: the same rules one edge at a time, what it conserves, what it refuses."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from edgesweep.engine.methods import METHODS, Settings
from edgesweep.engine.methods.gradients import empty_gradients
from edgesweep.engine.model.tiny import tiny_config
from edgesweep.engine.network.relevance import Relevance, RelevanceError
from edgesweep.engine.patches import make_patch
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.granularity.heads import HeadsKind
from tests.oracles.slow_gradients import KINDS, Ends, patch_of, slow_edges
from tests.oracles.slow_relevance import SlowRelevance, SlowRelevanceQK
from tests.tiny import FAMILIES, assert_agree, model_and_batch

SLOW = {"relp": SlowRelevance, "relp_qk": SlowRelevanceQK}


def attribute(method, model, batch, kind="counterfactual", metric="logit_diff"):
    return METHODS[method].attribute(model, batch, patch_of(kind, model), metric, Settings())


def oracle(method, model, batch, kind="counterfactual"):
    ends = Ends.of(model, batch, kind, SLOW[method])
    return slow_edges(model, batch, ends, "logit_diff", lambda source: [({}, 1.0)])


#: one of each kind of layer between the two; the others are slow
QUICK = {("gpt2", "relp"), ("gemma2", "relp"), ("gpt_neox", "relp_qk"), ("qwen3", "relp_qk")}


@pytest.mark.parametrize(
    ("family", "method"),
    [
        pytest.param(f, m, marks=[] if (f, m) in QUICK else pytest.mark.slow)
        for f in FAMILIES
        for m in SLOW
    ],
)
def test_every_family_equals_one_autograd_call_an_edge(family, method):
    model, batch = model_and_batch(family, n_layers=2)
    assert_agree(attribute(method, model, batch).scores, oracle(method, model, batch), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", SLOW)
def test_every_patch_equals_one_autograd_call_an_edge(method, kind):
    model, batch = model_and_batch("llama", n_layers=2, dtype=torch.float64)
    ours = attribute(method, model, batch, kind)
    assert_agree(ours.scores, oracle(method, model, batch, kind), 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_those_of_the_model(family):
    model, batch = model_and_batch(family)
    inputs = model.prepare(batch.clean, batch.real)
    for rules in (Relevance(), Relevance(patterns_held=False)):
        ruled = model.under(rules).run(inputs)
        assert_agree(ruled.logits, model.run(inputs).logits, 1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_relevance_is_conserved_without_biases(family):
    """Under a zero patch the edges out of `embed` share λ(clean) out among them, as all the
    relevance of the first layer's stream does."""
    model, batch = model_and_batch(family, dtype=torch.float64)
    without_biases_(model)
    if family == "gemma2":
        model._softcap = None  # the one thing at the end that is not linear
    result = attribute("relp", model, batch, "zero")
    out = result.scores[:, model.graph.edge_source == 0].double().sum(1)
    assert_agree(out[:, None], result.metric_clean[:, None], 1e-5)
    gradients = attribute("eap", model, batch, "zero")
    missed = gradients.scores[:, model.graph.edge_source == 0].double().sum(1) - out
    assert bool((missed.abs() > 0.1 * out.abs()).all())


def without_biases_(model):
    for module in model.hf.modules():
        if getattr(module, "bias", None) is not None:
            module.bias.data.zero_()
    for layer in model.layers:
        layer.ports.bias.zero_()


def test_nothing_reaches_queries_and_keys_unless_patterns_are_differentiated():
    model, batch = model_and_batch("llama")
    names = [model.graph.edge_name(e) for e in range(model.graph.n_edges)]
    of_patterns = torch.tensor([name.endswith((".q", ".k")) for name in names])
    held = attribute("relp", model, batch).scores
    assert not bool(held[:, of_patterns].any())
    assert bool((held[:, ~of_patterns] != 0).any())
    assert bool((attribute("relp_qk", model, batch).scores[:, of_patterns] != 0).any())


def test_other_activations_than_those_that_vanish_at_zero_are_refused():
    model, _ = model_and_batch("gpt2", n_layers=1)
    model.hf.transformer.h[0].mlp.act = nn.Sigmoid()
    with pytest.raises(RelevanceError, match=r"activation Sigmoid .* 0\.5 at 0.*use eap or ig_inp"):
        attribute("relp", model, model_and_batch("gpt2", n_layers=1)[1])


def test_half_precision_is_near_single():
    model, batch = model_and_batch("llama")
    half = model_and_batch("llama", dtype=torch.bfloat16)[0]
    ((_, rows),) = empty_gradients(half, half.prepare(batch.clean, batch.real))
    assert rows.dtype == torch.float32
    patch = make_patch("counterfactual")
    for method in SLOW:
        ours, exact = (
            METHODS[method].attribute(m, batch, patch, "logit_diff", Settings()).scores
            for m in (half, model)
        )
        assert_agree(ours, exact, 0.1)


def test_a_plan_refuses_them_before_anything_is_loaded():
    config = tiny_config("gpt2")
    config.activation_function = "sigmoid"
    source = SimpleNamespace(config=config, name="odd", spec=None)
    asked = parse_config({"name": "odd", "sweep": {"method": ["eap", "relp"]}})
    with pytest.raises(ConfigError, match=r"^sweep\.method: 'relp' of 'odd': relevance of the act"):
        HeadsKind().resolve(asked, "heads", SimpleNamespace(source=source, label="odd"), ())
