"""Measures of circuits and rankings, from numbers alone: no model, no run directory.

    sizes       of the smallest circuits of some faithfulness φ (areas: `engine.curves.areas`)
    bootstrap   what any of it would be with other inputs: inputs are drawn with replacement, within
                their member task, the same draw for everything that is compared
    ranking     ROC and precision–recall of a full ranking, ties as ties; overlap of rankings

Everything is summed in float64. Pinned by tests/evaluation/test_measures.py and test_intervals.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import gammaln

Array = Float[np.ndarray, "..."]
#: an array, or where no axis is left a number
Numbers = Array | np.float64
#: edges of each circuit, and φ `[*lead, sizes]`
Sizes = Int[np.ndarray, " sizes"] | Sequence[int]
Groups = Int[np.ndarray, " inputs"]

#: numbers that a bootstrap holds at once
CHUNK_NUMBERS = 2**23


# --- sizes -------------------------------------------------------------------------------------


def edges_for(
    n_edges: Sizes, faithfulness: Float[np.ndarray, " sizes"] | Sequence[float], level: float
) -> float:
    """Edges of the smallest circuit measured with φ ≥ level; NaN if none is."""
    reached = np.asarray(n_edges)[np.asarray(faithfulness) >= level]
    return float(reached.min()) if len(reached) else float("nan")


# --- bootstrap ---------------------------------------------------------------------------------


def resamples(n_inputs: int, n: int, seed: int, groups: Groups | None = None) -> Array:
    """Weights `[n, inputs]` of `n` draws with replacement; each row sums to 1. Inputs of a group
    are drawn for inputs of that group, so that every member of a mixture keeps its share."""
    draw = np.random.default_rng(seed)
    groups = np.zeros(n_inputs, dtype=int) if groups is None else np.asarray(groups)
    weights = np.zeros((n, n_inputs))
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        weights[:, mine] = draw.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=n)
    return weights / n_inputs


def interval(samples: Array, level: float, axis: int = 0) -> tuple[Numbers, Numbers]:
    """The central `level` of the finite samples along an axis, quantiles linear between samples;
    NaN where none is finite."""
    ordered = np.sort(np.where(np.isfinite(samples), samples, np.nan), axis=axis)  # NaN last
    last = np.maximum(np.isfinite(ordered).sum(axis=axis, keepdims=True) - 1, 0)
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        place = share * last
        below = np.floor(place).astype(int)
        low = np.take_along_axis(ordered, below, axis)
        high = np.take_along_axis(ordered, np.minimum(below + 1, last), axis)
        ends.append(np.squeeze(low + (place - below) * (high - low), axis)[()])
    return ends[0], ends[1]


def score_intervals(
    scores: Float[np.ndarray, "inputs scored"],
    *,
    n: int,
    level: float,
    seed: int,
    groups: Groups | None = None,
) -> tuple[Float[np.ndarray, " scored"], Float[np.ndarray, " scored"]]:
    """Interval of the mean over the inputs with a finite score, score by score; NaN where no input
    has one."""
    weights = resamples(len(scores), n, seed, groups)
    parts = []
    for start, stop in _spans(scores.shape[1], max(n, len(scores))):
        part = scores[:, start:stop].astype(np.float64)
        parts.append(interval(_finite_means(weights, part), level))
    low, high = (np.concatenate(ends) for ends in zip(*parts, strict=True))
    return low, high


def _finite_means(weights: Array, values: Array) -> Float[np.ndarray, "n scored"]:
    """Weighted means of what is finite; NaN in a draw that has nothing finite."""
    finite = np.isfinite(values)
    total: Array = weights @ np.where(finite, values, 0.0)
    if finite.all():
        return total
    share = weights @ finite.astype(np.float64)
    return np.divide(total, share, out=np.full_like(total, np.nan), where=share > 0)


class ResampledMeans:
    """Means over the finite inputs of each resample, inputs a block at a time: what `resamples` are
    of may be more than fits into memory.

    Args:
        weights: `[n, inputs]` (`resamples`).
        n_scores: how many scores an input has.
    """

    def __init__(self, weights: Array, n_scores: int) -> None:
        self._weights = weights
        self._total, self._share = np.zeros((2, len(weights), n_scores))

    def add(self, first: int, scores: Float[np.ndarray, "rows scored"]) -> None:
        """The inputs from the `first` on."""
        weights = self._weights[:, first : first + len(scores)]
        finite = np.isfinite(scores)
        self._total += weights @ np.where(finite, scores, 0.0)
        self._share += weights @ finite.astype(np.float64)

    def means(self) -> Float[np.ndarray, "n scored"]:
        """NaN in a draw that has nothing finite."""
        empty = np.full_like(self._total, np.nan)
        return np.divide(self._total, self._share, out=empty, where=self._share > 0)


def normal_intervals(
    means: Float[np.ndarray, "groups scored"],
    rms: Float[np.ndarray, "groups scored"],
    n: Float[np.ndarray, "groups scored"],
    level: float,
) -> tuple[Float[np.ndarray, " scored"], Float[np.ndarray, " scored"]]:
    """Interval of the mean over all inputs, were it normal: from the mean, the root mean square and
    the number of inputs of each group, among which groups keep their shares. NaN where a group has
    fewer than two."""
    variance = np.maximum(rms**2 - means**2, 0.0) * n / np.where(n > 1, n - 1, np.nan)
    whole = n.sum(0)
    shares = n / np.where(whole > 0, whole, np.nan)
    middle = (shares * means).sum(0)
    half = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt((shares**2 * variance / n).sum(0))
    return middle - half, middle + half


def faithfulness_samples(
    values: Float[np.ndarray, "inputs circuits"],
    full: Float[np.ndarray, " inputs"],
    empty: Float[np.ndarray, " inputs"],
    *,
    n: int,
    seed: int,
    groups: Groups | None = None,
) -> Float[np.ndarray, "n circuits"]:
    """φ of every circuit in each resample: a ratio of means, the same draw above and below; NaN
    where the model and the empty circuit hardly differ (`engine.evaluation.faithfulness`), and for
    a circuit with a value that is not finite."""
    return faithfulness_under(resamples(len(values), n, seed, groups), values, full, empty)


def faithfulness_under(
    weights: Float[np.ndarray, "n inputs"],
    values: Float[np.ndarray, "inputs circuits"],
    full: Float[np.ndarray, " inputs"],
    empty: Float[np.ndarray, " inputs"],
) -> Float[np.ndarray, "n circuits"]:
    """The same of inputs weighted in some ways."""
    table = np.column_stack([values, full, empty]).astype(np.float64)
    table[:, ~np.isfinite(table).all(axis=0)] = np.nan
    means = weights @ table
    top, bottom = means[:, -2:-1], means[:, -1:]
    span, size = top - bottom, np.maximum(np.abs(top), np.abs(bottom))
    alike = (np.abs(span) < 1e-6 * size) | (span == 0)
    return (means[:, :-2] - bottom) / np.where(alike, np.nan, span)


def _spans(width: int, rows: int) -> Iterator[tuple[int, int]]:
    step = max(1, CHUNK_NUMBERS // max(rows, 1))
    yield from ((start, min(start + step, width)) for start in range(0, width, step))


# --- rankings ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Roc:
    """A ranking against the truth, every distinct score a threshold, first to last.

    Attributes:
        thresholds: scores from which on an edge counts as found; the first finds nothing.
        fpr, tpr, precision: false and true positive rates and the precision there.
        roc_auc, average_precision, youden_j: areas, and the largest tpr − fpr. NaN where the truth
            holds nothing or everything.
    """

    thresholds: Float[np.ndarray, " points"]
    fpr: Float[np.ndarray, " points"]
    tpr: Float[np.ndarray, " points"]
    precision: Float[np.ndarray, " points"]
    roc_auc: float
    average_precision: float
    youden_j: float


def roc(scores: Float[np.ndarray, " scored"], truth: Bool[np.ndarray, " scored"]) -> Roc:
    """The whole ranking, high to low; equal scores are found together, and those that are not
    finite come last, together."""
    truth = np.asarray(truth, dtype=bool)
    if not 0 < truth.sum() < len(truth):
        nothing = np.zeros(0)
        return Roc(nothing, nothing, nothing, nothing, np.nan, np.nan, np.nan)
    # scikit-learn takes a second and 30 MB, which most runs need not spend
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    ranked = _ranks(scores)
    fpr, tpr, _ = roc_curve(truth, ranked, drop_intermediate=False)
    found = tpr * truth.sum()
    wrong = fpr * (~truth).sum()
    precision = np.divide(found, found + wrong, out=np.ones(len(found)), where=found + wrong > 0)
    values = np.append(np.inf, np.unique(np.where(np.isfinite(scores), scores, -np.inf))[::-1])
    return Roc(
        values,
        fpr,
        tpr,
        precision,
        float(roc_auc_score(truth, ranked)),
        float(average_precision_score(truth, ranked)),
        float(np.max(tpr - fpr)),
    )


def _ranks(scores: Array) -> Int[np.ndarray, " scored"]:
    """Dense ranks, the highest for the highest; not finite is lowest."""
    values = np.where(np.isfinite(scores), scores, -np.inf)
    return np.unique(values, return_inverse=True)[1]


def jaccard(a: Bool[np.ndarray, " edges"], b: Bool[np.ndarray, " edges"]) -> float:
    """Shared edges over all edges of both; 1 for two empty circuits."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


@cache
def jaccard_by_chance(n: int, a: int, b: int) -> float:
    """What `jaccard` is expected to be of a and of b of n edges, drawn at random: they share x with
    the hypergeometric probability P(x), and Σ P(x) x / (a + b − x). Of k and k edges it is about
    k / (2n − k)."""
    if not a + b:
        return 1.0
    shared = np.arange(max(0, a + b - n), min(a, b) + 1)
    log_p = _log_choose(a, shared) + _log_choose(n - a, b - shared) - _log_choose(n, b)
    return float(np.exp(log_p) @ (shared / (a + b - shared)))


def _log_choose(n: int, k: Any) -> Any:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's over entries that are finite in both, ties averaged; NaN where one is constant."""
    both = np.isfinite(a) & np.isfinite(b)
    return correlation(centred_ranks(a[both]), centred_ranks(b[both]))


def centred_ranks(values: Array) -> Float[np.ndarray, " scored"]:
    """Ranks less their mean, ties averaged."""
    _, place, times = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(times) - (times - 1) / 2)[place]
    return ranks - ranks.mean() if len(ranks) else ranks


def correlation(x: Array, y: Array) -> float:
    """Pearson's of values that sum to 0; NaN where one is constant."""
    spread = (x @ x) * (y @ y)
    return float(x @ y / np.sqrt(spread)) if spread else float("nan")


@dataclass(frozen=True)
class Line:
    """y = slope · x + intercept by least squares, and the share of y's variance that it tells."""

    slope: float
    intercept: float
    r2: float


def fit(x: Array, y: Array) -> Line:
    """The line of y on x over entries that are finite in both; NaN where x is constant."""
    both = np.isfinite(x) & np.isfinite(y)
    x, y = np.asarray(x, np.float64)[both], np.asarray(y, np.float64)[both]
    if len(x) < 2 or np.ptp(x) == 0:
        return Line(float("nan"), float("nan"), float("nan"))
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    spread = float(dy @ dy)
    r2 = float((dx @ dy) ** 2 / ((dx @ dx) * spread)) if spread else float("nan")
    return Line(slope, float(y.mean() - slope * x.mean()), r2)
