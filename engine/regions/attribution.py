"""Attribution of regions: nodes, and edges between them by one cotangent a (region, position).

Node    Attr(r) = Σ_{j∈r} Attr(f_j): integrated gradients along the site's joint path add up, so it
        is Σ_p ⟨y_r(p), ḡ(p)⟩ (`graph`, `engine.features.nodes`).
Edge    w(r, r′) = Σ_{i∈r, j∈r′} w(i, j), edges of features in units of the metric
        (`engine.features.edges`, target "attribution"). The cotangent of (r′, p) is one vector,
        Σ_{j∈r′} ⟨d_j, ḡ(p)⟩ slope_j e_j, and what it is pulled back to is multiplied by y_r: a
        backward a region and position, where features take one each.

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
from edgesweep.engine.network.base import LOGITS, Pulled
from edgesweep.engine.regions.graph import PartitionedGraph, Partitions

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
    every = {site.name: _moved(regions, ends, site.name) for site in ends.features.sites}
    for number in range(len(ends.batch)):
        moved = {site: y[number] for site, y in every.items()}
        for place, block in enumerate(graph.blocks):
            found, change = _into(regions, ends, nodes, metric, settings, number, block.site, moved)
            # edges of a complete graph are by target, then by source
            out.weights[number, block.edges] = found.cpu().numpy().ravel()
            out.residual[number, place] = float((found.sum(1) - change).abs().max())
            out.scale[number, place] = float(change.abs().max())
    return out


def _moved(
    regions: Partitions, ends: FeatureBatch, site: str
) -> Float[Tensor, "inputs positions slots width"]:
    """y of the nodes; a rest that is no node has none."""
    y = regions.differences(site, ends.clean, ends.patch)
    y = y if regions.has_rest(site) else y[..., :-1, :]
    return y * ends.inputs.real[..., None, None]


def _into(
    regions: Partitions,
    ends: FeatureBatch,
    nodes: NodeAttribution,
    metric: str,
    settings: EdgeSettings,
    number: int,
    target: str,
    moved: dict[str, Float[Tensor, "positions slots width"]],
) -> tuple[Float[Tensor, "targets sources"], Float[Tensor, " targets"]]:
    """Weights of all edges into one site of one input, and the change of each of its nodes."""
    features = ends.features
    ts, weights = ends.inputs.embed.new_tensor(points(settings.rule, settings.steps)).unbind(1)
    parents = [p.name for p in features.parents(target)]
    values = {name: ends.path(name, ts, number) for name in parents}
    slopes = features.pull_back(target, values, ends.inputs, number)
    which = torch.full((1,), number)
    start = features.segment(
        target, {p: ends.patch.values(p)[which] for p in parents}, ends.inputs, which
    )
    cotangents, position, row, change = _cotangents(
        regions, ends, nodes, metric, number, target, AlongPath(slopes.x, start[0])
    )
    n_rows = 1 if target == LOGITS else regions.n_slots(target) - (not regions.has_rest(target))
    out = cotangents.new_zeros(n_rows, sum(moved[p].shape[1] for p in parents))
    rows = target_rows(ends, settings.micro_bytes)[1]
    for some in torch.arange(len(row)).split(max(1, rows // len(ts))):
        pulled = slopes.pull(cotangents[some] * weights[:, None], position[some], rows)
        parts = [_met(pulled[p], position[some], moved[p]) for p in parents]
        out.index_add_(0, row[some], torch.cat(parts, 1).to(out))
    return out, change[:n_rows]


def _met(
    pulled: Pulled, position: Int[Tensor, " targets"], y: Float[Tensor, "positions slots width"]
) -> Float[Tensor, "targets slots"]:
    """What each target gets from each node of a parent."""
    found = torch.einsum("tw,tsw->ts", pulled.at, y[position])
    if pulled.before is not None:
        found = found + pulled.before.flatten(1) @ y.transpose(1, 2).flatten(0, 1)
    return found


def _cotangents(
    regions: Partitions,
    ends: FeatureBatch,
    nodes: NodeAttribution,
    metric: str,
    number: int,
    target: str,
    along: AlongPath,
) -> tuple[Table, Int[Tensor, " targets"], Int[Tensor, " targets"], Float[Tensor, " slots"]]:
    """Cotangents that are not 0, by position; the position of each and its node's place; the change
    of each node."""
    wanted = ends.inputs.real[number].nonzero().flatten()
    if target == LOGITS:
        start = ends.objective(metric, wanted.new_full((1,), number))(along.start[None])
        sink = LogitsTarget(ends, metric, number, along.x, start, wanted)
        every = torch.arange(len(sink.node))
        return sink.cotangents(every), sink.position, sink.node, sink.change(every)
    site = next(s for s in ends.features.sites if s.name == target)
    gradient = nodes.gradients[target][number]
    of = AttributedTargets(ends, site, number, along, gradient, wanted)
    slots = torch.cat([regions.slots(target), torch.tensor([regions.n_regions(target)])])
    place = of.position * regions.n_slots(target) + slots[of.node]
    table = along.x.new_zeros(along.x.shape[1] * regions.n_slots(target), *along.x.shape[::2])
    change = along.x.new_zeros(regions.n_slots(target))
    for some in _by_position(of.position):
        factor = of.factor(some)
        table.index_add_(0, place[some], of.cotangents(some) * factor[:, None, None])
        change.index_add_(0, slots[of.node[some]], of.change(some) * factor)
    kept = table.flatten(1).any(1).nonzero().flatten()
    return table[kept], kept // regions.n_slots(target), kept % regions.n_slots(target), change


def _by_position(position: Int[Tensor, " targets"]) -> Iterator[Int[Tensor, " some"]]:
    for p in position.unique():
        yield (position == p).nonzero().flatten()
