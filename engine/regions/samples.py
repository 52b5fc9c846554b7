"""What the features of a site are on inputs, as samples to correlate, and the regions of features
that go together.

    of attribution   Attr(f_j(p)), integrated gradients of the metric along the site's own path
                     (`engine.features.nodes`)
    of activation    f_j(p)
    over inputs      summed over positions with sign: one sample an input
    over positions   one sample a real (input, position)

Sites may be put side by side; their partition then falls apart into one for each (`by_site`).

    heads            neighbours, as many to each as to the others: the heads of `attn3.z`
    random           the same, with the features shuffled
    sbm              the shortest weighted block model of Fisher's z (`weighted`) of several chains;
                     where it has more blocks than are asked for, they are merged, those first that
                     lengthen it least; where it has fewer, these
    others           clusterings of the rows of z (`baselines`), into as many as are asked for

Features that do not vary over the samples are in no region of the last two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.bases.moments import Moments
from edgesweep.engine.blockmodel import chain_seeds
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.nodes import NodeAttribution
from edgesweep.engine.regions.baselines import clustered, shuffled
from edgesweep.engine.regions.correlation import RegionError, correlation
from edgesweep.engine.regions.graph import NO_REGION, Partitions
from edgesweep.engine.regions.weighted import canonical, fit_blocks, merged_to

OF, OVER = ("attribution", "activation"), ("inputs", "positions")


@torch.no_grad()
def samples(
    ends: FeatureBatch,
    nodes: NodeAttribution | None,
    sites: Sequence[str],
    *,
    of: str = "attribution",
    over: str = "inputs",
) -> Float[np.ndarray, "samples units"]:
    """Of all features of some sites, float64.

    Args:
        nodes: ḡ of the sites; None for activations.

    Raises:
        RegionError: a word that is none of `OF` or `OVER`; attributions without ḡ.
    """
    for name, word, allowed in (("of", of, OF), ("over", over, OVER)):
        if word not in allowed:
            raise RegionError(f"{name} is {word!r}; allowed: {', '.join(allowed)}")
    if of == "attribution" and nodes is None:
        raise RegionError("attributions need the gradients of their sites (attribute_nodes)")
    table = torch.cat([_of_site(ends, nodes, site, of) for site in sites], -1)
    real = ends.inputs.real
    summed = (table * real[..., None]).sum(1)
    return (summed if over == "inputs" else table[real]).cpu().numpy()


def _of_site(
    ends: FeatureBatch, nodes: NodeAttribution | None, site: str, of: str
) -> Float[Tensor, "inputs positions features"]:
    dictionary = ends.features.dictionary(site)
    every = torch.arange(dictionary.n_features)
    clean = ends.clean.features(site, every).double()
    if of == "activation" or nodes is None:
        return clean
    along = nodes.gradients[site] @ dictionary.decoder.T
    return (clean - ends.patch.features(site, every)) * along


def by_site(
    features: FeatureModel, sites: Sequence[str], blocks: Int[np.ndarray, " units"]
) -> Partitions:
    """One partition of the features of several sites, as one of each; `NO_REGION` stays apart."""
    widths = [features.dictionary(site).n_features for site in sites]
    if len(blocks) != sum(widths):
        raise RegionError(f"{len(blocks)} blocks of {sum(widths)} features at {', '.join(sites)}")
    parts = np.split(blocks, np.cumsum(widths)[:-1])
    return Partitions(features, {s: _numbered(part) for s, part in zip(sites, parts, strict=True)})


def _numbered(of: Int[np.ndarray, " features"]) -> Int[np.ndarray, " features"]:
    """Without gaps, in the order of the numbers; `NO_REGION` apart."""
    held = of != NO_REGION
    out = np.full(len(of), NO_REGION)
    out[held] = np.unique(of[held], return_inverse=True)[1]
    return out


class TooFewVary(RegionError):
    """More regions are asked for than there are features that vary."""

    def __init__(self, blocks: int, live: int, n: int) -> None:
        super().__init__(
            f"{blocks} of {live} features that vary ({n - live} of {n} do not); allowed: 1 to "
            f"{live}"
        )


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
        TooFewVary: fewer features that vary than regions.
        RegionError: no moments where they are needed.
    """
    even = np.arange(n) * wanted.blocks // n
    if wanted.how == "heads":
        return even
    if wanted.how == "random":
        return canonical(shuffled(even, wanted.seed))
    if moments is None:
        raise RegionError(f"partition {wanted.how!r} is of what features are on inputs")
    ties = correlation(moments)
    if wanted.how != "sbm" and wanted.blocks > len(ties.live):
        raise TooFewVary(wanted.blocks, len(ties.live), n)
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
