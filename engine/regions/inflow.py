"""What a target site sees of its parents' nodes, for one input.

A parent's nodes are vectors y that it is away from its patch value by (`graph`), at t of the way

    x_s(t) = x_s,patch + t Σ_r y_r

Where parents only add to what the target reads (`Network.joined`: a layer reads the stream, that
earlier heads and MLPs write to), they are one parent, the stream, whose nodes are what theirs add
there; so a cotangent is pulled back through one layer and met with all of them at once. Values and
edges are those of the parents themselves up to rounding (tests/regions/test_graph.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.network.base import LOGITS, Pulled, Slopes, Value
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


@dataclass
class Inflow:
    """Of one input."""

    moved: Moved
    number: int
    _patched: dict[str, Value] = field(default_factory=dict)

    @property
    def _features(self) -> Any:
        return self.moved.ends.features

    def _parents(self, target: str) -> tuple[Any, ...]:
        """With what is joined in one."""
        sites = self._features.sites
        found = self._features.model.joined(sites, target)
        return found or self._features.model.sites.parents(sites, target)

    def patched(self, target: str) -> Value:
        """A site, or the logits' final value, for parents at their patch values, `[1, …]`."""
        if target not in self._patched:
            ends, which = self.moved.ends, torch.tensor([self.number])
            parents = self._parents(target)
            values = {p.name: self._at_patch(p.name) for p in parents}
            run = ends.features.model.section
            self._patched[target] = run(parents, target, values, ends.inputs, which)
        return self._patched[target]

    def _at_patch(self, parent: str) -> Value:
        if parent in self.moved.nodes:
            return self.moved.ends.patch.values(parent)[self.number][None]
        return self.patched(parent)

    def nodes(self, target: str) -> dict[str, Nodes]:
        """y of each parent's nodes, parents as in `_parents`."""
        parents = self._parents(target)
        own = {p.name for p in parents}
        found = {name: self.moved.nodes[name][self.number] for name in own & {*self.moved.nodes}}
        if (cut := parents[0].name) not in found:
            every = (p.name for p in self._features.parents(target))
            joined = [self.moved.written[name][self.number] for name in every if name not in own]
            found[cut] = torch.cat(joined, 1)
        return {p.name: found[p.name] for p in parents}

    def slopes(
        self, target: str, nodes: dict[str, Nodes], ts: Float[Tensor, " steps"], first: int
    ) -> Slopes:
        """The section, linearised at steps of the way."""
        values = {
            name: self._at_patch(name) + ts[:, None, None] * y.sum(1) for name, y in nodes.items()
        }
        pull_back = self._features.model.pull_back
        parents, inputs = self._parents(target), self.moved.ends.inputs
        found: Slopes = pull_back(parents, target, values, inputs, self.number, first)
        return found

    def start(self, target: str) -> Value:
        """The target's value for parents at their patch values; of `logits`, what the metric reads."""
        value = self.patched(target)
        if target != LOGITS:
            return value
        which = torch.tensor([self.number])
        logits: Value = self._features.model.logits(value, self.moved.ends.inputs, which)
        return logits


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
