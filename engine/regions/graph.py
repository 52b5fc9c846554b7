"""Regions of features as the nodes of a graph: a partition of the features of every site.

Region r of a site is the set of its features with that number. What no region holds, features of
none and what the dictionary leaves over, is the site's rest, which stands where a graph over
features has its error node. A value of a node is the vector that it adds to the site's value,

    y_r(p) = Σ_{j∈r} (f_j − f_j,patch)(p) d_j          y_rest(p) = ε(p) − ε_patch(p), and the like

so that x = x_patch + Σ_r y_r (D is affine). Heads are regions of `attn3.z`; a site without regions
is one node, its rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.values import NodeValues
from edgesweep.engine.graph import ERROR, FeatureGraph
from edgesweep.engine.graph.base import Ends
from edgesweep.engine.network.base import Value
from edgesweep.engine.regions.correlation import RegionError

#: in a partition, the region of a feature that is in none
NO_REGION = -1


class PartitionedGraph(FeatureGraph):
    """A graph over regions, rests and the logits; `numbers` are of regions, `ERROR` of rests."""

    word, kind = "roi", "region"
    #: pairs of nodes that the sites allow among all regions and rests that there are, where this is
    #: a graph over some of them
    n_edges_of_all = 0

    @property
    def reach(self) -> Ends:
        """A target is its node: each region is read from a run of its own."""
        return self.ends


@dataclass(frozen=True)
class Partitions:
    """Regions of every site.

    Attributes:
        of: of each site that has regions, the region of each feature, 0, 1, …, or `NO_REGION`.
    """

    features: FeatureModel
    of: Mapping[str, Int[np.ndarray, " features"]]

    def __post_init__(self) -> None:
        for site, of in self.of.items():
            n = self.features.dictionary(site).n_features
            if len(of) != n:
                raise RegionError(f"a partition of {len(of)} features at {site}, which has {n}")
            if sorted({*of.tolist()} - {NO_REGION}) != list(range(int(of.max(initial=-1)) + 1)):
                raise RegionError(f"regions of {site} are not numbered 0, 1, … without a gap")

    def n_regions(self, site: str) -> int:
        """Regions of a site, its rest apart."""
        return int(self.of[site].max(initial=-1)) + 1 if site in self.of else 0

    def has_rest(self, site: str) -> bool:
        """Whether something may be in no region."""
        whole = site in self.of and NO_REGION not in self.of[site]
        return not (whole and self.features.dictionary(site).kind == "identity")

    def nodes(self) -> dict[str, list[int]]:
        """Numbers of every site's nodes, as `FeatureGraph` takes them."""
        return {
            site.name: [*range(self.n_regions(site.name)), *[ERROR] * self.has_rest(site.name)]
            for site in self.features.sites
        }

    def complete(self) -> PartitionedGraph:
        """The graph of all possible edges between them."""
        return PartitionedGraph.complete(self.features.all_parents(), self.nodes())

    def slots(self, site: str) -> Int[Tensor, " features"]:
        """The place of each feature's node among the site's; the rest is the last place."""
        n = self.features.dictionary(site).n_features
        of = self.of.get(site, np.full(n, NO_REGION))
        return torch.as_tensor(np.where(of == NO_REGION, self.n_regions(site), of))

    def n_slots(self, site: str) -> int:
        """Regions and the rest, whether or not that is a node."""
        return self.n_regions(site) + 1

    def vectors(
        self,
        site: str,
        f: Float[Tensor, "*rows features"],
        error: Value,
    ) -> Float[Tensor, "*rows slots width"]:
        """y of each region, and of the rest, from differences of features and of the error."""
        dictionary, slots = self.features.dictionary(site), self.slots(site)
        out = error.new_zeros(*error.shape[:-1], self.n_slots(site), error.shape[-1])
        for number in range(self.n_slots(site)):
            some = (slots == number).nonzero().flatten()
            if len(some):
                out[..., number, :] = f[..., some] @ dictionary.decoder[some]
        out[..., -1, :] += error
        return out

    def differences(
        self, site: str, clean: NodeValues, patch: NodeValues
    ) -> Float[Tensor, "inputs positions slots width"]:
        """y of the nodes of a site in one run, from another."""
        every = torch.arange(self.features.dictionary(site).n_features)
        f = clean.features(site, every) - patch.features(site, every)
        return self.vectors(site, f, clean.error(site) - patch.error(site))


def head_partitions(features: FeatureModel) -> Partitions:
    """Heads as regions of every `attn3.z` among the sites; other sites are whole.

    Raises:
        RegionError: heads in another dictionary than their own coordinates.
    """
    of = {}
    for site in features.sites:
        if not site.name.endswith(".z"):
            continue
        if features.dictionary(site.name).kind != "identity":
            raise RegionError(f"heads of {site.name} are of its coordinates; use identity")
        n_heads = features.model.spec.n_heads  # type: ignore[attr-defined]
        width = features.width(site.name)
        of[site.name] = np.arange(width) // (width // n_heads)
    return Partitions(features, of)
