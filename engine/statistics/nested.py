"""Intervals over two samples at once: the prompts that circuits were found on, and those that they
were run on.

θ(B, E) is a number (a faithfulness, an area, its difference between two methods) of circuits that
are found on build prompts B and run on evaluation prompts E; published is θ̂ = θ(B̂, Ê). Were both
drawn anew, it would vary, to first order and for samples that do not share a prompt (crossed random
effects; Owen 2007, "The pigeonhole bootstrap", section 4), by

    Var θ̂ ≈ V_B + V_E,    V_B = Var_b θ(B*_b, Ê),    V_E = Var_e θ(B̂, E*_e)

B*_b are R resamples of the build prompts, on each of which edges are ranked and circuits are run
again; E*_e resamples of the evaluation prompts, which cost nothing. Either variance is that of a
bootstrap, (n − 1)/n of the unbiased one for n prompts, and is corrected for it. Their sum rather
errs upwards: what B and E do together is in both, and a ranking of a resample has the noise of its
prompts twice (V_B is 1.2 to 2.8 times too large where the truth is known). The interval is

    θ̂ ± t · √(V_B + V_E),    t of Student's distribution with
    (V_B + V_E)² / (V_B² / (R − 1) + V_E² / (n_E − 1)) degrees of freedom (Satterthwaite 1946)

so that few resamples of B make it wide and not wrong. It stands around θ̂ and not around the
resamples: these have fewer distinct prompts than B̂ and rank worse, which says nothing of θ̂. It is
an interval for the mean of θ over both samples, of prompts so many, not for what another B gives.
Pinned by tests/evaluation/test_nested.py, where the truth is known.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

Array = Float[np.ndarray, "..."]


@dataclass(frozen=True)
class Nested:
    """θ̂ with its interval; NaN where a spread is not defined. Arrays, or numbers.

    Attributes:
        spread_build, spread_evaluation: √V_B, √V_E, in the units of θ.
    """

    value: Array
    low: Array
    high: Array
    spread_build: Array
    spread_evaluation: Array


def nested(
    value: Array,
    build: Float[np.ndarray, "rebuilt ..."],
    evaluation: Float[np.ndarray, "resamples ..."],
    *,
    n_build: int,
    n_eval: int,
    level: float,
) -> Nested:
    """An interval over both samples.

    Args:
        value: θ̂ `[*lead]`.
        build: θ(B*_b, Ê) of each resample of the build prompts, two at least.
        evaluation: θ(B̂, E*_e) of each resample of the evaluation prompts.
        n_build, n_eval: prompts that were resampled.
        level: what it covers.
    """
    value = np.asarray(value, np.float64)
    of_build, n = _variance(build, n_build)
    of_evaluation, _ = _variance(evaluation, n_eval)
    total = of_build + of_evaluation
    with np.errstate(invalid="ignore", divide="ignore"):
        slack = of_build**2 / (n - 1) + of_evaluation**2 / max(n_eval - 1, 1)
        degrees = np.where(slack > 0, total**2 / slack, np.inf)
    half = stdtrit(degrees, (1 + level) / 2) * np.sqrt(total)
    return Nested(value, value - half, value + half, np.sqrt(of_build), np.sqrt(of_evaluation))


def _variance(samples: Array, n_prompts: int) -> tuple[Array, Array]:
    """Of the finite samples along the first axis, unbiased, corrected for the prompts' number; NaN
    with fewer than two. And how many are finite."""
    samples = np.asarray(samples, np.float64)
    finite = np.isfinite(samples)
    n = finite.sum(0)
    some = np.where(n > 1, n, np.nan)
    middle = np.where(finite, samples, 0.0).sum(0) / some
    squares = np.where(finite, samples - middle, 0.0) ** 2
    return squares.sum(0) / (some - 1) * n_prompts / max(n_prompts - 1, 1), some


def wins(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."]) -> float:
    """The share of the same resamples in which a is above b, ties half; NaN where none is finite in
    both."""
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    difference = difference[np.isfinite(difference)]
    if not difference.size:
        return float("nan")
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))
