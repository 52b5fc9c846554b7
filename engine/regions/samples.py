"""What the features of a site are on inputs, as samples to correlate: a region is of features that
go together.

    of attribution   Attr(f_j(p)), integrated gradients of the metric along the site's own path
                     (`engine.features.nodes`)
    of activation    f_j(p)
    over inputs      summed over positions with sign: one sample an input
    over positions   one sample a real (input, position)

Sites may be put side by side; their partition then falls apart into one for each (`by_site`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.nodes import NodeAttribution
from edgesweep.engine.regions.correlation import RegionError
from edgesweep.engine.regions.graph import NO_REGION, Partitions

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
