"""Partitions of a site's features into regions that are nodes (`graph`).

heads     neighbours, as many to each as to the others: the heads of `attn3.z`
random    the same, with the features shuffled
sbm       the shortest weighted block model of Fisher's z (`weighted`) of several chains; where it
          has more blocks than are asked for, they are merged, those first that lengthen it least;
          where it has fewer, these
others    clusterings of the rows of z (`baselines`), into as many as are asked for

Features that do not vary over the samples are in no region of the last two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from edgesweep.engine.bases.moments import Moments
from edgesweep.engine.blockmodel import chain_seeds
from edgesweep.engine.regions.baselines import clustered, shuffled
from edgesweep.engine.regions.correlation import RegionError, correlation
from edgesweep.engine.regions.graph import NO_REGION
from edgesweep.engine.regions.weighted import canonical, fit_blocks, merged_to


@dataclass(frozen=True)
class Wanted:
    """What partition is asked for.

    Attributes:
        how: `heads`, `random`, `sbm`, or one of `baselines.CLUSTERINGS` that reads z alone.
        blocks: how many regions; 0: as many as a block model finds.
        chains: of the block model. seed: of all that is drawn.
    """

    how: str
    blocks: int
    chains: int = 1
    seed: int = 0


def parted(wanted: Wanted, n: int, moments: Moments | None) -> Int[np.ndarray, " features"]:
    """The region of each of `n` features, `NO_REGION` of what is in none.

    Args:
        moments: of what the features are, where the partition hangs on that.

    Raises:
        RegionError: fewer features that vary than regions; no moments where they are needed.
    """
    even = np.arange(n) * wanted.blocks // n
    if wanted.how == "heads":
        return even
    if wanted.how == "random":
        return canonical(shuffled(even, wanted.seed))
    if moments is None:
        raise RegionError(f"partition {wanted.how!r} is of what features are on inputs")
    ties = correlation(moments)
    out = np.full(n, NO_REGION)
    out[ties.live] = _blocks(wanted, ties.z)
    return out


def _blocks(wanted: Wanted, z: np.ndarray) -> np.ndarray:
    """The block of each feature that varies."""
    if wanted.how != "sbm":
        return clustered(wanted.how, z, np.zeros((0, len(z))), wanted.blocks, wanted.seed)
    chains = [fit_blocks(z, seed) for seed in chain_seeds(wanted.seed, wanted.chains)]
    found = min(chains, key=lambda chain: chain.length).blocks
    return merged_to(z, found, wanted.blocks) if wanted.blocks else found
