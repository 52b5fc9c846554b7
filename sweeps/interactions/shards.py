"""Shards of interaction graphs, and the groups by which they wait for each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from edgesweep.sweeps.interactions.graphs import BasisOf, Graph, Layered
from edgesweep.sweeps.plan.cells import Rows

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.plan import Plan

#: names of stages
MOMENTS, JACOBIANS, ROTATIONS = "moments", "jacobians", "rotations"
SUMS, FOLD, NEEDED, DIRECTIONS = "interaction_sums", "interactions", "edges_needed", "directions"
LABELS, MODULES, LAYER_BLOCKS = "labels", "modules", "layer_blocks"

#: of an array with a row an input
CHUNK_BYTES = 8 * 2**20

Of = TypeVar("Of", Layered, BasisOf, Graph)


@dataclass(frozen=True)
class Shard(Generic[Of]):
    """Work on node layers, on a basis of them, or on the interactions in it.

    Attributes:
        of: what it is of.
        at: the layer, or that from which a section starts; "" for all of them.
        rows: a block of build inputs; None where it is of no block.
        moments, parts: keys of the shards that it reads: of its layer's moments, and of what it
            folds.
    """

    of: Of
    at: str = ""
    rows: Rows | None = None
    moments: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    @property
    def layers(self) -> Layered:
        return self.of.layers_of

    @property
    def dataset(self) -> str:
        return self.layers.dataset

    @property
    def end(self) -> str:
        """The layer at which the section ends."""
        return self.layers.following(self.at)

    @property
    def block(self) -> Rows:
        """Its rows, of a shard that is of some."""
        assert self.rows is not None
        return self.rows

    @property
    def key(self) -> str:
        rows = "" if self.rows is None else self.rows.key
        return ".".join(part for part in (self.of.key, self.at, rows) if part)


def owner(shard: Shard[BasisOf] | Shard[Graph]) -> str:
    """Of what its numbers are, in words."""
    at = f" at {shard.at}" if shard.at else ""
    return f"{shard.of.kind} of {shard.layers.model}{at}"


# --- which there are --------------------------------------------------------------------------


def blocks(plan: Plan, of: Layered) -> list[Rows]:
    """Blocks of a graph's build inputs."""
    return plan.blocks(of.dataset)


def chunk_rows(blocks: Sequence[Rows], row_bytes: int) -> int:
    """Inputs of a chunk of an array with a row an input: none is of two blocks, nor of more than
    `CHUNK_BYTES` if it can be helped."""
    whole = math.gcd(*(rows.start for rows in blocks)) or blocks[-1].stop
    divisors = [d for d in range(1, whole + 1) if whole % d == 0]
    return max([d for d in divisors if d * row_bytes <= CHUNK_BYTES], default=1)


def n_units(plan: Plan, of: Layered, start: str) -> int:
    """Hidden units of a section that is an MLP; in a network without attention they are what it
    puts out."""
    sizes = plan.resolved.models[of.model].sizes
    return sizes.d_mlp if sizes.n_heads else of.width(of.following(start))


def sampled_blocks(plan: Plan, of: Layered) -> Iterator[Rows]:
    """Those of the inputs that Jacobians and interactions are of: the first of each task."""
    n, wanted = plan.n_inputs("build"), plan.config.bases.n_jacobian
    for rows in blocks(plan, of):
        begins = rows.start // n * n
        stop = min(rows.stop, begins + (n if wanted == "all" else wanted))
        if rows.start < stop:
            yield Rows(rows.member, rows.start, stop)


def moment_shards(plan: Plan, of: Layered) -> Iterator[Shard[Layered]]:
    return (Shard(of, rows=rows) for rows in blocks(plan, of))


def moment_keys(plan: Plan, of: Layered) -> tuple[str, ...]:
    return tuple(shard.key for shard in moment_shards(plan, of))


def jacobians(plan: Plan, basis: BasisOf, layer: str) -> Iterator[Shard[BasisOf]]:
    """Of a layer that is sampled, by blocks of inputs; of another none."""
    if basis.is_sampled(layer):
        for rows in sampled_blocks(plan, basis.of):
            yield Shard(basis, layer, rows, moment_keys(plan, basis.of))


def edge_sums(plan: Plan, graph: Graph, start: str) -> Iterator[Shard[Graph]]:
    return (Shard(graph, start, rows) for rows in sampled_blocks(plan, graph.of))


def bases_of(plan: Plan) -> list[BasisOf]:
    return list(dict.fromkeys(graph.basis for graph in plan.graphs))


# --- groups -----------------------------------------------------------------------------------


def moments_of(of: Layered) -> str:
    """All moments of some layers."""
    return f"moments {of.key}"


def rotated(basis: BasisOf, layer: str) -> str:
    """A layer's basis."""
    return f"rotation {basis.key} {layer}"


def of_layer(basis: BasisOf, layer: str) -> tuple[str, ...]:
    """What reads a layer's basis waits for."""
    return (rotated(basis, layer),) if layer in basis.of.rotated else ()


def folded(graph: Graph, start: str) -> str:
    """A section's interactions."""
    return f"interactions {graph.key} {start}"


def searched(graph: Graph) -> str:
    """What each section of a graph needs."""
    return f"edges needed {graph.key}"
