"""How many edges are needed: against the published loop, and against every number tried."""

from __future__ import annotations

import random

import numpy as np
import pytest

from edgesweep.engine.bases.needed import (
    RESOLVED,
    Bound,
    Curve,
    log_sizes,
    published,
    settle,
    shared_out,
)
from edgesweep.engine.measures import resamples

N_INPUTS = 40


def published_loop(total, passes):
    """The published search, as it stands there."""
    low, up, asked = 0, total, []
    while up - low > 1:
        p = (up + low) // 2
        if p == low:
            p += 1
        if p == up:
            p -= 1
        asked.append(total - p)
        if passes(total - p):
            low = p
        else:
            up = p
    return total - low, asked


def curve(score, top, more=True):
    """Of inputs that all score alike."""
    waves = []

    def measure(size):
        waves.append(size)
        return np.full(N_INPUTS, float(score(size)))

    return Curve(measure, np.ones(N_INPUTS), Bound(0.1, more), top), waves


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_it_is_the_published_loop_however_far_ahead_is_measured(seed, depth):
    draw = random.Random(seed)
    total = draw.randrange(2, 3000)
    good = {k: k > total // 3 or draw.random() < 0.2 for k in range(total + 1)}  # not monotone
    made, _ = curve(good.__getitem__, total)
    made.tried(log_sizes(total, 5))  # what others asked for does not count
    assert published(made, total, depth) == published_loop(total, good.__getitem__)


@pytest.mark.parametrize("more", [True, False])
def test_the_robust_number_is_that_above_the_last_dip_that_is_seen(more):
    good = {k: k >= 700 or 200 <= k < 500 for k in range(1001)}
    made, asked = curve(lambda k: good[k] == more, 1000, more)
    made.base = np.full(N_INPUTS, float(more))
    made.tried([1, 250, 600, 1000])
    settle(made)
    assert made.robust().tolist() == [700]
    assert len(asked) < 15


def test_what_never_suffices_asks_for_the_network_as_it_is():
    made, _ = curve(lambda k: k == 101, 101)
    made.tried([*log_sizes(100, 4), 101])
    settle(made)
    assert made.robust().tolist() == [101]


def test_each_resample_has_the_number_that_every_size_tried_gives_it():
    draw = np.random.default_rng(0)
    difficulty = draw.integers(1, 300, N_INPUTS)  # an input is right from so many edges on
    measured = []

    def measure(size):
        measured.append(size)
        return (size >= difficulty).astype(float)

    weights = resamples(N_INPUTS, 100, 0)
    made = Curve(measure, np.ones(N_INPUTS), Bound(0.1, True), 401)
    made.tried([*log_sizes(400, 6), 401])
    settle(made)
    settle(made, weights, RESOLVED)
    every = Curve(measure, np.ones(N_INPUTS), Bound(0.1, True), 401)
    n_measured = len(measured)
    every.tried(range(1, 402))
    exact = every.robust(weights)
    found = made.robust(weights)
    assert made.robust() == every.robust()
    assert (found >= exact).all()
    assert (found <= np.maximum(exact + 1, exact / (1 - RESOLVED))).all()
    assert len(set(exact.tolist())) > 4
    assert n_measured < 60


def test_edges_are_shared_out_in_proportion():
    assert shared_out(100, [80, 20], [1000, 1000]) == [80, 20]
    assert shared_out(10, [1, 1, 1], [9, 9, 9]) == [4, 3, 3]
    assert shared_out(150, [80, 20], [90, 1000]) == [90, 60]
    assert shared_out(2000, [80, 20], [90, 1000]) == [90, 1000]
    for total in range(70):
        assert sum(shared_out(total, [3, 7, 2], [10, 50, 4])) == min(total, 64)


def test_sizes_of_a_grid():
    assert log_sizes(100, 3) == [1, 10, 100]
    assert log_sizes(0, 3) == []
