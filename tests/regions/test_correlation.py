"""Moments that fold exactly, and what is no correlation."""

import numpy as np
import pytest

from edgesweep.engine.bases.moments import fold
from edgesweep.engine.regions.correlation import (
    RegionError,
    check_size,
    correlation,
    moments_of,
)


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return rng.normal(size=(101, 7)) @ rng.normal(size=(7, 7)) + 1e4


@pytest.mark.parametrize("cuts", [[], [1], [50], [3, 4, 40, 90], list(range(1, 101))])
def test_any_parts_fold_to_numpys_covariance(samples, cuts):
    whole = fold(moments_of(part) for part in np.split(samples, cuts))
    expected = np.cov(samples.T, bias=True)
    assert whole.n == 101
    assert whole.mean.numpy() == pytest.approx(samples.mean(0), rel=1e-12)
    error = np.abs(whole.m2.numpy() / whole.n - expected).max()
    assert error <= 1e-12 * np.abs(samples).max() ** 2 / 1e4


def test_correlations_as_fishers_z(samples):
    found = correlation(moments_of(samples))
    expected = np.corrcoef(samples.T)
    off = ~np.eye(7, dtype=bool)
    assert found.z[off] == pytest.approx(np.arctanh(expected[off]), rel=1e-7)
    assert (np.diagonal(found.z) == 0).all()
    assert np.array_equal(found.z, found.z.T)
    assert (found.n_dead, found.n_clipped, found.live.tolist()) == (0, 0, list(range(7)))


def test_dead_units_and_copies_are_counted(samples):
    samples[:, 2] = 5.0
    samples[:, 4] = -2 * samples[:, 1]
    found = correlation(moments_of(samples))
    assert (found.n_dead, found.n_clipped) == (1, 1)
    assert found.live.tolist() == [0, 1, 3, 4, 5, 6]
    assert np.isfinite(found.z).all()
    assert found.z[1, 3] == pytest.approx(np.arctanh(-(1 - 1e-7)))
    variance = samples.var(0)
    cut = float(np.sort(variance)[3]) * (1 + 1e-9)
    assert correlation(moments_of(samples), dead=cut).n_dead == 4


def test_what_has_no_correlation_is_one_line(samples):
    with pytest.raises(RegionError, match="1 sample has no correlations"):
        correlation(moments_of(samples[:1]))
    with pytest.raises(RegionError, match="0 of 7 units vary over 101 samples"):
        correlation(moments_of(np.ones((101, 7))))
    samples[3, 5] = np.nan
    with pytest.raises(RegionError, match="unit 5 of sample 3 is nan"):
        moments_of(samples)
    with pytest.raises(RegionError, match=r"20001 units are more than 20000: .* take 6\.0 GiB"):
        check_size(20_001)
