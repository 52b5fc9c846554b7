"""Block models that graph-tool fits: planted blocks, the published artefact, refusals."""

import math

import numpy as np
import pytest

from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.engine.regions.correlation import RegionError, correlation, moments_of
from edgesweep.engine.regions.encoding import Encoding
from edgesweep.engine.regions.encodings import fit_encoded
from edgesweep.engine.regions.judge import weighted_worker
from edgesweep.engine.regions.weighted import canonical
from tests.regions.made import planted


@pytest.fixture(scope="module")
def interpreter():
    found = find_interpreter()
    if found is None:
        pytest.skip("no graph-tool here")
    return found


@pytest.mark.parametrize("model", ["nix", "microcanonical"])
def test_layers_share_blocks_that_neither_shows_alone(model, interpreter):
    """The first table tells blocks 0 and 1 from 2 and 3, the other 0 and 2 from 1 and 3."""
    rng, blocks = np.random.default_rng(0), np.repeat(np.arange(4), 8)
    tables = []
    for half in (blocks // 2, blocks % 2):
        z = 3.0 * (half[:, None] == half) + rng.normal(size=(32, 32))
        tables.append(np.triu(z, 1) + np.triu(z, 1).T)
    both = fit_encoded(np.stack(tables), Encoding(model, max_rounds=2), 0, interpreter)
    assert both.partition.blocks.tolist() == blocks.tolist()
    one = fit_encoded(tables[0], Encoding(model, max_rounds=2), 0, interpreter)
    assert one.partition.blocks.tolist() == (blocks // 2).tolist()


def test_the_microcanonical_length_is_the_weights_by_hand(interpreter):
    """Two partitions of the same sizes: what else they take is the same but for a term of their
    sums of squares, which is small."""
    z, blocks = planted(24, 3, 2.0, 0)
    told = {"model": "microcanonical", "fit": "flat", "encoding": "simple", "seed": 0}
    told |= {"max_rounds": 0, "n_iter": 1, "until": None}
    other = canonical(np.random.default_rng(1).permutation(blocks))
    left, lengths = [], []
    for given in (blocks, other):
        found = weighted_worker(z[None], given, told, interpreter, 60.0)
        lengths.append(found["description_length_given"])
        left.append(lengths[-1] - slow_microcanonical(z, given))
    assert lengths[1] - lengths[0] > 50
    assert left[0] == pytest.approx(left[1], abs=1)


def slow_microcanonical(z, blocks):
    """−Σ ln P_mc over pairs of blocks."""
    total = 0.0
    for r in range(blocks.max() + 1):
        for s in range(r, blocks.max() + 1):
            table = z[np.ix_(blocks == r, blocks == s)]
            x = table[np.triu_indices(len(table), 1)] if r == s else table.ravel()
            n = len(x)
            if n < 2:
                continue
            ss = ((x - x.mean()) ** 2).sum()
            total -= math.lgamma((n - 1) / 2) + math.log(n) / 2 - (n - 3) / 2 * math.log(ss)
            total += (n - 1) / 2 * math.log(math.pi)
    return total


@pytest.mark.slow
def test_the_published_encoding_has_an_idle_first_level(interpreter):
    """On units with causes in common, at n = 40: B_0 ≥ 0.95 n, and its regions are level 1's."""
    rng = np.random.default_rng(0)
    causes = rng.normal(size=(500, 30))
    samples = np.maximum(causes @ rng.normal(size=(30, 40)) / 5, 0)
    z = correlation(moments_of(samples + rng.normal(size=(500, 40)) / 4)).z
    how = Encoding("microcanonical", "nested", "published", 1, max_rounds=2)
    found = fit_encoded(z, how, 0, interpreter)
    assert found.sizes[0] >= 0.95 * 40
    assert 1 < found.partition.n_blocks == found.sizes[1] <= 8
    how = Encoding("microcanonical", "nested", max_rounds=2)
    auto = fit_encoded(z, how, 0, interpreter)
    assert auto.partition.n_blocks <= 8
    how = Encoding("microcanonical", "nested", level=9, max_rounds=0)
    with pytest.raises(RegionError, match="level is 9; allowed: 0 to "):
        fit_encoded(z, how, 0, interpreter)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"model": "x"}, "model is 'x'; allowed: nix, microcanonical"),
        ({"fit": "nested"}, "fit 'nested' has model 'nix'; allowed with it: microcanonical"),
        ({"encoding": "published"}, "encoding 'published' has fit 'flat'; allowed with it: nested"),
    ],
)
def test_what_does_not_go_together_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        Encoding(**how)


def test_layers_are_of_flat_fits(interpreter):
    how = Encoding("microcanonical", "nested")
    with pytest.raises(RegionError, match="2 layers have fit 'nested'; allowed with layers: flat"):
        fit_encoded(np.zeros((2, 4, 4)), how, 0, interpreter)
