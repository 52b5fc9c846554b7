"""Edges between features against one autograd call a target, position by position."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edges import (
    Completeness,
    Contributions,
    EdgeSettings,
    attribute_edges,
    contributions,
)
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.nodes import attribute_nodes
from edgesweep.engine.methods.base import MethodError
from edgesweep.engine.network import PromptBatch
from tests.features.made import CHAIN, KINDS, MIXED, feature_patch, random_dictionary
from tests.oracles.slow_features import SlowAttribution
from tests.tiny import ORACLE_FAMILIES, model_and_batch

#: cuts two layers apart, and blocks in the layers between them
APART = ("attn0", "resid1", "mlp2")
STEPS = EdgeSettings(steps=3, rule="gauss_legendre", contracted=False, micro_bytes=2**16)
#: these compute the sums of their norms in float32, whatever the model's precision
FLOAT64 = ("gpt2", "gpt_neox", "plain")


def tolerance(family: str) -> float:
    return 1e-9 if family in FLOAT64 else 1e-5


def feature_model(model, sites, kind="relu", dtype=torch.float64) -> FeatureModel:
    dictionaries = {
        site: random_dictionary(kind, model.d_model, dtype, seed) for seed, site in enumerate(sites)
    }
    return FeatureModel(model, dictionaries)


def made(
    family, sites, kind="relu", patch="counterfactual", side="right", dtype=torch.float64, n=3
):
    model, batch = model_and_batch(family, dtype=dtype, side=side, n=n)
    features = feature_model(model, sites, kind, dtype)
    given = feature_patch(features, patch)
    return features, batch, given, FeatureBatch.of(features, batch, given)


def by_position(ends, metric, settings, number, target):
    """{(node, real position): {source: raw weight}}, {target: factor}, {target: change}."""
    nodes = attribute_nodes(ends, metric, steps=settings.steps, rule=settings.rule)
    first = int(ends.inputs.real[number].long().argmax())
    raw, factor, change, names = {}, {}, {}, []
    for part in contributions(ends, nodes, metric, settings, number, target):
        if isinstance(part, Completeness):
            change |= zip(names, part.change.tolist(), strict=True)
            missed = [sum(raw[name].values()) - change[name] for name in names]
            assert part.missed.tolist() == pytest.approx(missed, abs=1e-6)
            continue
        names = [
            _end(ends, part.target, n, p - first)
            for n, p in zip(part.node.tolist(), part.position.tolist(), strict=True)
        ]
        sources = [
            (part.parent, *_end(ends, part.parent, n, p - first))
            for n, p in zip(part.source.tolist(), part.source_position.tolist(), strict=True)
        ]
        for name, row, of in zip(names, part.values.tolist(), part.factor.tolist(), strict=True):
            raw.setdefault(name, {}).update(zip(sources, row, strict=True))
            factor[name] = of
    return raw, factor, change


def _end(ends, site, node, position):
    if site == "logits":
        return "metric", position
    return ("err" if node == ends.features.dictionary(site).n_features else node), position


def check(ends, given, metric, settings, number, rtol):
    """Every edge of one input equals the oracle's."""
    slow = SlowAttribution(
        ends.features, ends.batch.prompts[number], given, metric, settings.rule, settings.steps
    )
    for target in [site.name for site in ends.features.sites[1:]] + ["logits"]:
        raw, factor, change = by_position(ends, metric, settings, number, target)
        assert raw.keys() <= set(slow.targets(target))
        for name in slow.targets(target):
            expected = slow.target(target, name, settings.target)
            _compare(raw.get(name, {}), expected.contributions, rtol, (target, name))
            if name in factor:
                assert factor[name] == pytest.approx(expected.factor, rel=1e-4, abs=1e-9)
                assert change[name] == pytest.approx(expected.change, rel=1e-4, abs=1e-6)
            else:
                assert expected.change == pytest.approx(0.0, abs=1e-9)


def _compare(found, expected, rtol, about):
    scale = max(map(abs, expected.values()))
    assert found.keys() <= expected.keys(), about
    for source, value in expected.items():
        error = abs(found.get(source, 0.0) - value)
        assert error <= rtol * max(scale, 1e-6), (about, source, found.get(source), value)


@pytest.mark.parametrize("sites", [CHAIN, MIXED, APART], ids=["chain", "mixed", "apart"])
@pytest.mark.parametrize("family", ORACLE_FAMILIES)
def test_every_edge_is_the_oracles(family, sites):
    _, _, given, ends = made(family, sites)
    check(ends, given, "logit_diff", STEPS, 1, tolerance(family))


@pytest.mark.parametrize("patch", ["zero", "mean", "resample"])
@pytest.mark.parametrize("sites", [CHAIN, MIXED], ids=["chain", "mixed"])
def test_every_patch(patch, sites):
    _, _, given, ends = made("gpt2", sites, patch=patch)
    check(ends, given, "kl", STEPS, 2, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_dictionary(kind):
    _, _, given, ends = made("gpt_neox", ("embed", "resid0", "mlp1", "resid2"), kind)
    check(ends, given, "logit_diff", STEPS, 0, 1e-9)


@pytest.mark.parametrize("target", ["metric", "value"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_targets_by_the_metric_and_in_their_own_units(family, target):
    _, _, given, ends = made(family, ("embed", "attn0", "resid0", "mlp1"))
    check(ends, given, "logit_diff", replace(STEPS, target=target), 1, 1e-9)


def test_in_its_own_units_the_edges_into_a_target_sum_to_its_change():
    """Even where its change is worth nothing to the metric, and its attribution is 0."""
    _, _, _, ends = made("gpt2", CHAIN, "linear", n=1)
    how = EdgeSettings(steps=16, rule="gauss_legendre", target="value")
    own, worth = (attribute(ends, s).inputs[0] for s in (how, replace(how, target="attribution")))
    assert np.array_equal(own.weight, own.raw)
    assert not np.array_equal(worth.weight, worth.raw)
    features = torch.arange(ends.features.dictionary("resid1").n_features)
    clean, patch = (v.features("resid1", features)[0].sum(0) for v in (ends.clean, ends.patch))
    first = ends.numbers.first["resid1"]
    sums = [float(own.weight[own.target == first + j].sum()) for j in features.tolist()]
    change = (clean - patch).numpy()
    assert np.abs(sums - change).max() < 1e-3 * np.abs(change).max()


def test_a_model_that_sees_ahead():
    model, batch = model_and_batch("plain", dtype=torch.float64, causal=False)
    features = feature_model(model, ("embed", "resid0", "resid2"))
    given = feature_patch(features, "counterfactual")
    check(FeatureBatch.of(features, batch, given), given, "logit_diff", STEPS, 1, 1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_batch_change_nothing(side):
    features, batch, given, ends = made("llama", MIXED, side=side)
    whole = attribute(ends, STEPS)
    for i, prompt in enumerate(batch.prompts):
        alone = attribute(FeatureBatch.of(features, PromptBatch.make([prompt]), given), STEPS)
        a, b = whole.inputs[i], alone.inputs[0]
        first = int(batch.real[i].long().argmax())
        assert np.array_equal(a.source, b.source)
        assert np.array_equal(a.target_position - first, b.target_position)
        for x, y in ((a.raw, b.raw), (a.weight, b.weight)):
            assert np.abs(x - y).max() <= 1e-5 * np.abs(y).max()


def attribute(ends, settings, positions=None):
    nodes = attribute_nodes(ends, "logit_diff", steps=settings.steps, rule=settings.rule)
    return attribute_edges(ends, nodes, "logit_diff", settings, positions)


def as_dict(edges, name="weight"):
    ends = zip(edges.source.tolist(), edges.target.tolist(), strict=True)
    return dict(zip(ends, getattr(edges, name).tolist(), strict=True))


@pytest.mark.parametrize("name", ["weight", "raw"])
def test_contraction_sums_over_positions(name):
    _, _, _, ends = made("gpt2", MIXED)
    kept = attribute(ends, STEPS)
    summed = attribute(ends, replace(STEPS, contracted=True))
    for a, b in zip(kept.inputs, summed.inputs, strict=True):
        totals: dict[tuple[int, int], float] = {}
        for s, t, value in zip(a.source, a.target, getattr(a, name).tolist(), strict=True):
            totals[int(s), int(t)] = totals.get((int(s), int(t)), 0.0) + value
        found = as_dict(b, name)
        scale = max(map(abs, found.values()))
        for edge, value in totals.items():
            assert found.get(edge, 0.0) == pytest.approx(value, abs=1e-5 * scale)
        assert found.keys() <= totals.keys()


def test_ranges_of_positions_add_up():
    _, _, _, ends = made("gpt_neox", CHAIN)
    settings = replace(STEPS, contracted=True)
    whole = attribute(ends, settings)
    parts = [attribute(ends, settings, range(a, b)) for a, b in ((0, 2), (2, 3), (3, 9))]
    for i, edges in enumerate(whole.inputs):
        totals: dict[tuple[int, int], float] = {}
        for part in parts:
            for edge, value in as_dict(part.inputs[i]).items():
                totals[edge] = totals.get(edge, 0.0) + value
        found = as_dict(edges)
        scale = max(map(abs, found.values()))
        for edge in found.keys() | totals.keys():
            assert found.get(edge, 0.0) == pytest.approx(totals.get(edge, 0.0), abs=1e-6 * scale)
    assert np.array_equal(sum(p.n_targets for p in parts), whole.n_targets)
    assert np.allclose(np.max([p.residual for p in parts], 0), whole.residual, rtol=1e-9)


@pytest.mark.parametrize("micro_bytes", [1, 2**30])
def test_micro_batches_change_nothing_but_the_order_of_sums(micro_bytes):
    _, _, _, ends = made("gpt2", APART)
    settings = replace(STEPS, contracted=True)
    one, other = (
        attribute(ends, s) for s in (settings, replace(settings, micro_bytes=micro_bytes))
    )
    for a, b in zip(one.inputs, other.inputs, strict=True):
        assert np.array_equal(a.source, b.source)
        assert np.array_equal(a.target, b.target)
        assert np.abs(a.weight - b.weight).max() <= 1e-6 * np.abs(a.weight).max()


def test_a_cap_keeps_the_largest_and_sums_the_rest():
    _, _, _, ends = made("gpt2", CHAIN)
    settings = replace(STEPS, contracted=True)
    whole = attribute(ends, settings)
    capped = attribute(ends, replace(settings, keep=40))
    for a, b in zip(whole.inputs, capped.inputs, strict=True):
        best = np.argsort(-np.abs(a.weight), kind="stable")
        kept, dropped = np.sort(best[:40]), best[40:]
        assert len(dropped) > 100
        assert np.array_equal(b.source, a.source[kept])
        assert np.array_equal(b.target, a.target[kept])
        assert np.array_equal(b.weight, a.weight[kept])
        wide = a.weight[dropped].astype(np.float64)
        assert b.dropped_abs == pytest.approx(np.abs(wide).sum(), rel=1e-9)
        assert b.dropped_sum == pytest.approx(wide.sum(), abs=1e-9 * np.abs(wide).sum())
        assert a.dropped_abs == a.dropped_sum == 0


@pytest.mark.parametrize("kind", ["identity", "linear", "relu"])
@pytest.mark.parametrize("sites", [CHAIN, APART], ids=["chain", "apart"])
def test_many_steps_are_complete(kind, sites):
    _, _, _, ends = made("gpt2", sites, kind, n=1)
    few, many = (attribute(ends, EdgeSettings(steps=steps)) for steps in (4, 200))
    scale = few.scale.max(1, keepdims=True)
    assert (many.residual <= 1e-2 * scale).all()
    assert many.residual.max() < 0.1 * few.residual.max()


def test_unknown_targets_are_refused():
    _, _, _, ends = made("gpt2", ("resid1",))
    with pytest.raises(MethodError, match="target 'loss' is none of attribution, value, metric"):
        attribute(ends, replace(STEPS, target="loss"))


def test_contributions_carry_their_sites():
    _, _, _, ends = made("gpt2", ("resid1",))
    nodes = attribute_nodes(ends, "logit_diff")
    found = list(contributions(ends, nodes, "logit_diff", STEPS, 0, "resid1"))
    parts = [part for part in found if isinstance(part, Contributions)]
    assert {(part.parent, part.target) for part in parts} == {("embed", "resid1")}
