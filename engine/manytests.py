"""Many tests at once: of each column whether its mean over inputs is not zero, and of how many that
can be said.

    p    two-sided, of Student's t for a mean over strata (member tasks, each with its share of the
         inputs): t = Σ w_g m_g / sqrt(Σ w_g² s_g² / n_g), with Welch and Satterthwaite's degrees of
         freedom. A bootstrap of R draws has no p below 1 / R: of many edges none would be left.
    q    the smallest rate of false discoveries at which a column is one (Benjamini and Hochberg
         1995), among all columns that were tested

Pinned by tests/evaluation/test_manytests.py.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtr


def mean_p(
    values: Float[np.ndarray, "inputs columns"], groups: Int[np.ndarray, " inputs"]
) -> Float[np.ndarray, " columns"]:
    """p of each column's mean. Of a column without spread it is 1 if all is zero, else 0; NaN where
    a value is not finite or no group has two inputs."""
    values = np.asarray(values, dtype=np.float64)
    mean, variance, squares = np.zeros((3, values.shape[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        for group in np.unique(groups):
            mine = values[groups == group]
            n, weight = len(mine), len(mine) / len(values)
            own = mine.var(axis=0, ddof=1) if n > 1 else np.full(values.shape[1], np.nan)
            mean += weight * mine.mean(axis=0)
            part = weight**2 * own / n
            variance += part
            squares += part**2 / max(n - 1, 1)
        found = 2 * stdtr(variance**2 / squares, -np.abs(mean) / np.sqrt(variance))
    return np.where(variance == 0, np.where(mean == 0, 1.0, 0.0), found)


def false_discovery_rates(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """q of each test, by scipy; NaN where p is, which is no test."""
    from scipy.stats import false_discovery_control  # a second, for who asks for it

    q, tested = np.full(len(p), np.nan), np.isfinite(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested], method="bh")
    return q
