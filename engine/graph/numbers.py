"""One number for every node that writes, whatever graph holds it.

Nodes stand in one row through all sites in forward order: within a site features by their number in
the dictionary, then the error node; `logits` is the last of all.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from edgesweep.engine.graph.features import ERROR, FeatureGraph


class NodeNumbers:
    """Numbers of all nodes.

    Args:
        sizes: features of every site, in forward order.

    Attributes:
        first: of each site; features follow.
        logits: of the sink, the last number, and so how many nodes write.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = dict(sizes)
        self.first: dict[str, int] = {}
        start = 0
        for site, n_features in self._sizes.items():
            self.first[site] = start
            start += n_features + 1
        self.logits = start

    def name(self, number: int) -> str:
        """The node as people write it: `resid3/f120`, `resid3/err`, `logits`."""
        if number == self.logits:
            return "logits"
        site = max((s for s in self.first if self.first[s] <= number), key=self.first.__getitem__)
        feature = number - self.first[site]
        return f"{site}/err" if feature == self._sizes[site] else f"{site}/f{feature}"

    def by_site(self, nodes: Int[np.ndarray, " nodes"]) -> dict[str, list[int]]:
        """Of nodes, ascending, the features of each site, as `FeatureGraph` takes them."""
        found: dict[str, list[int]] = {}
        for site, n_features in self._sizes.items():
            first = self.first[site]
            mine = nodes[(nodes >= first) & (nodes <= first + n_features)] - first
            found[site] = np.where(mine == n_features, ERROR, mine).tolist()
        return found

    def of(self, graph: FeatureGraph) -> Int[np.ndarray, " sources"]:
        """The number of each of a graph's `sources`."""
        parts = []
        for site, n_features in self._sizes.items():
            features = graph.features(site, errors=True)
            parts.append(self.first[site] + np.where(features == ERROR, n_features, features))
        return np.concatenate(parts)
