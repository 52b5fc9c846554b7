"""Tests of many edges at once: by hand, and against scipy where there is one stratum."""

import numpy as np
import pytest
from scipy.stats import kstest, ttest_1samp

from edgesweep.engine.manytests import false_discovery_rates, mean_p


def test_benjamini_and_hochberg_by_hand():
    # sorted .01 .02 .03 .2 of 4 tests: times 4/rank .04 .04 .04 .2, each the least from there on;
    # uncorrected, .03 would pass for a rate of 3%
    q = false_discovery_rates(np.array([0.2, 0.03, np.nan, 0.01, 0.02]))
    np.testing.assert_allclose(q, [0.2, 0.04, np.nan, 0.04, 0.04])
    # their own example (1995, section 3.2): at a rate of 5% the first four of fifteen
    theirs = [
        *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459),
        *(0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
    ]
    assert (false_discovery_rates(np.array(theirs)) <= 0.05).sum() == 4


def test_of_one_stratum_p_is_student_s():
    values = np.random.default_rng(0).normal(0.3, 1.0, (12, 5))
    expected = ttest_1samp(values, 0.0).pvalue
    np.testing.assert_allclose(mean_p(values, np.zeros(12, int)), expected, rtol=1e-12)


def test_of_two_strata_p_is_uniform_where_the_mean_is_zero():
    draw, groups = np.random.default_rng(1), np.repeat([0, 1], [10, 10])
    offset = np.where(groups == 0, 1.0, -1.0)[
        :, None
    ]  # tasks differ, and on average nothing is lost
    values = offset + draw.normal(size=(20, 2000)) * np.where(groups == 0, 1.0, 0.2)[:, None]
    assert kstest(mean_p(values, groups), "uniform").pvalue > 0.01


def test_a_column_without_spread():
    values = np.array([[0.0, 1.0, np.nan], [0.0, 1.0, 1.0]])
    p = mean_p(values, np.zeros(2, int))
    assert p[:2].tolist() == [1.0, 0.0]
    assert np.isnan(p[2])


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_inputs_tell_nothing(n):
    assert np.isnan(mean_p(np.ones((max(n, 1), 2)), np.zeros(max(n, 1), int))).all()
    assert len(false_discovery_rates(np.zeros(0))) == 0
