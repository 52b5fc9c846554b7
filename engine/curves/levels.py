"""Sizes at which a curve of circuits reaches a level of faithfulness φ, and stays there.

Circuits stand in the order of their size. A level is *reached* from the smallest circuit on at and
above which all that were measured reach it, so that one that is faithful by chance is none. Pinned
by tests/evaluation/test_levels.py, by hand.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int


def first_lasting(passes: Bool[np.ndarray, " sizes"]) -> int | None:
    """The first place from which on all pass; None where the last does not."""
    fails = np.flatnonzero(~np.asarray(passes, dtype=bool))
    first = int(fails[-1]) + 1 if len(fails) else 0
    return first if first < len(passes) else None


def crossing(phi: Float[np.ndarray, "*lead sizes"], level: float) -> Float[np.ndarray, "*lead"]:
    """Where each curve comes to the level for good: 2.25 is a quarter of the way, in φ, from the
    third circuit to the fourth; 0 where all are above it, infinity where the last is not, NaN where
    a φ is not known."""
    phi = np.asarray(phi, dtype=np.float64)
    below = phi < level
    n = phi.shape[-1]
    last = np.where(below.any(-1), n - 1 - np.argmax(below[..., ::-1], axis=-1), -1)
    low = np.clip(last, 0, n - 1)[..., None]
    high = np.minimum(low + 1, n - 1)
    before, after = (np.take_along_axis(phi, i, -1)[..., 0] for i in (low, high))
    rise = np.where(after > before, after - before, 1.0)
    place = last + (level - before) / rise
    place = np.where(last == n - 1, np.inf, np.where(last < 0, 0.0, place))
    return np.where(np.isfinite(phi).all(-1), place, np.nan)


def size_at(
    place: Float[np.ndarray, "*lead"], sizes: Int[np.ndarray, " sizes"]
) -> Float[np.ndarray, "*lead"]:
    """Edges or nodes at such a place, between two circuits linear in their logarithm; infinity and
    NaN as they are."""
    logs = np.log(np.maximum(np.asarray(sizes, dtype=np.float64), 1.0))
    found = np.exp(np.interp(np.nan_to_num(place, posinf=0.0), np.arange(len(logs)), logs))
    return np.where(np.isfinite(place), found, place)


def ends(samples: Float[np.ndarray, " n"], level: float) -> tuple[float, float]:
    """The central `level` of samples that may be infinite; NaN where less than that share is known,
    or nothing is."""
    known = np.sort(samples[~np.isnan(samples)])
    if len(known) < max(level * len(samples), 1):
        return float("nan"), float("nan")
    low, high = (round((1 - s * level) / 2 * (len(known) - 1), 9) for s in (1, -1))
    return float(known[math.floor(low)]), float(known[math.ceil(high)])
