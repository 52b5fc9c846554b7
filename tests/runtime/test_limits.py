"""Time limits: given, none, or from what works of the same group took."""

import math

import pytest

from edgesweep.engine.runtime import PoolOptions, Work
from edgesweep.engine.runtime.limits import TimeLimits

A, B = Work("a", 0, "attribute"), Work("b", 0, "blocks")


def test_a_limit_is_what_it_is_set_to():
    assert TimeLimits(PoolOptions(work_timeout_s=5)).of(A, 3) == 5
    assert TimeLimits(PoolOptions(work_timeout_s=None)).of(A, 1) == math.inf


def test_by_default_it_follows_the_longest_work_of_the_group():
    limits = TimeLimits(PoolOptions())
    assert limits.of(A, 1) == 3600
    limits.note(A, 2)
    assert limits.of(A, 1) == 600
    limits.note(A, 90)
    limits.note(A, 3)
    assert limits.of(A, 1) == 900
    assert limits.of(B, 1) == 3600


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 600), (2, 2400), (3, 9600), (900, 153600)])
def test_each_attempt_is_given_longer(attempt, seconds):
    limits = TimeLimits(PoolOptions())
    limits.note(A, 0.1)
    assert limits.of(A, attempt) == seconds
