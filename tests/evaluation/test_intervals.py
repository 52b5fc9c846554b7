"""Intervals of mean scores that are not all held at once, or not stored."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from edgesweep.engine.measures import (
    ResampledMeans,
    interval,
    normal_intervals,
    resamples,
    score_intervals,
)

NAN = float("nan")


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_means_of_resamples_are_the_same_by_blocks_of_inputs(rows):
    scores = np.random.default_rng(1).normal(size=(9, 6))
    scores[:, 2], scores[3, 4], scores[5, 4] = NAN, NAN, np.inf
    means = ResampledMeans(resamples(9, 50, 2), 6)
    for first in range(0, 9, rows):
        means.add(first, scores[first : first + rows])
    whole = score_intervals(scores, n=50, level=0.8, seed=2)
    assert np.allclose(interval(means.means(), 0.8), whole, rtol=1e-12, equal_nan=True)


def moments(scores):
    """Mean, root mean square and number of each group's finite scores: `[group, scored]`."""
    finite = np.isfinite(scores)
    n = finite.sum(1)
    count = np.where(n > 0, n, NAN)
    known = np.where(finite, scores, 0)
    return known.sum(1) / count, np.sqrt((known**2).sum(1) / count), n


def test_normal_intervals_are_the_textbooks_and_of_few_inputs_unknown():
    scores = np.random.default_rng(3).normal(2, 3, size=(1, 40, 4))
    scores[0, :, 1], scores[0, 1:, 2], scores[0, :9, 3] = NAN, NAN, NAN
    low, high = normal_intervals(*moments(scores), 0.9)
    for column, sample in ((0, scores[0, :, 0]), (3, scores[0, 9:, 3])):
        error = sample.std(ddof=1) / math.sqrt(len(sample))
        wanted = norm.interval(0.9, sample.mean(), error)
        assert [low[column], high[column]] == pytest.approx(wanted)
    assert np.isnan([low[1:3], high[1:3]]).all()


def test_normal_intervals_are_about_those_of_resampled_groups():
    draw, groups = np.random.default_rng(4), np.repeat([0, 1], [300, 100])
    scores = draw.normal(size=(400, 50)) + 10 * groups[:, None]
    parts = [moments(scores[None, groups == group]) for group in (0, 1)]
    normal = normal_intervals(*(np.concatenate(of) for of in zip(*parts, strict=True)), 0.9)
    drawn = score_intervals(scores, n=2000, level=0.9, seed=0, groups=groups)
    width = drawn[1] - drawn[0]
    assert (np.abs(np.subtract(normal, drawn)) < 0.1 * width).all()
