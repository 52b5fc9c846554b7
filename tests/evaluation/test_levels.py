"""Where curves reach a level, by hand."""

import math

import numpy as np
import pytest

from edgesweep.engine.curves.levels import crossing, ends, first_lasting, size_at

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("passes", "first"),
    [
        ([False, True, True], 1),
        ([True, False, True], 2),  # the first one was chance
        ([True, True], 0),
        ([True, False], None),
        ([], None),
    ],
)
def test_the_smallest_from_which_on_all_pass(passes, first):
    assert first_lasting(np.array(passes, dtype=bool)) == first


def test_where_a_curve_crosses_a_level_for_good():
    phi = [[0.0, 0.5, 0.9, 1.0], [0.9, 0.4, 0.7, 0.95], [0.8, 0.9, 0.9, 0.9], [0.1, 0.9, 0.9, 0.7]]
    found = crossing(np.array(phi), 0.8)
    assert found == pytest.approx([1.75, 2.4, 0.0, INF])
    assert math.isnan(crossing(np.array([0.1, NAN, 0.9]), 0.8))
    assert crossing(np.array([0.2]), 0.8) == INF
    assert crossing(np.array([0.8]), 0.8) == 0
    assert crossing(np.array([0.0, 0.8]), 0.8) == 1


def test_sizes_between_circuits_are_on_the_logarithm():
    sizes = np.array([0, 10, 1000, 4000])
    assert size_at(np.array([0, 1, 1.5, 2, 3, INF]), sizes) == pytest.approx(
        [1, 10, 100, 1000, 4000, INF]
    )
    assert math.isnan(size_at(np.array(NAN), sizes))


def test_intervals_of_what_may_be_out_of_reach():
    assert ends(np.arange(101.0), 0.9) == (5, 95)
    low, high = ends(np.append(np.arange(90.0), np.full(10, INF)), 0.9)
    assert (low, high) == (4, INF)
    assert np.isnan(ends(np.append(np.arange(80.0), np.full(20, NAN)), 0.9)).all()
    assert np.isnan(ends(np.zeros(0), 0.9)).all()
