"""Edge attribution between features: what every active target gets from every upstream node.

For one input and one target site (or the logits), with t from patch to clean:

1. All parents s move jointly, x_s(t) = x_s,patch + t (x_s,clean − x_s,patch), and only the targets
   see them (Dhimoïla 2024, section 5.2). Forward values are shared by all targets.
2. A target at position p is a cotangent of the site's value at p (`engine.features.targets`).
3. It is pulled back to its parents, G_s(q) = Σ_k w_k ∂target/∂x_s(q) at t_k
   (`Network.pull_back`).
4. An active feature (i, q) of s contributes (f_i,clean − f_i,patch)(q) ⟨d_i, G_s(q)⟩, the error
   node ⟨(ε_clean − ε_patch)(q), G_s(q)⟩: products of G with the few vectors that moved.
5. The contributions to a target, times its factor, are its edges' weights, in the units that
   `target` asks for; both are summed over source and target positions, per input.

Contributions to a target sum to its change from patch parents to clean ones, up to the quadrature;
what is missing is the residual. Where no parent has moved at or before a position nothing is
computed. No table is larger than micro-batch of targets × active sources of one site. Pinned by
tests/features/test_edge_attribution.py to one autograd call a target.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.features.ablation.setting import MICRO_BYTES
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.edgelist import EdgeList, InputEdges
from edgesweep.engine.features.nodes import NodeAttribution
from edgesweep.engine.features.sources import Sources
from edgesweep.engine.features.targets import (
    AlongPath,
    AttributedTargets,
    LogitsTarget,
    MetricTargets,
    SiteTargets,
    Targets,
)
from edgesweep.engine.methods.base import MethodError
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.network.base import LOGITS
from edgesweep.engine.network.pullback import groups

TARGETS = ("attribution", "value", "metric")


@dataclass(frozen=True)
class EdgeSettings:
    """How edges are attributed.

    Attributes:
        steps, rule: of the quadrature.
        target: one of `TARGETS`, what an edge's weight is of (see `targets`).
        contracted: sum over positions.
        keep: the most edges of an input; None: all.
        micro_bytes: what one micro-batch of (target, step) rows may take.
    """

    steps: int = 5
    rule: str = "midpoint"
    target: str = "attribution"
    contracted: bool = True
    keep: int | None = None
    micro_bytes: int = MICRO_BYTES


@dataclass(frozen=True)
class FeatureEdges:
    """Edges of a batch.

    Attributes:
        inputs: of each input.
        residual: the largest |Σ raw − change of the target| of each target site, logits last.
        scale: the largest |change of the target| there.
        n_targets: (node, position) targets of each that were attributed.
    """

    inputs: list[InputEdges]
    residual: Float[np.ndarray, "inputs sites"]
    scale: Float[np.ndarray, "inputs sites"]
    n_targets: Int[np.ndarray, "inputs sites"]

    def note(self, part: "Completeness", number: int, column: int) -> None:
        """Take in some targets of one site of one input."""
        at = (number, column)
        self.n_targets[at] += len(part.missed)
        self.residual[at] = max(self.residual[at], float(part.missed.abs().max()))
        self.scale[at] = max(self.scale[at], float(part.change.abs().max()))


@dataclass(frozen=True)
class Contributions:
    """Raw weights between some targets of a site and all moved nodes of one of its parents.

    Attributes:
        target, parent: names; nodes are numbered within their sites.
        node, position: of each target.
        source, source_position: of each source; no positions where they are summed.
        values: in units of the target.
        factor: what takes them to those of the weights.
    """

    target: str
    parent: str
    node: Int[Tensor, " targets"]
    position: Int[Tensor, " targets"]
    source: Int[Tensor, " sources"]
    source_position: Int[Tensor, " sources"] | None
    values: Float[Tensor, "targets sources"]
    factor: Float[Tensor, " targets"]


@dataclass(frozen=True)
class Completeness:
    """How far the contributions to some targets of a site miss their change, and the change."""

    missed: Float[Tensor, " targets"]
    change: Float[Tensor, " targets"]


def attribute_edges(
    ends: FeatureBatch,
    nodes: NodeAttribution,
    metric: str,
    settings: EdgeSettings,
    positions: range | None = None,
) -> FeatureEdges:
    """Edges of every input.

    Args:
        nodes: ḡ of every site, by the same metric.
        positions: target positions, counted over each input's real tokens; None: all. Results of
            ranges that make up the whole add up to its own, as long as nothing is capped.

    Raises:
        MethodError: an unknown kind of target, or quadrature.
    """
    if settings.target not in TARGETS:
        raise MethodError(f"target {settings.target!r} is none of {', '.join(TARGETS)}")
    names = [site.name for site in ends.features.sites[1:]] + [LOGITS]
    shape = (len(ends.batch), len(names))
    found = FeatureEdges([], np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int64))
    n_positions = 1 if settings.contracted else ends.inputs.embed.shape[1]
    for i in range(len(ends.batch)):
        edges = EdgeList(ends.numbers.logits + 1, n_positions, settings.keep)
        for column, target in enumerate(names):
            for part in contributions(ends, nodes, metric, settings, i, target, positions):
                if isinstance(part, Contributions):
                    _list(ends, part, edges)
                else:
                    found.note(part, i, column)
        found.inputs.append(edges.result())
    return found


@torch.no_grad()
def contributions(
    ends: FeatureBatch,
    nodes: NodeAttribution,
    metric: str,
    settings: EdgeSettings,
    number: int,
    target: str,
    positions: range | None = None,
) -> Iterator[Contributions | Completeness]:
    """Raw weights of all edges into one site of one input, some targets at a time; after each lot
    of targets, what they miss."""
    ts, weights = ends.inputs.embed.new_tensor(points(settings.rule, settings.steps)).unbind(1)
    parents = [p.name for p in ends.features.parents(target)]
    sources = [Sources(ends, p, number, contracted=settings.contracted) for p in parents]
    first = min((s.first for s in sources if s.first is not None), default=None)
    if first is None:
        return
    values = {name: ends.path(name, ts, number) for name in parents}
    slopes = ends.features.pull_back(target, values, ends.inputs, number, first)
    wanted = _wanted(ends, number, positions, first if slopes.causal else 0)
    targets = _targets(ends, nodes, metric, settings, number, target, slopes.x, wanted)
    sparse, dense = target_rows(ends, settings.micro_bytes)
    for some in _lots(targets.node, max(1, sparse // len(ts))):
        some = some[torch.argsort(targets.position[some], stable=True)]
        node, position = targets.node[some], targets.position[some]
        cotangents = targets.cotangents(some) * weights[:, None]
        pulled = slopes.pull(cotangents, position, dense)
        factor, total = targets.factor(some), torch.zeros_like(cotangents[:, 0, 0])
        for of in sources:
            raw = of.contract(pulled[of.site], position, causal=slopes.causal)
            total += raw.sum(1)
            yield Contributions(target, of.site, node, position, of.node, of.position, raw, factor)
        change = targets.change(some)
        yield Completeness(total - change, change)


def _wanted(
    ends: FeatureBatch, number: int, positions: range | None, first: int
) -> Int[Tensor, " positions"]:
    """Target positions in the batch: real, within the range, and none before `first`."""
    real = ends.inputs.real[number].nonzero().flatten()
    if positions is not None:
        real = real[positions.start : positions.stop]
    return real[real >= first]


def _targets(
    ends: FeatureBatch,
    nodes: NodeAttribution,
    metric: str,
    settings: EdgeSettings,
    number: int,
    target: str,
    x: Float[Tensor, "steps positions width"],
    wanted: Int[Tensor, " wanted"],
) -> Targets:
    """The targets of a site at these positions, from its values along the path."""
    which = wanted.new_full((1,), number)
    parents = ends.features.parents(target)
    patched = {p.name: ends.patch.values(p.name)[which] for p in parents}
    start = ends.features.segment(target, patched, ends.inputs, which)
    if target == LOGITS:
        value = ends.objective(metric, which)(start)
        return LogitsTarget(ends, metric, number, x, value, wanted)
    site = next(s for s in ends.features.sites if s.name == target)
    gradient = nodes.gradients[target][number]
    kind = AttributedTargets if settings.target == "attribution" else SiteTargets
    found = kind(ends, site, number, AlongPath(x, start[0]), gradient, wanted)
    if settings.target != "metric":
        return found
    rows = target_rows(ends, settings.micro_bytes)[1]
    return MetricTargets(found, ends, metric, site, number, rows)


def _lots(node: Int[Tensor, " targets"], size: int) -> Iterator[Int[Tensor, " some"]]:
    """Targets, ascending by node, in lots of about `size` that never part a node's positions."""
    counts = torch.unique_consecutive(node, return_counts=True)[1].tolist()
    first = last = 0
    for count in counts:
        if last > first and last + count - first > size:
            yield torch.arange(first, last, device=node.device)
            first = last
        last += count
    if last > first:
        yield torch.arange(first, last, device=node.device)


def target_rows(ends: FeatureBatch, micro_bytes: int) -> tuple[int, int]:
    """(target, step) rows that fit into so many bytes: where a row is at one position in the top
    layer and spread over positions at its end, and where a layer holds it at all positions."""
    model, n_positions = ends.features.model, ends.inputs.embed.shape[1]
    widest = max(ends.features.width(site.name) for site in ends.features.sites)
    spread = n_positions * widest * ends.inputs.embed.element_size()
    sparse = 2 * model.row_bytes(1) + spread
    dense = 2 * model.row_bytes(n_positions)
    return max(1, micro_bytes // sparse), max(1, micro_bytes // dense)


def _list(ends: FeatureBatch, part: Contributions, edges: EdgeList) -> None:
    """Add the edges of some contributions to a list, summed over positions unless they are kept."""
    numbers, raw = ends.numbers, part.values
    first = numbers.logits if part.target == LOGITS else numbers.first[part.target]
    node, source = first + part.node, numbers.first[part.parent] + part.source
    weight = raw * part.factor[:, None]
    if part.source_position is not None:
        n_positions = ends.inputs.embed.shape[1]
        source = source * n_positions + part.source_position
        edges.add(node * n_positions + part.position, source, weight, raw)
        return
    distinct, row = torch.unique(node, return_inverse=True)
    sums = raw.new_zeros(2, len(distinct), raw.shape[1])
    for _, at in groups(part.position):  # no node twice at a position, so that bits are settled
        sums[0, row[at]] += weight[at]
        sums[1, row[at]] += raw[at]
    edges.add(distinct, source, sums[0], sums[1])
