"""Stability is that of two halves that share no prompt, and equals a loop over sets."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from edgesweep.engine.statistics.stability import agreement, half_weights, top_of

GROUPS = np.repeat([0, 1], [5, 6])


def test_halves_share_no_input_and_members_keep_their_share():
    weights = half_weights(GROUPS, seed=3, n=4)
    assert weights.shape == (8, 11)
    assert weights.sum(1) == pytest.approx(np.ones(8))
    for one, other in zip(weights[::2], weights[1::2], strict=True):
        assert not (one * other).any()
        for half in (one, other):
            assert [(half[g == GROUPS] > 0).sum() for g in (0, 1)] == [2, 3]
    assert len(np.unique(weights, axis=0)) == 8


def test_it_equals_a_loop():
    draw = np.random.default_rng(0)
    scores = draw.normal(size=(11, 40)) + draw.normal(size=40)
    scores[:, 7] = np.nan
    weights = half_weights(GROUPS, seed=1, n=3)
    found = agreement(weights @ scores, 6)
    for halving, (order, shared) in enumerate(found):
        means = []
        for half in weights[2 * halving : 2 * halving + 2]:
            mean = np.abs(scores[half > 0].mean(0))
            means.append(np.delete(mean, 7))
        tops = [set(np.argsort(-mean, kind="stable")[:6].tolist()) for mean in means]
        assert order == pytest.approx(spearmanr(*means).statistic)
        assert shared == pytest.approx(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))


def test_inputs_that_agree_are_stable_and_noise_is_not():
    draw = np.random.default_rng(2)
    weights, base = half_weights(np.zeros(16, int), seed=0), draw.normal(size=500)
    same = agreement(weights @ np.tile(base, (16, 1)), 20)
    assert same == pytest.approx(np.ones((20, 2)))
    noise = agreement(weights @ draw.normal(size=(16, 500)), 20).mean(0)
    assert np.abs(noise) == pytest.approx([0, 0], abs=0.1)


def test_one_input_has_no_halves():
    weights = half_weights(np.zeros(1, int), seed=0, n=2)
    means = np.where(weights.sum(1, keepdims=True) > 0, 1.0, np.nan) * np.ones((1, 5))
    assert np.isnan(agreement(means, 2)).all()


def test_how_many_are_the_strongest():
    assert [top_of(n) for n in (70_651, 577, 12, 1)] == [706, 10, 6, 1]
