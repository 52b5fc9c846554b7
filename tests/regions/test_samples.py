"""Samples of features at sites of a transformer, against node scores one by one."""

import numpy as np
import pytest

from edgesweep.engine.features.nodes import attribute_nodes, node_scores
from edgesweep.engine.regions.correlation import RegionError, moments_of
from edgesweep.engine.regions.graph import NO_REGION
from edgesweep.engine.regions.samples import TooFewVary, Wanted, by_site, parted, samples
from tests.regions.test_graph import STEPS, over_features

SITES = ["attn1.z", "mlp1.hidden"]


@pytest.mark.parametrize("kind", ["identity", "relu"])
def test_attributions_are_node_scores(kind):
    _, ends = over_features(kind)
    nodes = attribute_nodes(ends, "logit_diff", **STEPS)
    summed = samples(ends, nodes, SITES)
    apart = samples(ends, nodes, SITES, over="positions")
    assert len(apart) == int(ends.inputs.real.sum())
    first = ends.numbers.first
    widths = [ends.features.dictionary(site).n_features for site in SITES]
    columns = np.concatenate([first[s] + np.arange(w) for s, w in zip(SITES, widths, strict=True)])
    start = 0
    for i, scores in enumerate(node_scores(ends, nodes)):
        dense = np.zeros(ends.numbers.logits)
        dense[scores.node] = scores.score
        assert np.abs(summed[i] - dense[columns]).max() <= 1e-9 * np.abs(dense).max()
        n = int(ends.inputs.real[i].sum())
        assert apart[start : start + n].sum(0) == pytest.approx(summed[i], abs=1e-12)
        start += n


def test_activations_are_the_features():
    _, ends = over_features("relu")
    found = samples(ends, None, ["resid0"], of="activation", over="positions")
    encoded = ends.features.dictionary("resid0").encode(ends.clean.values("resid0"))
    assert found == pytest.approx(encoded[ends.inputs.real].numpy(), abs=1e-12)


def test_blocks_of_several_sites_are_regions_of_each():
    _, ends = over_features("relu")
    blocks = np.concatenate([np.arange(12) % 3, np.arange(12) % 2 + 2])
    blocks[0] = NO_REGION
    found = by_site(ends.features, SITES, blocks)
    assert found.of["attn1.z"].tolist() == [NO_REGION, *[1, 2, 0] * 3, 1, 2]
    assert found.of["mlp1.hidden"].tolist() == [0, 1] * 6
    with pytest.raises(RegionError, match=r"3 blocks of 24 features at attn1\.z, mlp1"):
        by_site(ends.features, SITES, blocks[:3])


def test_more_regions_than_features_that_vary_are_told_of():
    x = np.random.default_rng(0).normal(size=(20, 6))
    x[:, :2] = 1.0
    for how in ("ward", "kmeans"):
        with pytest.raises(
            TooFewVary, match=r"^5 of 4 features that vary \(2 of 6 do not\); allow"
        ):
            parted(Wanted(how, 5), 6, moments_of(x))
    assert parted(Wanted("ward", 4), 6, moments_of(x)).tolist() == [-1, -1, 0, 1, 2, 3]
    assert parted(Wanted("sbm", 5), 6, moments_of(x)).max() < 4


def test_words_that_are_not_known_are_refused():
    _, ends = over_features("relu")
    with pytest.raises(RegionError, match="over is 'tokens'; allowed: inputs, positions"):
        samples(ends, None, SITES, of="activation", over="tokens")
    with pytest.raises(RegionError, match="attributions need the gradients of their sites"):
        samples(ends, None, SITES)
