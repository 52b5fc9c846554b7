"""Shards of interaction graphs, and the groups by which they wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesweep.sweeps.interactions.graphs import BasisOf, Graph, Layered
from edgesweep.sweeps.plan.cells import Rows
from edgesweep.sweeps.plan.rows import blocks_of, rows_a_shard

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.plan import Plan

#: names of stages
MOMENTS, JACOBIANS, ROTATIONS = "moments", "jacobians", "rotations"
SUMS, FOLD, NEEDED, DIRECTIONS = "interaction_sums", "interactions", "edges_needed", "directions"
LABELS = "labels"
#: inputs of a shard, if nothing else is asked for
BLOCK_INPUTS = 1024


@dataclass(frozen=True)
class MomentShard:
    """All layers on a block of build inputs."""

    of: Layered
    rows: Rows

    @property
    def dataset(self) -> str:
        return self.of.dataset

    @property
    def key(self) -> str:
        return f"{self.of.key}.{self.rows.key}"


def blocks(plan: Plan, of: Layered) -> list[Rows]:
    """Blocks of a graph's build inputs."""
    n = plan.n_inputs("build")
    step = rows_a_shard(n, plan.config.execution.shard_inputs or BLOCK_INPUTS)
    return blocks_of(plan.dataset_of(of.dataset), n, step)


def moments_of(of: Layered) -> str:
    """All moments of some layers."""
    return f"moments {of.key}"


@dataclass(frozen=True)
class JacobianShard:
    """A sampled section's second moments on a block of inputs; `moments` are keys of the shards
    that its layer's mean is of."""

    basis: BasisOf
    layer: str
    rows: Rows
    moments: tuple[str, ...]

    @property
    def dataset(self) -> str:
        return self.basis.of.dataset

    @property
    def key(self) -> str:
        return f"{self.basis.key}.{self.layer}.{self.rows.key}"


@dataclass(frozen=True)
class RotationShard:
    """The basis of one layer; keys of the shards that its moments and Jacobians are of."""

    basis: BasisOf
    layer: str
    moments: tuple[str, ...]
    jacobians: tuple[str, ...]

    @property
    def dataset(self) -> str:
        return self.basis.of.dataset

    @property
    def key(self) -> str:
        return f"{self.basis.key}.{self.layer}"


def rotated(basis: BasisOf, layer: str) -> str:
    """The group of a layer's basis."""
    return f"rotation {basis.key} {layer}"


def of_layer(basis: BasisOf, layer: str) -> tuple[str, ...]:
    """What reads a layer's basis waits for."""
    return (rotated(basis, layer),) if layer in basis.of.rotated else ()


def moment_keys(plan: Plan, basis: BasisOf) -> tuple[str, ...]:
    return tuple(MomentShard(basis.of, rows).key for rows in blocks(plan, basis.of))


def jacobians(plan: Plan, basis: BasisOf, layer: str) -> Iterator[JacobianShard]:
    if basis.is_sampled(layer):
        for rows in blocks(plan, basis.of):
            yield JacobianShard(basis, layer, rows, moment_keys(plan, basis))


def bases_of(plan: Plan) -> list[BasisOf]:
    return list(dict.fromkeys(graph.basis for graph in plan.graphs))


@dataclass(frozen=True)
class EdgeShard:
    """A section's interactions on a block of inputs."""

    graph: Graph
    start: str
    end: str
    rows: Rows

    @property
    def dataset(self) -> str:
        return self.graph.of.dataset

    @property
    def key(self) -> str:
        return f"{self.graph.key}.{self.start}.{self.rows.key}"


@dataclass(frozen=True)
class FoldShard:
    """A section's interactions on all inputs; `parts` are keys of the shards that they are of."""

    graph: Graph
    start: str
    parts: tuple[str, ...]

    @property
    def dataset(self) -> str:
        return self.graph.of.dataset

    @property
    def key(self) -> str:
        return f"{self.graph.key}.{self.start}"


def folded(graph: Graph, start: str) -> str:
    """The group of a section's interactions."""
    return f"interactions {graph.key} {start}"


@dataclass(frozen=True)
class NeededShard:
    """The search of one section."""

    graph: Graph
    start: str
    end: str

    @property
    def dataset(self) -> str:
        return self.graph.of.dataset

    @property
    def key(self) -> str:
        return f"{self.graph.key}.{self.start}"

    @property
    def total(self) -> int:
        """What the published search starts from: sizes before any cut, with the constants."""
        of = self.graph.of
        ends = of.width(self.end) + (self.end in of.rotated)
        return (of.width(self.start) + 1) * ends


@dataclass(frozen=True)
class DirectionShard:
    """One layer with its first directions alone."""

    basis: BasisOf
    layer: str

    @property
    def dataset(self) -> str:
        return self.basis.of.dataset

    @property
    def key(self) -> str:
        return f"{self.basis.key}.{self.layer}"


@dataclass(frozen=True)
class LabelShard(DirectionShard):
    """What the first directions of a layer are of."""
