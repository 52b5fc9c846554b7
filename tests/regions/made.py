"""Graphs with known blocks, and slow sums."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln


def planted(n: int, n_blocks: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of unit noise about a mean for each pair of blocks, and the blocks."""
    rng, blocks = np.random.default_rng(seed), np.arange(n) * n_blocks // n
    means = rng.normal(size=(n_blocks, n_blocks)) * spread
    z = ((means + means.T) / 2)[blocks][:, blocks] + rng.normal(size=(n, n))
    return np.triu(z, 1) + np.triu(z, 1).T, blocks


def slow_length(z: np.ndarray, blocks: np.ndarray) -> float:
    """The description length, pair of blocks by pair of blocks, as the definition has it."""
    n, b = len(z), int(blocks.max()) + 1
    pairs = z[np.triu_indices(n, 1)]
    m0, v0, k0, nu0 = pairs.mean(), pairs.var(), 1.0, 3.0
    total = np.log(n) + gammaln(n) - gammaln(b) - gammaln(n - b + 1) + gammaln(n + 1)
    total -= gammaln(np.bincount(blocks) + 1).sum()
    for r in range(b):
        for s in range(r, b):
            some = [
                z[i, j]
                for i in range(n)
                for j in range(i + 1, n)
                if sorted((blocks[i], blocks[j])) == [r, s]
            ]
            if not some:
                continue
            x, k = np.array(some), len(some)
            kn, nun = k0 + k, nu0 + k
            vn = nu0 * v0 + ((x - x.mean()) ** 2).sum() + k * k0 / kn * (m0 - x.mean()) ** 2
            total -= (
                gammaln(nun / 2)
                - gammaln(nu0 / 2)
                + 0.5 * np.log(k0 / kn)
                + nu0 / 2 * np.log(nu0 * v0)
                - nun / 2 * np.log(vn)
                - k / 2 * np.log(np.pi)
            )
    return float(total)
