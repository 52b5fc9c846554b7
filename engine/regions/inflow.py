"""What a target site sees of its parents' nodes, for one input.

A parent's nodes are vectors y that it is away from its patch value by (`graph`), at t of the way

    x_s(t) = x_s,patch + t Σ_r y_r

Where parents only add to what the target reads (`Network.joined`: a layer reads the stream, that
earlier heads and MLPs write to), they are one parent, the stream, whose nodes are what theirs add
there; so a cotangent is pulled back through one layer and met with all of them at once. Values and
edges are those of the parents themselves up to rounding (tests/regions/test_graph.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.values import NodeValues
from edgesweep.engine.network.base import LOGITS, Inputs, Pulled, Slopes, Value, Values
from edgesweep.engine.regions.graph import Partitions

#: of a parent, at every position; those of all that are joined side by side
Nodes = Float[Tensor, "positions nodes width"]


@dataclass(frozen=True)
class Moved:
    """y of the nodes of every site, of all inputs of a batch, 0 at padding; and what they add to
    what later sites read."""

    ends: FeatureBatch
    nodes: dict[str, Float[Tensor, "inputs positions nodes width"]]
    written: dict[str, Float[Tensor, "inputs positions nodes width"]]

    @classmethod
    def of(cls, regions: Partitions, ends: FeatureBatch) -> Moved:
        nodes, written = {}, {}
        for site in ends.features.sites:
            y = regions.differences(site.name, ends.clean, ends.patch)
            y = y if regions.has_rest(site.name) else y[..., :-1, :]
            nodes[site.name] = y * ends.inputs.real[..., None, None]
            written[site.name] = ends.features.model.written(site, nodes[site.name])
        return cls(ends, nodes, written)


class Joined:
    """The parents of each target, and sites at their parents' patch values, of all inputs."""

    def __init__(self, features: FeatureModel, inputs: Inputs, patch: NodeValues) -> None:
        self._features, self._inputs, self._patch = features, inputs, patch
        self._patched: dict[str, Value] = {}

    def parents(self, target: str) -> tuple[Any, ...]:
        """Those that are joined as one, first."""
        sites = self._features.sites
        found: tuple[Any, ...] | None = self._features.model.joined(sites, target)
        return found or self._features.parents(target)

    def apart(self, target: str) -> list[str]:
        """The parents that are joined, by name, in forward order."""
        own = {p.name for p in self.parents(target)}
        return [p.name for p in self._features.parents(target) if p.name not in own]

    def section(
        self, target: str, values: Values, rows: Int[Tensor, " rows"] | None = None
    ) -> Value:
        """A target from such parents; of `logits` the final value."""
        run = self._features.model.section
        found: Value = run(self.parents(target), target, values, self._inputs, rows)
        return found

    def patched(self, target: str) -> Value:
        """A target for parents at their patch values."""
        if target not in self._patched:
            values = {p.name: self.at_patch(p.name) for p in self.parents(target)}
            self._patched[target] = self.section(target, values)
        return self._patched[target]

    def at_patch(self, parent: str) -> Value:
        """A parent's patch value."""
        known = parent in self._patch.sites
        return self._patch.values(parent) if known else self.patched(parent)


@dataclass(frozen=True)
class Inflow:
    """Of one input."""

    moved: Moved
    joined: Joined
    number: int

    def nodes(self, target: str) -> dict[str, Nodes]:
        """y of the nodes of each parent as in `Joined`."""
        moved, number = self.moved, self.number
        names, apart = [p.name for p in self.joined.parents(target)], self.joined.apart(target)
        found = {name: moved.nodes[name][number] for name in names if name in moved.nodes}
        if apart:
            found[names[0]] = torch.cat([moved.written[name][number] for name in apart], 1)
        return {name: found[name] for name in names}

    def slopes(
        self, target: str, nodes: dict[str, Nodes], ts: Float[Tensor, " steps"], first: int
    ) -> Slopes:
        """The section, linearised at steps of the way."""
        joined, ends, number = self.joined, self.moved.ends, self.number
        values = {
            name: joined.at_patch(name)[number] + ts[:, None, None] * y.sum(1)
            for name, y in nodes.items()
        }
        pull_back, parents = ends.features.model.pull_back, joined.parents(target)
        return pull_back(parents, target, values, ends.inputs, number, first)

    def start(self, target: str) -> Value:
        """The target's value for parents at their patch values; of `logits` the outputs."""
        value = self.joined.patched(target)
        if target != LOGITS:
            return value[self.number]
        logits: Value = self.moved.ends.features.model.logits(value, self.moved.ends.inputs)
        return logits[self.number]


def first_moved(nodes: dict[str, Nodes]) -> int | None:
    """The first position where a parent's value is not its patch value; None: nowhere."""
    moved = torch.stack([y.flatten(1).any(1) for y in nodes.values()]).any(0).nonzero()
    return int(moved[0]) if len(moved) else None


def met(
    pulled: Pulled, position: Int[Tensor, " targets"], y: Nodes
) -> Float[Tensor, "targets nodes"]:
    """What targets, by position, get from each node of a parent."""
    found = pulled.at.new_zeros(len(position), y.shape[1])
    for p in position.unique():
        here = position == p
        found[here] = pulled.at[here] @ y[p].T
    if pulled.before is None:
        return found
    return found + pulled.before.flatten(1) @ y.transpose(0, 1).flatten(1).T
