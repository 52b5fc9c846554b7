"""Partitions of units to compare a block model's with, at an equal number of blocks.

random        the blocks of another partition with their units shuffled, so of the same sizes
singletons    each unit alone
ward          Ward's tree of the rows of Fisher's z
kmeans        k-means of the same rows
spectral      of the graph with weights max(z, 0)
spectral_svd  *Emerging Structures* 4.2, App. A.2: k-means of the first k left singular vectors
              of z over the root of their singular values
cocluster     spectral co-clustering of |attributions|, units by samples (Dhillon 2001), as in
              Lu and Ester 2019
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy.cluster.hierarchy import cut_tree

from edgesweep.engine.regions.correlation import RegionError
from edgesweep.engine.regions.weighted import canonical, ward_tree


def shuffled(blocks: np.ndarray, seed: int) -> np.ndarray:
    """Blocks of the same sizes, of units drawn with the seed."""
    return np.random.default_rng(seed).permutation(blocks)


def clustered(
    how: str, z: np.ndarray, attributions: np.ndarray, n_blocks: int, seed: int
) -> np.ndarray:
    """The block of each unit, `[units]`.

    Args:
        z: Fisher's z of the units, `[units, units]`.
        attributions: of the same units, `[samples, units]`.

    Raises:
        RegionError: a name that is none of `CLUSTERINGS`; more blocks than units.
    """
    if how not in CLUSTERINGS:
        raise RegionError(f"partition is {how!r}; allowed: {', '.join(CLUSTERINGS)}")
    if not 1 <= n_blocks <= len(z):
        raise RegionError(f"{n_blocks} blocks of {len(z)} live units; allowed: 1 to {len(z)}")
    if n_blocks in (1, len(z)):
        return np.arange(len(z)) if n_blocks > 1 else np.zeros(len(z), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of graphs that are not connected, and of few distinct rows
        return canonical(CLUSTERINGS[how](z, attributions, n_blocks, seed))


def _ward(z: np.ndarray, attributions: np.ndarray, k: int, seed: int) -> np.ndarray:
    blocks: np.ndarray = cut_tree(ward_tree(z), k)[:, 0]
    return blocks


def _kmeans(z: np.ndarray, attributions: np.ndarray, k: int, seed: int) -> np.ndarray:
    return _means(z, k, seed)


def _means(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans  # these take a second, for who asks for one

    blocks: np.ndarray = KMeans(k, n_init=10, random_state=seed).fit_predict(rows)
    return blocks


def _spectral(z: np.ndarray, attributions: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import SpectralClustering

    model = SpectralClustering(k, affinity="precomputed", random_state=seed)
    blocks: np.ndarray = model.fit_predict(np.maximum(z, 0))
    return blocks


def _spectral_svd(z: np.ndarray, attributions: np.ndarray, k: int, seed: int) -> np.ndarray:
    u, s, _ = np.linalg.svd(z)
    return _means(u[:, :k] / np.sqrt(np.maximum(s[:k], np.finfo(float).tiny)), k, seed)


def _cocluster(z: np.ndarray, attributions: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import SpectralCoclustering

    table = np.abs(attributions)
    table = table[table.sum(1) > 0]  # a sample that says nothing has no place in the graph
    model = SpectralCoclustering(k, random_state=seed).fit(table.T)
    blocks: np.ndarray = model.row_labels_
    return blocks


CLUSTERINGS: dict[str, Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]] = {
    "ward": _ward,
    "kmeans": _kmeans,
    "spectral": _spectral,
    "spectral_svd": _spectral_svd,
    "cocluster": _cocluster,
}
