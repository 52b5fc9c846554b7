"""Values of nodes, clean and patched, written out on whole tables."""

import numpy as np
import pytest
import torch

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.values import make_feature_patch, node_columns, node_mean_partials
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.patches import PatchError, mean_groups
from tests.features.made import KINDS, MIXED, feature_patch
from tests.features.test_edge_attribution import made
from tests.tiny import prompts


def tables(ends, values, site):
    """All features of a site, as a table."""
    return values.features(site, torch.arange(ends.features.dictionary(site).n_features))


def encoded(ends, tokens, real):
    """f and ε of every site on some prompts, by `encode` and `decode` alone."""
    model = ends.features.model
    found = ends.features.site_values(model.run(model.prepare(tokens, real)))
    out = {}
    for site, x in found.items():
        f = ends.features.dictionary(site).encode(x)
        out[site] = f, x - ends.features.dictionary(site).decode(f)
    return out


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_values_of_both_runs(kind):
    _, batch, _, ends = made("gpt2", MIXED, kind)
    for values, tokens in ((ends.clean, batch.clean), (ends.patch, batch.patch)):
        assert values.from_one_run
        for site, (f, error) in encoded(ends, tokens, batch.real).items():
            assert torch.equal(tables(ends, values, site)[batch.real], f[batch.real])
            assert torch.equal(values.error(site)[batch.real], error[batch.real])
            dictionary = ends.features.dictionary(site)
            x = dictionary.decode(f) + error
            assert torch.allclose(values.values(site)[batch.real], x[batch.real], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_no_feature_and_no_error(kind):
    _, _, _, ends = made("gpt2", MIXED, kind, patch="zero")
    assert not ends.patch.from_one_run
    for site in MIXED:
        assert not tables(ends, ends.patch, site).any()
        assert not ends.patch.error(site).any()
        bias = ends.features.dictionary(site).bias
        assert torch.equal(ends.patch.values(site), bias.expand_as(ends.inputs.embed))


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("over", ["patch", "clean"])
@torch.no_grad()
def test_means_are_of_features_and_errors(pooled, over):
    features, batch, _, ends = made("gpt2", MIXED)
    build = prompts(7, seed=3)
    partials = node_mean_partials(features, build, pooled=pooled, over=over, micro_batch=3)
    means = {group: part.mean() for group, part in partials.items()}
    given = make_feature_patch("mean", means, pooled=pooled)
    assert not FeatureBatch.of(features, batch, given).patch.from_one_run
    patch = given.values(features, batch, ends.inputs)
    groups = mean_groups(build, pooled=pooled)
    for row, group in enumerate(mean_groups(batch.prompts, pooled=pooled)):
        alike = [p for p, g in zip(build, groups, strict=True) if g == group]
        n = len(batch.prompts[row].clean)
        for site in MIXED:
            expected = _mean(ends, alike, over, site, pooled=pooled)
            for found, part in zip(
                (tables(ends, patch, site), patch.error(site)), expected, strict=True
            ):
                assert torch.allclose(found[row, :n], part.expand(n, -1), atol=1e-12)
                assert not found[row, n:].any()


def _mean(ends, alike, over, site, *, pooled):
    parts = []
    for prompt in alike:
        alone = PromptBatch.make([prompt])
        parts.append([v[0] for v in encoded(ends, getattr(alone, over), alone.real)[site]])
    if pooled:
        return [torch.cat(part).mean(0) for part in zip(*parts, strict=True)]
    return [torch.stack(part).mean(0) for part in zip(*parts, strict=True)]


def test_columns_of_means_are_site_after_site():
    features, _, _, _ = made("gpt2", ("resid0",))
    d_model = features.model.d_model
    assert node_columns(features) == {
        "embed": slice(0, d_model),
        "resid0": slice(d_model, 2 * d_model + 12),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("patch", ["counterfactual", "mean"])
def test_active_is_non_zero_in_one_of_both(kind, patch):
    _, batch, _, ends = made("gpt_neox", MIXED, kind, patch=patch, side="left")
    for site in MIXED:
        clean, patched = (tables(ends, v, site) for v in (ends.clean, ends.patch))
        expected = (((clean != 0) | (patched != 0)) & batch.real[..., None]).nonzero()
        active = ends.active[site]
        found = torch.stack([active.input, active.position, active.feature], 1)
        assert torch.equal(found, expected)
        assert torch.equal(active.clean, clean[tuple(expected.T)])
        assert torch.equal(active.patch, patched[tuple(expected.T)])
        parts = [active.of_input(i) for i in range(len(batch))]
        assert sum(map(len, parts)) == len(active)
        assert torch.equal(torch.cat([p.feature for p in parts]), active.feature)


def test_some_features_may_be_asked_for_twice():
    _, _, _, ends = made("gpt2", ("resid0",))
    every = tables(ends, ends.clean, "resid0")
    numbers = torch.tensor([7, 0, 7, 11])
    assert torch.equal(ends.clean.features("resid0", numbers), every[..., numbers])
    assert not ends.clean.features("embed", torch.tensor([0])).any()


def test_patches_that_cannot_be_had_are_refused():
    features, batch, _, ends = made("gpt2", ("resid0",))
    with pytest.raises(PatchError, match="'noise' is not defined for features"):
        make_feature_patch("noise")
    with pytest.raises(PatchError, match=r"patch 'mean' is none of .*, or lacks its means"):
        make_feature_patch("mean")
    empty = make_feature_patch("mean", {"other": np.zeros((1, 1, 1))}, pooled=True)
    with pytest.raises(PatchError, match="no mean for prompts of group 'random'"):
        empty.values(features, batch, ends.inputs)
    assert feature_patch(features, "resample").kind == "resample"
