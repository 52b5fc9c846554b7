"""Intervals over both splits hold the truth as often as they say, where the truth is known."""

import numpy as np
import pytest

from edgesweep.engine.measures import resamples
from edgesweep.engine.statistics.nested import nested, wins

EDGES, KEPT, N_BUILD, N_EVAL, REBUILT, DRAWS = 40, 8, 16, 24, 5, 500
#: what an edge is worth, and how much a prompt differs from another in it
WORTH = np.random.default_rng(0).exponential(size=EDGES)
NOISE, OF_EVAL = 4.0, 0.5


def best(means: np.ndarray) -> np.ndarray:
    """Of means `[…, edge]` the edges that rank first."""
    order = np.argsort(-means, axis=-1, kind="stable")[..., :KEPT]
    found = np.zeros(means.shape)
    np.put_along_axis(found, order, 1.0, -1)
    return found


def phi(kept: np.ndarray, of_prompts: np.ndarray) -> np.ndarray:
    """The share of what all edges do that those kept do, a ratio of means."""
    return (kept * of_prompts).sum(-1) / of_prompts.sum(-1)


def drawn(draw: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of build prompts and what edges do on evaluation prompts, `[n, prompt, edge]`."""
    build = WORTH + NOISE * draw.normal(size=(n, N_BUILD, EDGES))
    return build, WORTH + OF_EVAL * draw.normal(size=(n, N_EVAL, EDGES))


@pytest.fixture(scope="module")
def truth() -> float:
    """The mean of φ over circuits that are found on so many prompts."""
    draw, noise = np.random.default_rng(1), NOISE / np.sqrt(N_BUILD)
    kept = best(WORTH + noise * draw.normal(size=(100_000, EDGES)))
    return float(np.mean(kept @ WORTH / WORTH.sum()))


@pytest.fixture(scope="module")
def samples() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """φ, φ of each resample of the build prompts, and of each of the evaluation prompts."""
    build, evaluation = drawn(np.random.default_rng(2), DRAWS)
    of_build, of_eval = resamples(N_BUILD, REBUILT, 3), resamples(N_EVAL, 200, 4)
    kept, mean = best(build.mean(1)), evaluation.mean(1)
    rebuilt = best(np.einsum("rp,npe->rne", of_build, build))
    resampled = np.einsum("rp,npe->rne", of_eval, evaluation)
    return phi(kept, mean), phi(rebuilt, mean), phi(kept, resampled)


def interval_of(samples, **changes):
    settings = {"n_build": N_BUILD, "n_eval": N_EVAL, "level": 0.95, **changes}
    return nested(*samples, **settings)


def test_they_hold_the_truth_as_often_as_they_say(samples, truth):
    found = interval_of(samples)
    held = np.mean((found.low <= truth) & (truth <= found.high))
    assert 0.90 <= held <= 0.98


def test_without_the_build_prompts_they_hold_it_less_often(samples, truth):
    value, _, resampled = samples
    alone = interval_of((value, np.repeat(value[None], REBUILT, 0), resampled))
    assert np.mean((alone.low <= truth) & (truth <= alone.high)) < 0.60
    assert alone.spread_build.max() < 1e-12


def test_the_spreads_are_those_of_fresh_samples(samples, truth):
    found = interval_of(samples)
    said = np.mean(found.spread_build**2 + found.spread_evaluation**2)
    assert said == pytest.approx(np.var(samples[0]), rel=0.4)


def test_an_interval_by_hand():
    """V_B = 1/3 · 4/3, V_E = 1 · 4/3, three resamples of B; Student's t, drawn."""
    build, evaluation = np.array([1.0, 2.0, 1.0]), np.array([0.0, 1.0, 2.0])
    found = nested(np.array(5.0), build, evaluation, n_build=4, n_eval=4, level=0.9)
    of_build, of_evaluation = np.var(build, ddof=1) * 4 / 3, 4 / 3
    degrees = (of_build + of_evaluation) ** 2 / (of_build**2 / 2 + of_evaluation**2 / 3)
    assert found.spread_build == pytest.approx(np.sqrt(of_build))
    assert found.spread_evaluation == pytest.approx(np.sqrt(of_evaluation))
    draws = np.random.default_rng(0).standard_t(degrees, 2_000_000)
    assert np.mean(np.abs(draws) < (found.high - 5) / np.sqrt(of_build + of_evaluation)) == (
        pytest.approx(0.9, abs=1e-3)
    )
    assert found.high - 5 == pytest.approx(5 - found.low)


def test_what_is_not_finite_is_left_out_and_one_sample_has_no_spread():
    evaluation = np.array([1.0, 2.0, 3.0])
    some = nested(
        np.array(2.0), np.array([1, np.nan, 3]), evaluation, n_build=9, n_eval=9, level=0.9
    )
    both = nested(np.array(2.0), np.array([1.0, 3.0]), evaluation, n_build=9, n_eval=9, level=0.9)
    assert some.low == both.low
    one = nested(np.array(2.0), np.array([1, np.nan]), evaluation, n_build=9, n_eval=9, level=0.9)
    assert np.isnan(one.low)


def test_wins():
    assert wins(np.array([1.0, 2, 3, np.nan]), np.array([0.0, 2, 4, 0])) == 0.5
    assert np.isnan(wins(np.array([np.nan]), np.array([1.0])))
