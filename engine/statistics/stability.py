"""How alike the rankings are that two disjoint halves of the build prompts give.

Resamples of the same prompts share most of them, and so agree more than fresh prompts would: of two
halves neither knows the other. Either has half of the prompts, so that what all of them find is
rather more stable than this. Two numbers a halving, of |mean score|:

    Spearman's correlation of the whole order
    Jaccard's index of the strongest `top_of`: the share of either's that both have

Pinned by tests/evaluation/test_stability.py.
"""

import numpy as np
from jaxtyping import Float, Int

from edgesweep.engine.halves import halves
from edgesweep.engine.measures import jaccard, rank_correlation

#: random halvings, whose mean and spread are told
HALVINGS = 20
#: the strongest are one in so many of what is scored, and ten at least
ONE_IN, AT_LEAST = 100, 10


def top_of(n_scored: int) -> int:
    """How many of the strongest are compared; half of all where these are few."""
    return min(max(n_scored // ONE_IN, AT_LEAST), max(n_scored // 2, 1))


def half_weights(
    groups: Int[np.ndarray, " inputs"], seed: int, n: int = HALVINGS
) -> Float[np.ndarray, "twice inputs"]:
    """Weights of the two halves of each halving, one after the other; every row sums to 1, or to 0
    where a half has no input."""
    both = np.concatenate([halves(groups, seed + i) for i in range(n)]).astype(np.float64)
    return both / np.maximum(both.sum(1, keepdims=True), 1.0)


def agreement(
    means: Float[np.ndarray, "twice scored"], top: int
) -> Float[np.ndarray, "halvings 2"]:
    """Both numbers of each halving, from the mean scores of its halves; NaN where a half has none.
    What is not finite in all halves is left out."""
    kept = np.abs(means[:, np.isfinite(means).all(0)])
    found = np.full((len(means) // 2, 2), np.nan)
    if kept.shape[1] > 1:
        for i, (one, other) in enumerate(zip(kept[::2], kept[1::2], strict=True)):
            shared = jaccard(_strongest(one, top), _strongest(other, top))
            found[i] = rank_correlation(one, other), shared
    return found


def _strongest(sizes: Float[np.ndarray, " scored"], top: int) -> np.ndarray:
    """Which are the first `top`, ties to the lower index."""
    found = np.zeros(len(sizes), dtype=bool)
    found[np.argsort(-sizes, kind="stable")[:top]] = True
    return found
