"""Layers of correlations, one a class: their length, and what they show that all inputs hide."""

import numpy as np
import pytest
from scipy.special import gammaln
from sklearn.metrics import adjusted_mutual_info_score

from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.engine.regions.correlation import (
    RegionError,
    correlation,
    layer,
    moments_of,
)
from edgesweep.engine.regions.encoding import Encoding
from edgesweep.engine.regions.encodings import fit_encoded
from edgesweep.engine.regions.judge import weighted_worker
from edgesweep.engine.regions.weighted import canonical, fit_blocks
from tests.regions.made import planted

LAYERED = Encoding(layers="class", max_rounds=2)


@pytest.fixture(scope="module")
def interpreter():
    found = find_interpreter()
    if found is None:
        pytest.skip("no graph-tool here")
    return found


@pytest.fixture
def some():
    """Samples of five units, of which the fourth is silent, and the fifth never varies."""
    x = np.random.default_rng(0).normal(size=(9, 5)) @ np.triu(np.ones((5, 5)))
    x[:, 3:] = 0, 2
    return x


def test_a_layer_is_the_correlation_over_its_samples(some):
    live = np.array([0, 1, 2, 3])
    z = layer(moments_of(some), live)
    expected = np.arctanh(np.corrcoef(some[:, :3].T) - np.eye(3))
    np.testing.assert_allclose(z[:3, :3], expected, rtol=1e-9, atol=1e-12)
    assert not z[3].any()
    assert not z[:, 3].any()
    with pytest.raises(RegionError, match="3 samples are too few; allowed: 4 or more"):
        layer(moments_of(some[:3]), live)


def slow(layers, blocks) -> float:
    """The sum of the layers' lengths, pair of blocks by pair of blocks, with one prior in common,
    and the partition described once; but for a constant."""
    pairs = layers[:, *np.triu_indices(len(blocks), 1)]
    m0, v0, k0, nu0 = pairs.mean(), pairs.var(), 1.0, 3.0
    n, b = len(blocks), blocks.max() + 1
    total = -gammaln(b) - gammaln(n - b + 1) - gammaln(np.bincount(blocks) + 1).sum()
    for z in layers:
        for r in range(b):
            for s in range(r, b):
                table = z[np.ix_(blocks == r, blocks == s)]
                x = table[np.triu_indices(len(table), 1)] if r == s else table.ravel()
                if not len(x):
                    continue
                kn, nun = k0 + len(x), nu0 + len(x)
                rest = nu0 * v0 + ((x - x.mean()) ** 2).sum()
                rest += len(x) * k0 / kn * (m0 - x.mean()) ** 2
                total -= gammaln(nun / 2) - gammaln(nu0 / 2) + np.log(k0 / kn) / 2
                total -= nu0 / 2 * np.log(nu0 * v0) - nun / 2 * np.log(rest)
                total += len(x) / 2 * np.log(np.pi)
    return float(total)


def test_the_length_is_that_of_the_layers(interpreter):
    layers = np.stack([planted(24, 3, spread, seed)[0] for seed, spread in enumerate((1.0, 2.0))])
    layers[1] = 1.7 * layers[1] + 0.4
    layers[1, :4] = layers[1, :, :4] = 0  # units that are silent there
    told = {"model": "nix", "fit": "flat", "encoding": "simple", "seed": 0}
    told |= {"max_rounds": 0, "n_iter": 1, "until": None}
    draw, apart = np.random.default_rng(0), []
    for n_blocks in (1, 2, 5, 9):
        blocks = canonical(draw.integers(0, n_blocks, 24))
        found = weighted_worker(layers, blocks, told, interpreter, 60.0)
        apart.append(found["description_length_given"] - slow(layers, blocks))
    assert apart == pytest.approx(apart[:1] * 4, abs=1e-8)


def test_a_single_layer_is_the_plain_fit(interpreter):
    z, blocks = planted(40, 4, 1.5, 2)
    one = fit_encoded(z[None], LAYERED, 0, interpreter).partition
    plain = fit_blocks(z, 0)
    assert one.blocks.tolist() == plain.blocks.tolist() == canonical(blocks).tolist()
    assert one.length == pytest.approx(plain.length, rel=1e-9)


def test_blocks_of_one_class_are_found_in_layers_and_not_in_all_inputs(interpreter):
    """Of four classes in one two halves of the units go together, with a tenth of the others'
    sizes: the correlation over all inputs is that of the loud classes, where nothing does."""
    draw, halves = np.random.default_rng(0), np.arange(24) // 12
    loud = draw.normal(size=(3, 200, 24))
    quiet = draw.normal(size=(200, 2))[:, halves] + draw.normal(size=(200, 24)) / 2
    classes = [*loud, quiet / 10]
    pooled = correlation(moments_of(np.concatenate(classes)))
    assert fit_blocks(pooled.z, 0).n_blocks == 1
    layers = np.stack([layer(moments_of(x), pooled.live) for x in classes])
    found = fit_encoded(layers, LAYERED, 0, interpreter).partition
    assert adjusted_mutual_info_score(halves, found.blocks) == pytest.approx(1)
