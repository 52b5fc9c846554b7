"""Integrated gradients of nodes against plain autograd, one site and one point at a time."""

import numpy as np
import pytest
import torch

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.nodes import attribute_clean, attribute_nodes, node_scores
from edgesweep.engine.methods.base import MethodError
from edgesweep.engine.network import PromptBatch
from tests.features.made import CHAIN, KINDS, MIXED
from tests.features.test_edge_attribution import made, tolerance
from tests.oracles.slow_features import SlowAttribution
from tests.tiny import FAMILIES

STEPS = {"steps": 3, "rule": "gauss_legendre"}


def check(ends, given, metric, number, rtol):
    """Every node of one input, position by position, equals the oracle's."""
    slow = SlowAttribution(
        ends.features, ends.batch.prompts[number], given, metric, STEPS["rule"], STEPS["steps"]
    )
    attribution = attribute_nodes(ends, metric, **STEPS)
    scores = node_scores(ends, attribution, contracted=False)[number]
    first = int(ends.inputs.real[number].long().argmax())
    ends_of = zip(map(ends.numbers.name, scores.node), scores.position - first, strict=True)
    found = dict(zip(ends_of, scores.score, strict=True))
    for site in ends.features.sites:
        nodes = [(f"{site.name}/f{j}", j, p) for j, p in slow.active(site.name)]
        nodes += [(f"{site.name}/err", "err", p) for p in range(slow.batch.clean.shape[1])]
        expected = {(n, p): slow.node_score(site.name, key, p) for n, key, p in nodes}
        scale = max(map(abs, expected.values()))
        for name, value in expected.items():
            assert abs(found.pop(name) - value) <= rtol * max(scale, 1e-6), name
    assert not found


@pytest.mark.parametrize("sites", [CHAIN, MIXED], ids=["chain", "mixed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_node_is_the_oracles(family, sites):
    _, _, given, ends = made(family, sites)
    check(ends, given, "logit_diff", 1, tolerance(family))


@pytest.mark.parametrize("patch", ["zero", "mean", "resample"])
def test_every_patch(patch):
    _, _, given, ends = made("gpt2", MIXED, patch=patch)
    check(ends, given, "kl", 0, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_dictionary(kind):
    _, _, given, ends = made("gpt_neox", MIXED, kind)
    check(ends, given, "logit_diff", 2, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_a_site_are_complete(kind):
    """The path of x is smooth whatever the dictionary."""
    _, _, _, ends = made("gpt2", MIXED, kind)
    found = attribute_nodes(ends, "logit_diff", steps=100)
    change = found.metric_clean[:, None] - found.metric_patch
    assert (found.residual.abs() <= 1e-3 * change.abs().max()).all()
    totals = np.array([[0.0] * len(ends.features.sites)] * len(ends.batch))
    for i, scores in enumerate(node_scores(ends, found)):
        names = [ends.numbers.name(n).partition("/")[0] for n in scores.node]
        for column, site in enumerate(ends.features.sites):
            totals[i, column] = scores.score[np.array(names) == site.name].sum()
    assert np.allclose(totals, (change + found.residual).numpy(), atol=1e-9)


def test_contraction_sums_over_positions():
    _, _, _, ends = made("gpt2", CHAIN)
    found = attribute_nodes(ends, "logit_diff", **STEPS)
    kept, summed = (node_scores(ends, found, contracted=c) for c in (False, True))
    for a, b in zip(kept, summed, strict=True):
        assert b.position is None
        assert np.array_equal(b.node, np.unique(a.node))
        for node, score in zip(b.node, b.score, strict=True):
            assert score == pytest.approx(a.score[a.node == node].sum(), abs=1e-12)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_batch_and_rows_change_nothing(side):
    features, batch, given, ends = made("llama", MIXED, side=side)
    whole = node_scores(ends, attribute_nodes(ends, "logit_diff", **STEPS, rows=4))
    for prompt, scores in zip(batch.prompts, whole, strict=True):
        alone = FeatureBatch.of(features, PromptBatch.make([prompt]), given)
        expected = node_scores(alone, attribute_nodes(alone, "logit_diff", **STEPS))[0]
        assert np.array_equal(scores.node, expected.node)
        most = np.abs(expected.score).max()
        assert np.abs(scores.score - expected.score).max() <= 1e-5 * most


def test_numbers_have_names():
    _, _, _, ends = made("gpt2", ("resid0",))
    numbers = ends.numbers
    assert numbers.first == {"embed": 0, "resid0": 1}
    assert numbers.name(0) == "embed/err"
    assert numbers.name(1) == "resid0/f0"
    assert numbers.name(12) == "resid0/f11"
    assert numbers.name(13) == "resid0/err"
    assert numbers.name(14) == "logits"
    assert numbers.logits == 14


def test_unknown_rules_are_refused():
    _, _, _, ends = made("gpt2", ())
    with pytest.raises(MethodError, match="rule 'simpson' is none of"):
        attribute_nodes(ends, "logit_diff", rule="simpson")


def test_float32_agrees_with_float64():
    _, _, _, wide = made("gpt2", MIXED)
    narrow = made("gpt2", MIXED, dtype=torch.float32)[3]
    a, b = (attribute_nodes(ends, "logit_diff", **STEPS).gradients for ends in (narrow, wide))
    for site, gradient in b.items():
        assert (a[site] - gradient).abs().max() <= 1e-4 * gradient.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sites", [CHAIN, MIXED], ids=["chain", "mixed"])
def test_one_backward_gives_the_gradients_at_the_clean_run(family, sites):
    _, _, _, ends = made(family, sites)
    found = attribute_clean(ends, "logit_diff")
    expected = attribute_nodes(ends, "logit_diff", steps=1, rule="right")
    assert torch.allclose(found.metric_clean, expected.metric_clean)
    for site, gradient in expected.gradients.items():
        assert torch.allclose(found.gradients[site], gradient, rtol=tolerance(family), atol=1e-9)
