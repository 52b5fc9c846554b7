"""Attribution of regions: nodes, and edges between them by one cotangent a (region, position).

Node    Attr(r) = Σ_{j∈r} Attr(f_j): integrated gradients along the site's joint path add up, so it
        is Σ_p ⟨y_r(p), ḡ(p)⟩ (`graph`, `engine.features.nodes`).
Edge    w(r, r′) = Σ_{i∈r, j∈r′} w(i, j), edges of features in units of the metric
        (`engine.features.edges`, target "attribution"). The cotangent of (r′, p) is one vector,
        Σ_{j∈r′} ⟨d_j, ḡ(p)⟩ slope_j e_j, and what it is pulled back to is multiplied by y_r: a
        backward a region and position, where features take one each.

Where parents only add to a stream, it is pulled back to that alone, once for all (`inflow`).

A region has no value of its own, so `target: value` is refused. tests/regions/test_graph.py pins
both sums to those of features, and nodes to the heads of a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edges import EdgeSettings, target_rows
from edgesweep.engine.features.nodes import NodeAttribution
from edgesweep.engine.features.targets import AlongPath, AttributedTargets, LogitsTarget
from edgesweep.engine.methods.base import MethodError
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.network.base import LOGITS
from edgesweep.engine.regions.graph import PartitionedGraph, Partitions
from edgesweep.engine.regions.inflow import Inflow, Joined, Moved, first_moved, met

#: (region, position) cotangents of one target site, by position
Table = Float[Tensor, "targets steps width"]


@dataclass(frozen=True)
class RegionEdges:
    """Edges of a batch.

    Attributes:
        weights: of the complete graph, `[inputs, edges]`.
        residual: the largest |Σ weights − change| of the targets of each target site, logits last;
            a target's change is what its features' change is worth, from patch to clean parents.
        scale: the largest |change| there.
    """

    weights: Float[np.ndarray, "inputs edges"]
    residual: Float[np.ndarray, "inputs sites"]
    scale: Float[np.ndarray, "inputs sites"]


@torch.no_grad()
def region_scores(
    regions: Partitions, ends: FeatureBatch, nodes: NodeAttribution
) -> Float[np.ndarray, "inputs nodes"]:
    """Attr of every node but the logits, in the order of `Partitions.complete`."""
    found = []
    for site, gradient in nodes.gradients.items():
        y = regions.differences(site, ends.clean, ends.patch)
        scores = torch.einsum("ipsw,ipw->is", y.double(), gradient.double())
        found.append(scores if regions.has_rest(site) else scores[:, :-1])
    return torch.cat(found, 1).cpu().numpy()


@torch.no_grad()
def region_edges(
    regions: Partitions,
    graph: PartitionedGraph,
    ends: FeatureBatch,
    nodes: NodeAttribution,
    metric: str,
    settings: EdgeSettings,
) -> RegionEdges:
    """All edges of the complete graph, summed over positions.

    Args:
        nodes: ḡ of every site, by the same metric.

    Raises:
        MethodError: a target that regions do not have.
    """
    if settings.target != "attribution":
        raise MethodError(
            f"target {settings.target!r} is of single features; allowed for regions: attribution"
        )
    n, sites = len(ends.batch), len(graph.blocks)
    out = RegionEdges(np.zeros((n, graph.n_edges)), np.zeros((n, sites)), np.zeros((n, sites)))
    moved = Moved.of(regions, ends)
    joined = Joined(ends.features, ends.inputs, ends.patch)
    for number in range(n):
        into = _Into(regions, ends, nodes, metric, settings, Inflow(moved, joined, number))
        for place, block in enumerate(graph.blocks):
            found, change = into.edges(block.site)
            # edges of a complete graph are by target, then by source
            out.weights[number, block.edges] = found.cpu().numpy().ravel()
            out.residual[number, place] = float((found.sum(1) - change).abs().max())
            out.scale[number, place] = float(change.abs().max())
    return out


@dataclass(frozen=True)
class _Into:
    """Edges of one input."""

    regions: Partitions
    ends: FeatureBatch
    nodes: NodeAttribution
    metric: str
    settings: EdgeSettings
    inflow: Inflow

    def edges(
        self, target: str
    ) -> tuple[Float[Tensor, "targets sources"], Float[Tensor, " targets"]]:
        """Weights of all edges into one site, and the change of each of its nodes."""
        how, ends, regions = self.settings, self.ends, self.regions
        ts, weights = ends.inputs.embed.new_tensor(points(how.rule, how.steps)).unbind(1)
        sources = self.inflow.nodes(target)
        n_rows = 1 if target == LOGITS else regions.n_slots(target) - (not regions.has_rest(target))
        out = ts.new_zeros(n_rows, sum(y.shape[1] for y in sources.values()))
        first = first_moved(sources)
        if first is None:
            return out, out.new_zeros(n_rows)
        slopes = self.inflow.slopes(target, sources, ts, first)
        cotangents, position, row, change = self._cotangents(
            target, AlongPath(slopes.x, self.inflow.start(target)), first * slopes.causal
        )
        rows = target_rows(ends, how.micro_bytes)[1]
        for some in torch.arange(len(row)).split(max(1, rows // len(ts))):
            pulled = slopes.pull(cotangents[some] * weights[:, None], position[some], rows)
            parts = [met(pulled[name], position[some], y) for name, y in sources.items()]
            out.index_add_(0, row[some], torch.cat(parts, 1).to(out))
        return out, change[:n_rows]

    def _cotangents(
        self, target: str, along: AlongPath, first: int
    ) -> tuple[Table, Int[Tensor, " targets"], Int[Tensor, " targets"], Float[Tensor, " slots"]]:
        """Cotangents from a position on that are not 0, by position; the position of each and its
        node's place; the change of each node."""
        ends, regions, number = self.ends, self.regions, self.inflow.number
        wanted = ends.inputs.real[number].nonzero().flatten()
        wanted = wanted[wanted >= first]
        if target == LOGITS:
            start = ends.objective(self.metric, wanted.new_full((1,), number))(along.start[None])
            sink = LogitsTarget(ends, self.metric, number, along.x, start, wanted)
            every = torch.arange(len(sink.node))
            return sink.cotangents(every), sink.position, sink.node, sink.change(every)
        site = next(s for s in ends.features.sites if s.name == target)
        gradient = self.nodes.gradients[target][number]
        of = AttributedTargets(ends, site, number, along, gradient, wanted)
        slots = torch.cat([regions.slots(target), torch.tensor([regions.n_regions(target)])])
        n = regions.n_slots(target)
        place = of.position * n + slots[of.node]
        table = along.x.new_zeros(along.x.shape[1] * n, *along.x.shape[::2])
        change = along.x.new_zeros(n)
        for some in _by_position(of.position):
            factor = of.factor(some)
            table.index_add_(0, place[some], of.cotangents(some) * factor[:, None, None])
            change.index_add_(0, slots[of.node[some]], of.change(some) * factor)
        kept = table.flatten(1).any(1).nonzero().flatten()
        return table[kept], kept // n, kept % n, change


def _by_position(position: Int[Tensor, " targets"]) -> Iterator[Int[Tensor, " some"]]:
    for p in position.unique():
        yield (position == p).nonzero().flatten()
