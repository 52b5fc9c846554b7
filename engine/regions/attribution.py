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

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edges import EdgeSettings, target_rows
from edgesweep.engine.features.nodes import NodeAttribution
from edgesweep.engine.features.targets import LogitsTarget
from edgesweep.engine.methods.base import MethodError
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.network.base import LOGITS, Pulled
from edgesweep.engine.regions.graph import PartitionedGraph, Partitions

#: (region, position) cotangents of one target site, by position
Table = Float[Tensor, "targets steps width"]


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
) -> Float[np.ndarray, "inputs edges"]:
    """Weights of all edges of the complete graph, summed over positions.

    Args:
        nodes: ḡ of every site, by the same metric.

    Raises:
        MethodError: a target that regions do not have.
    """
    if settings.target != "attribution":
        raise MethodError(
            f"target {settings.target!r} is of single features; allowed for regions: attribution"
        )
    out = np.zeros((len(ends.batch), graph.n_edges))
    every = {site.name: _moved(regions, ends, site.name) for site in ends.features.sites}
    for number in range(len(ends.batch)):
        moved = {site: y[number] for site, y in every.items()}
        for block in graph.blocks:
            found = _into(regions, ends, nodes, metric, settings, number, block.site, moved)
            # edges of a complete graph are by target, then by source
            out[number, block.edges] = found.cpu().numpy().ravel()
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
) -> Float[Tensor, "targets sources"]:
    """Weights of all edges into one site of one input."""
    features = ends.features
    ts, weights = ends.inputs.embed.new_tensor(points(settings.rule, settings.steps)).unbind(1)
    parents = [p.name for p in features.parents(target)]
    values = {name: ends.path(name, ts, number) for name in parents}
    slopes = features.pull_back(target, values, ends.inputs, number)
    if target == LOGITS:
        cotangents, position, row = _of_logits(ends, metric, number, slopes.x)
    else:
        gradient = nodes.gradients[target][number]
        cotangents, position, row = _of_regions(regions, ends, gradient, number, target, slopes.x)
    n_rows = 1 if target == LOGITS else regions.n_slots(target) - (not regions.has_rest(target))
    out = cotangents.new_zeros(n_rows, sum(moved[p].shape[1] for p in parents))
    rows = target_rows(ends, settings.micro_bytes)[1]
    for some in torch.arange(len(row)).split(max(1, rows // len(ts))):
        pulled = slopes.pull(cotangents[some] * weights[:, None], position[some], rows)
        parts = [_met(pulled[p], position[some], moved[p]) for p in parents]
        out.index_add_(0, row[some], torch.cat(parts, 1).to(out))
    return out


def _met(
    pulled: Pulled, position: Int[Tensor, " targets"], y: Float[Tensor, "positions slots width"]
) -> Float[Tensor, "targets slots"]:
    """What each target gets from each node of a parent."""
    found = torch.einsum("tw,tsw->ts", pulled.at, y[position])
    if pulled.before is not None:
        found = found + pulled.before.flatten(1) @ y.transpose(1, 2).flatten(0, 1)
    return found


def _of_logits(
    ends: FeatureBatch, metric: str, number: int, x: Float[Tensor, "steps positions width"]
) -> tuple[Table, Int[Tensor, " targets"], Int[Tensor, " targets"]]:
    """The metric's cotangent at the read position, which is a table of one."""
    wanted = ends.inputs.real[number].nonzero().flatten()
    # by how much the metric changes is not asked for
    sink = LogitsTarget(ends, metric, number, x, x.new_zeros(1), wanted)
    return sink.cotangents(torch.arange(len(sink.node))), sink.position, sink.node


def _of_regions(
    regions: Partitions,
    ends: FeatureBatch,
    gradient: Float[Tensor, "positions width"],
    number: int,
    target: str,
    x: Float[Tensor, "steps positions width"],
) -> tuple[Table, Int[Tensor, " targets"], Int[Tensor, " targets"]]:
    """Cotangents that are not 0, by position; the position of each and its node's place."""
    dictionary, slots = ends.features.dictionary(target), regions.slots(target)
    active = ends.active[target].of_input(number)
    moved = torch.zeros(x.shape[1], dictionary.n_features, dtype=torch.bool)
    moved[active.position, active.feature] = active.clean != active.patch
    along = dictionary.slopes(x) * (gradient @ dictionary.decoder.T)
    table = x.new_zeros(x.shape[1], regions.n_slots(target), *x.shape[::2])
    for slot in range(regions.n_slots(target)):
        some = (slots == slot).nonzero().flatten()
        of_slot = (along[..., some] * moved[:, some]) @ dictionary.directions(some)
        table[:, slot] = of_slot.transpose(0, 1)
    error = gradient - along @ dictionary.directions(torch.arange(dictionary.n_features))
    table[:, -1] += error.transpose(0, 1)
    table[~ends.inputs.real[number]] = 0
    kept = table.flatten(2).any(-1).nonzero()
    return table[tuple(kept.T)], kept[:, 0], kept[:, 1]
