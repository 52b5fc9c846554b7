"""Correlations of units over samples, from moments that fold exactly, as Fisher's z.

A part of the samples is (n, mean, M2 = Σ (x − mean)(x − mean)ᵀ) in float64; two parts are one by
the pairwise update of Chan, Golub and LeVeque (1983), and many in a tree that pairs neighbours, so
that the bits depend on the parts and not on when they came.

    C_ij = M2_ij / √(M2_ii M2_jj)          z_ij = atanh(clip(C_ij, ±(1 − 1e-7))),  z_ii = 0

*Emerging Structures in Computational Graphs* (2024, section 4.2) uses 2·z, which shifts every
description length by the same constant. A unit that does not vary, or less than `dead` times the
median variance of those that do, is dead: it has no correlation and is left out. Units that are
copies of each other (|C| = 1) are clipped, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True)
class CoMoments:
    """Of n samples of d units, float64.

    Attributes:
        mean: `[d]`.
        m2: `[d, d]`, sums of products of what deviates from the mean.
    """

    n: int
    mean: np.ndarray
    m2: np.ndarray

    @classmethod
    def of(cls, samples: np.ndarray) -> CoMoments:
        """Of `[n, d]`, n ≥ 1. Raises RegionError for a value that is not finite."""
        samples = np.asarray(samples, dtype=np.float64)
        if not np.isfinite(samples).all():
            row, unit = np.argwhere(~np.isfinite(samples))[0]
            raise RegionError(f"unit {unit} of sample {row} is {samples[row, unit]}")
        mean = samples.mean(0)
        centred = samples - mean
        return cls(len(samples), mean, centred.T @ centred)

    def merged(self, other: CoMoments) -> CoMoments:
        """Of the samples of both, these first."""
        n, step = self.n + other.n, other.mean - self.mean
        m2 = np.outer(step * (self.n * other.n / n), step)
        m2 += self.m2
        m2 += other.m2
        return CoMoments(n, self.mean + step * (other.n / n), m2)


def fold(parts: Iterable[CoMoments]) -> CoMoments:
    """All parts, in the tree that pairs neighbours; about log2 of them are held at a time.

    Raises:
        RegionError: no parts.
    """
    waiting: list[tuple[int, CoMoments]] = []  # (parts in it, what it is), sizes falling
    for part in parts:
        waiting.append((1, part))
        while len(waiting) > 1 and waiting[-2][0] == waiting[-1][0]:
            (size, left), (_, right) = waiting[-2:]
            waiting[-2:] = [(2 * size, left.merged(right))]
    if not waiting:
        raise RegionError("there are no samples")
    _, whole = waiting.pop()
    while waiting:
        whole = waiting.pop()[1].merged(whole)
    return whole


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


def correlation(moments: CoMoments, dead: float | None = None) -> Correlation:
    """Correlations of the units that live.

    Args:
        dead: variance below which a unit is dead, as published (1e-5); None: `DEAD` of the median
            of those that vary.

    Raises:
        RegionError: fewer than two samples, or fewer than two live units.
    """
    if moments.n < 2:
        raise RegionError(f"{moments.n} sample has no correlations; give two or more")
    variance = np.diagonal(moments.m2) / moments.n
    varying = variance > 0
    cut = DEAD * np.median(variance[varying]) if dead is None and varying.any() else dead or 0.0
    live = np.flatnonzero(varying & (variance > cut))
    if len(live) < 2:
        raise RegionError(
            f"{len(live)} of {len(variance)} units vary over {moments.n} samples; two or more are "
            "needed: give more samples, or another site"
        )
    spread = np.sqrt(np.diagonal(moments.m2)[live])
    c = moments.m2[np.ix_(live, live)] / np.outer(spread, spread)
    c = (c + c.T) / 2
    np.fill_diagonal(c, 0.0)
    n_clipped = int((np.abs(np.triu(c)) > CLIP).sum())
    z = np.arctanh(np.clip(c, -CLIP, CLIP))
    return Correlation(live, z, len(variance) - len(live), n_clipped)
