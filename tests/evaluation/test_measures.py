"""Measures against sums by hand and slow loops, and what a bootstrap must be."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from edgesweep.engine import measures
from edgesweep.engine.evaluation import faithfulness
from edgesweep.engine.measures import (
    edges_for,
    faithfulness_samples,
    fit,
    interval,
    jaccard,
    rank_correlation,
    resamples,
    roc,
    score_intervals,
)

NAN = float("nan")


def test_edges_for_a_level():
    assert edges_for([40, 5, 200], [0.8, 0.2, 1.0], 0.8) == 40
    assert edges_for([5, 40, 200], [0.9, 0.2, 1.0], 0.8) == 5  # the first that reaches it
    assert math.isnan(edges_for([5, 40], [NAN, 0.7], 0.8))
    assert math.isnan(edges_for([], [], 0.8))


# --- bootstrap ---------------------------------------------------------------------------------
def test_resamples_are_draws_within_groups():
    groups = np.array([0, 1, 0, 1, 1])
    weights = resamples(5, 2000, 0, groups)
    draws = weights * 5
    assert np.array_equal(draws, draws.round())
    for group, size in ((0, 2), (1, 3)):
        assert np.allclose(draws[:, groups == group].sum(1), size)
    assert weights.mean(0) == pytest.approx(np.full(5, 0.2), abs=0.01)
    # a binomial of 3 draws with chance 1/3
    assert draws[:, 1].var() == pytest.approx(3 * (1 / 3) * (2 / 3), rel=0.1)


def test_resamples_depend_on_the_seed_alone():
    assert np.array_equal(resamples(7, 5, 3), resamples(7, 5, 3))
    assert not np.array_equal(resamples(7, 5, 3), resamples(7, 5, 4))
    assert np.array_equal(resamples(7, 5, 3), resamples(7, 5, 3, np.full(7, 9)))


def test_interval_is_that_of_numpy_over_what_is_finite():
    samples = np.random.default_rng(0).normal(size=(101, 4))
    samples[::3, 1], samples[:, 2], samples[1:, 3] = NAN, np.inf, NAN
    low, high = interval(samples, 0.9)
    for column, part in ((0, samples[:, 0]), (1, samples[np.isfinite(samples[:, 1]), 1])):
        assert [low[column], high[column]] == pytest.approx(np.percentile(part, [5, 95]).tolist())
    assert np.isnan([low[2], high[2]]).all()
    assert low[3] == high[3] == samples[0, 3]
    turned = interval(samples.T, 0.9, axis=1)
    assert np.array_equal(turned, (low, high), equal_nan=True)
    assert [float(x) for x in interval(np.arange(101.0), 0.9)] == pytest.approx([5, 95])


def slow_score_intervals(scores, weights, level):
    """Redraw rows one by one and take the mean of what is finite in each column."""
    means = np.full((len(weights), scores.shape[1]), NAN)
    for number, row in enumerate(np.rint(weights * len(scores)).astype(int)):
        drawn = np.repeat(scores, row, axis=0).astype(np.float64)
        for column in range(scores.shape[1]):
            finite = drawn[np.isfinite(drawn[:, column]), column]
            means[number, column] = finite.mean() if len(finite) else NAN
    return interval(means, level)


@pytest.mark.parametrize("chunk", [1, 40, 2**23])
def test_score_intervals_equal_a_loop_over_redrawn_inputs(monkeypatch, chunk):
    monkeypatch.setattr(measures, "CHUNK_NUMBERS", chunk)
    scores = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
    scores[:, 2], scores[3, 4], scores[5, 4], scores[1:, 5] = NAN, NAN, np.inf, NAN
    groups = np.arange(9) // 3
    ours = score_intervals(scores, n=50, level=0.8, seed=2, groups=groups)
    slow = slow_score_intervals(scores, resamples(9, 50, 2, groups), 0.8)
    assert np.allclose(ours, slow, rtol=1e-12, equal_nan=True)
    assert np.isnan(ours).sum() == 2  # the column where nothing is finite


def test_score_intervals_cover_the_mean_as_often_as_they_say():
    draw, n_inputs, n_scores = np.random.default_rng(4), 60, 2000
    scores = draw.exponential(size=(n_inputs, n_scores)) - 0.5
    low, high = score_intervals(scores, n=500, level=0.9, seed=0)
    # the percentile bootstrap of 60 skewed numbers falls a little short; sd of a share 0.007
    assert 0.86 < ((low < 0.5) & (high > 0.5)).mean() < 0.92


def test_strata_keep_the_difference_between_members_out_of_the_interval():
    groups = np.repeat([0, 1], 20)
    scores = (groups * 100.0)[:, None] + np.random.default_rng(0).normal(size=(40, 1))
    within = np.subtract(*score_intervals(scores, n=300, level=0.9, seed=0, groups=groups)[::-1])
    without = np.subtract(*score_intervals(scores, n=300, level=0.9, seed=0)[::-1])
    assert within[0] < 1 < 10 < without[0]


def slow_faithfulness(values, full, empty, weights):
    rows = []
    for row in weights:
        top, bottom = row @ full, row @ empty
        rows.append([faithfulness(row @ column, top, bottom) for column in values.T])
    return np.array(rows)


def test_faithfulness_samples_are_ratios_of_means_of_one_draw():
    draw = np.random.default_rng(5)
    values, full, empty = draw.normal(size=(8, 4)), draw.normal(3, 1, 8), draw.normal(size=8)
    groups = np.arange(8) // 4
    ours = faithfulness_samples(values, full, empty, n=30, seed=1, groups=groups)
    slow = slow_faithfulness(values, full, empty, resamples(8, 30, 1, groups))
    assert np.allclose(ours, slow, rtol=1e-9)


def test_faithfulness_samples_pair_circuits_with_model_and_empty_circuit():
    full, empty = np.random.default_rng(6).normal(2, 5, (2, 12))
    values = np.column_stack([full, empty, (full + empty) / 2])
    ours = faithfulness_samples(values, full, empty, n=40, seed=0)
    assert np.allclose(ours, [[1.0, 0.0, 0.5]])  # whatever the draw


def test_faithfulness_samples_are_nan_where_faithfulness_is():
    full = np.array([1.0, 1.0, 1.0])
    assert np.isnan(faithfulness_samples(full[:, None], full, full + 1e-9, n=5, seed=0)).all()
    assert np.isnan(faithfulness_samples(full[:, None], 0 * full, 0 * full, n=5, seed=0)).all()
    values = np.array([[1.0, 0.5], [NAN, 0.5], [1.0, 0.5]])
    ours = faithfulness_samples(values, full, 0 * full, n=5, seed=0)
    assert np.isnan(ours[:, 0]).all()
    assert np.allclose(ours[:, 1], 0.5)


def slow_roc(scores, truth):
    """Points by counting at every threshold; the area by comparing every pair."""
    values = np.where(np.isfinite(scores), scores, -np.inf)
    points = [(0.0, 0.0, 1.0)]
    for threshold in sorted(set(values.tolist()), reverse=True):
        found = values >= threshold
        hits = (found & truth).sum()
        fpr = (found & ~truth).sum() / (~truth).sum()
        points.append((fpr, hits / truth.sum(), hits / found.sum()))
    pairs = [
        1.0 if p > n else 0.5 if p == n else 0.0 for p in values[truth] for n in values[~truth]
    ]
    average = sum((now[1] - before[1]) * now[2] for before, now in itertools.pairwise(points))
    return points, float(np.mean(pairs)), average


@pytest.mark.parametrize("seed", range(5))
def test_roc_equals_counting_and_comparing_pairs(seed):
    draw = np.random.default_rng(seed)
    scores = draw.integers(-3, 4, 40).astype(np.float32)  # many ties
    scores[draw.random(40) < 0.2] = NAN
    truth = draw.random(40) < 0.3
    found = roc(scores, truth)
    points, area, average = slow_roc(scores, truth)
    assert np.allclose(np.column_stack([found.fpr, found.tpr, found.precision]), points)
    assert found.roc_auc == pytest.approx(area)
    assert found.average_precision == pytest.approx(average)
    assert found.youden_j == pytest.approx(max(tpr - fpr for fpr, tpr, _ in points))


def test_roc_thresholds_are_scores_from_which_on_edges_are_found():
    scores, truth = np.array([0.5, NAN, 2.0, 0.5]), np.array([True, False, True, False])
    found = roc(scores, truth)
    assert found.thresholds.tolist() == [np.inf, 2.0, 0.5, -np.inf]
    assert found.tpr.tolist() == [0.0, 0.5, 1.0, 1.0]
    assert found.fpr.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert found.youden_j == 0.5


def test_roc_of_finite_scores_is_that_of_sklearn():
    draw = np.random.default_rng(9)
    scores, truth = draw.normal(size=200), draw.random(200) < 0.1
    found = roc(scores, truth)
    assert found.roc_auc == pytest.approx(roc_auc_score(truth, scores))
    assert found.average_precision == pytest.approx(average_precision_score(truth, scores))


@pytest.mark.parametrize("truth", [np.zeros(4, bool), np.ones(4, bool), np.zeros(0, bool)])
def test_roc_of_nothing_or_everything_is_nan(truth):
    found = roc(np.arange(len(truth), dtype=float), truth)
    assert np.isnan([found.roc_auc, found.average_precision, found.youden_j]).all()
    assert len(found.fpr) == len(found.tpr) == len(found.thresholds) == len(found.precision) == 0


def test_roc_of_one_great_tie_is_chance():
    found = roc(np.full(10, NAN), np.arange(10) < 2)
    assert (found.roc_auc, found.average_precision, found.youden_j) == (0.5, 0.2, 0.0)


def test_jaccard():
    a, b = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    assert jaccard(a, b) == pytest.approx(1 / 3)
    assert jaccard(a, a) == jaccard(a & ~a, a & ~a) == 1.0
    assert jaccard(a, ~a) == 0.0


def test_rank_correlation_is_spearman_over_what_is_finite_in_both():
    draw = np.random.default_rng(10)
    a, b = draw.integers(0, 6, (2, 50)).astype(float)
    a[3], b[7], b[8] = NAN, np.inf, NAN
    both = np.isfinite(a) & np.isfinite(b)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a[both], b[both]).statistic)
    assert rank_correlation(np.arange(5.0), -(np.arange(5.0) ** 3)) == pytest.approx(-1.0)
    assert math.isnan(rank_correlation(np.ones(5), np.arange(5.0)))
    assert math.isnan(rank_correlation(np.array([1.0, NAN]), np.array([1.0, 2.0])))


def test_fit_is_least_squares():
    draw = np.random.default_rng(11)
    x = draw.normal(size=40)
    y = 1.7 * x - 0.4 + draw.normal(size=40)
    slope, intercept = np.polyfit(x, y, 1)
    line = fit(np.append(x, [NAN, 1.0]), np.append(y, [1.0, np.inf]))
    assert [line.slope, line.intercept] == pytest.approx([slope, intercept])
    residual = y - slope * x - intercept
    assert line.r2 == pytest.approx(1 - residual.var() / y.var())


def test_fit_of_a_constant():
    assert np.isnan([*vars(fit(np.ones(4), np.arange(4.0))).values()]).all()
    flat = fit(np.arange(4.0), np.ones(4))
    assert (flat.slope, flat.intercept) == (0.0, 1.0)
    assert math.isnan(flat.r2)
