"""Correlations of units over samples, from moments that fold exactly, as Fisher's z.

Parts of the samples are moments, of which M2 = Σ (x − mean)(x − mean)ᵀ (`engine.bases.moments`).

    C_ij = M2_ij / √(M2_ii M2_jj)          z_ij = atanh(clip(C_ij, ±(1 − 1e-7))),  z_ii = 0

*Emerging Structures in Computational Graphs* (2024, section 4.2) uses 2·z, which shifts every
description length by the same constant. A unit that does not vary, or less than `dead` times the
median variance of those that do, is dead: it has no correlation and is left out. Units that are
copies of each other (|C| = 1) are clipped, and counted.

Of samples in classes there is a z of each class as well, a layer. A unit that lives and does not
vary over a class has nothing to go along with there: its z is 0 in that layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from edgesweep.engine.bases.moments import Moments

#: units at most, unless a config says otherwise
MAX_UNITS = 20_000
#: of the median variance: below it a unit is dead
DEAD = 1e-12
#: |C| at most
CLIP = 1 - 1e-7
#: samples of a layer at least: the variance of z is 1 / (n − 3)
MIN_SAMPLES = 4


class RegionError(ValueError):
    """Units that cannot be grouped: one line with the values and what to do."""


def check_size(n_units: int, max_units: int = MAX_UNITS) -> None:
    """Refuse what would not fit, before any work.

    Raises:
        RegionError: too many units; says the bytes.
    """
    if n_units > max_units:
        raise RegionError(
            f"{n_units} units are more than {max_units}: their covariance and its fold take "
            f"{16 * n_units**2 / 2**30:.1f} GiB; take channels for neurons, another site, or raise "
            "max_units"
        )


def moments_of(samples: np.ndarray) -> Moments:
    """Of some samples, `[n, units]`, n ≥ 1; parts of one set fold (`engine.bases.moments`).

    Raises:
        RegionError: a value that is not finite.
    """
    if not np.isfinite(samples).all():
        row, unit = np.argwhere(~np.isfinite(samples))[0]
        raise RegionError(f"unit {unit} of sample {row} is {samples[row, unit]}")
    return Moments.of(torch.as_tensor(samples))


@dataclass(frozen=True)
class Correlation:
    """What is known of the units' ties.

    Attributes:
        live: numbers of the units that are no dead ones, ascending, `[live]`.
        z: Fisher's z between live units, `[live, live]`, 0 on the diagonal.
        n_dead: units that do not vary.
        n_clipped: pairs of live units that are copies of each other.
    """

    live: np.ndarray
    z: np.ndarray
    n_dead: int
    n_clipped: int


def correlation(moments: Moments, dead: float | None = None) -> Correlation:
    """Correlations of the units that live.

    Args:
        dead: variance below which a unit is dead, as published (1e-5); None: `DEAD` of the median
            of those that vary.

    Raises:
        RegionError: fewer than two samples, or fewer than two live units.
    """
    if moments.n < 2:
        raise RegionError(f"{moments.n} sample has no correlations; give two or more")
    m2 = moments.m2.numpy()
    live = _live(m2, moments.n, dead)
    if len(live) < 2:
        raise RegionError(
            f"{len(live)} of {len(m2)} units vary over {moments.n} samples; two or more are "
            "needed: give more samples, or another site"
        )
    c = _correlated(m2, live)
    n_clipped = int((np.abs(np.triu(c)) > CLIP).sum())
    return Correlation(live, _fishers(c), len(m2) - len(live), n_clipped)


def layer(moments: Moments, live: np.ndarray, dead: float | None = None) -> np.ndarray:
    """z of one class, `[live, live]`.

    Args:
        moments: over the class, of all units.
        live: numbers of the units that live over all samples. dead: as of `correlation`.

    Raises:
        RegionError: fewer samples than a correlation takes.
    """
    if moments.n < MIN_SAMPLES:
        raise RegionError(f"{moments.n} samples are too few; allowed: {MIN_SAMPLES} or more")
    m2 = moments.m2.numpy()
    z, vary = np.zeros((len(m2), len(m2))), _live(m2, moments.n, dead)
    z[np.ix_(vary, vary)] = _fishers(_correlated(m2, vary))
    return z[np.ix_(live, live)]


def _live(m2: np.ndarray, n: int, dead: float | None) -> np.ndarray:
    """Numbers of the units that vary."""
    variance = np.diagonal(m2) / n
    varying = variance > 0
    cut = DEAD * np.median(variance[varying]) if dead is None and varying.any() else dead or 0.0
    return np.flatnonzero(varying & (variance > cut))


def _correlated(m2: np.ndarray, live: np.ndarray) -> np.ndarray:
    """C, with 0 on the diagonal."""
    spread = np.sqrt(np.diagonal(m2)[live])
    c: np.ndarray = m2[np.ix_(live, live)] / np.outer(spread, spread)
    c = (c + c.T) / 2
    np.fill_diagonal(c, 0.0)
    return c


def _fishers(c: np.ndarray) -> np.ndarray:
    z: np.ndarray = np.arctanh(np.clip(c, -CLIP, CLIP))
    return z
