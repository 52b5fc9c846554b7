"""Correlations of units over samples, from moments that fold exactly, as Fisher's z.

Parts of the samples are moments, of which M2 = Σ (x − mean)(x − mean)ᵀ (`engine.bases.moments`).

    C_ij = M2_ij / √(M2_ii M2_jj)          z_ij = atanh(clip(C_ij, ±(1 − 1e-7))),  z_ii = 0

*Emerging Structures in Computational Graphs* (2024, section 4.2) uses 2·z, which shifts every
description length by the same constant. A unit that does not vary, or less than `dead` times the
median variance of those that do, is dead: it has no correlation and is left out. Units that are
copies of each other (|C| = 1) are clipped, and counted.
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
    variance = np.diagonal(m2) / moments.n
    varying = variance > 0
    cut = DEAD * np.median(variance[varying]) if dead is None and varying.any() else dead or 0.0
    live = np.flatnonzero(varying & (variance > cut))
    if len(live) < 2:
        raise RegionError(
            f"{len(live)} of {len(variance)} units vary over {moments.n} samples; two or more are "
            "needed: give more samples, or another site"
        )
    spread = np.sqrt(np.diagonal(m2)[live])
    c = m2[np.ix_(live, live)] / np.outer(spread, spread)
    c = (c + c.T) / 2
    np.fill_diagonal(c, 0.0)
    n_clipped = int((np.abs(np.triu(c)) > CLIP).sum())
    z = np.arctanh(np.clip(c, -CLIP, CLIP))
    return Correlation(live, z, len(variance) - len(live), n_clipped)
