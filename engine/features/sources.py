"""What edges start at: the nodes of a parent that differ between clean and patch, by position.

The contribution of a node to a target whose cotangent at its site is G is ⟨y(q), G(q)⟩, with
y(q) = (f_clean − f_patch)(q) d of a feature and (ε_clean − ε_patch)(q) of the error node. Decoder
rows are gathered position by position, for the few features that moved there.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.network.base import Pulled


class Sources:
    """The moved nodes of one site, for one input.

    Args:
        contracted: sum over positions; else a node has a column for each position.
        causal: no target reads later positions.

    Attributes:
        site: their site's name.
        node: number of each column in the site; the error's is the number of features.
        position: of each column; None where they are summed.
        first: the first position where something moved; None: nothing did.
    """

    def __init__(self, ends: FeatureBatch, site: str, number: int, *, contracted: bool) -> None:
        self.site, self._dictionary = site, ends.features.dictionary(site)
        active = ends.active[site].of_input(number)
        delta = active.clean - active.patch
        moved = delta.nonzero().flatten()
        error = ends.clean.error(site)[number] - ends.patch.error(site)[number]
        places = (error.any(-1) & ends.inputs.real[number]).nonzero().flatten()
        node = torch.cat([active.feature[moved], places * 0 + self._dictionary.n_features])
        position = torch.cat([active.position[moved], places])
        # at a position, features come in order and the error last
        order = torch.argsort(position, stable=True)
        self._node, self._place = node[order], position[order]
        self._delta = torch.cat([delta[moved], delta.new_zeros(len(places))])[order]
        self._error = error
        if contracted:
            self.node, self._column = torch.unique(self._node, return_inverse=True)
        else:
            self.node, self._column = self._node, torch.arange(len(order), device=order.device)
        self.position = None if contracted else self._place
        self.first = int(self._place[0]) if len(order) else None

    def contract(
        self, pulled: Pulled, position: Int[Tensor, " targets"], *, causal: bool
    ) -> Float[Tensor, "targets sources"]:
        """Contributions to targets at these positions, ascending."""
        wide = torch.promote_types(pulled.at.dtype, torch.float32)  # half loses in long sums
        out = pulled.at.new_zeros(len(position), len(self.node), dtype=wide)
        places, counts = torch.unique_consecutive(self._place, return_counts=True)
        ends = counts.cumsum(0).tolist()
        first = torch.searchsorted(position, places).tolist()
        last = torch.searchsorted(position, places, right=True).tolist()
        for i, q in enumerate(places.tolist()):
            some = slice(ends[i] - int(counts[i]), ends[i])
            vectors, columns = self._vectors(some, q), self._column[some]
            here = slice(first[i], last[i])
            out[here, columns] += pulled.at[here] @ vectors.T
            if pulled.before is not None:
                rows = slice(first[i] if causal else 0, len(position))
                out[rows, columns] += pulled.before[rows, q] @ vectors.T
        return out

    def _vectors(self, some: slice, q: int) -> Float[Tensor, "sources width"]:
        """y of the sources at one position."""
        node, n_features = self._node[some], self._dictionary.n_features
        is_error = bool(node[-1] == n_features)
        features = node[:-1] if is_error else node
        delta = self._delta[some][: len(features)]
        vectors = self._dictionary.decoder[features] * delta[:, None]
        return torch.cat([vectors, self._error[q][None]]) if is_error else vectors
