"""What every graph offers, whatever its nodes are: heads and MLPs, or features of dictionaries.

Circuits, pruning, block models, sweeps and pages are written against `Graph` alone. A *source* is a
node that writes, a *target* is what an edge ends at. Edges are ordered by target in forward order,
and for each target by source in forward order; `blocks` are runs of targets that are computed at
once, so the edges of a block are one slice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int


class Block(Protocol):
    """Targets that are computed at once."""

    @property
    def first_target(self) -> int:
        """Index of its first target; the others follow."""

    @property
    def n_targets(self) -> int:
        """How many targets it has."""

    @property
    def edges(self) -> slice:
        """The edges that end in it, in the edge order."""


@dataclass(frozen=True)
class Ends:
    """Pairs of a target and a node that it belongs to, sorted by target; every target has one.

    A table of targets by nodes would not do: a graph over features has tens of thousands of both.
    """

    target: Int[np.ndarray, " pairs"]
    node: Int[np.ndarray, " pairs"]
    n_targets: int
    n_nodes: int

    @property
    def pairs(self) -> Int[np.ndarray, "pairs 2"]:
        """(target, node), as a table."""
        return np.stack([self.target, self.node], axis=1)

    @cached_property
    def first(self) -> Int[np.ndarray, " targets_and_one"]:
        """Where the pairs of each target start."""
        return np.searchsorted(self.target, np.arange(self.n_targets + 1))

    def rows(self, block: Block) -> "Ends":
        """The pairs of a block's targets, which are numbered from 0 there."""
        first, last = self.first[[block.first_target, block.first_target + block.n_targets]]
        target = self.target[first:last] - block.first_target
        return Ends(target, self.node[first:last], block.n_targets, self.n_nodes)

    def targets_of(self, nodes: Bool[np.ndarray, " nodes"]) -> Bool[np.ndarray, " targets"]:
        """Targets that belong to one of these nodes at least."""
        found = np.zeros(self.n_targets, dtype=bool)
        found[self.target[nodes[self.node]]] = True
        return found

    def nodes_of(self, targets: Bool[np.ndarray, " targets"]) -> Bool[np.ndarray, " nodes"]:
        """Nodes that one of these targets belongs to."""
        found = np.zeros(self.n_nodes, dtype=bool)
        found[self.node[targets[self.target]]] = True
        return found


@dataclass(frozen=True)
class NodeTable:
    """What nodes or targets are, one row each in their order, so that nobody reads it off names.

    Attributes:
        site: where it is, `embed`, `attn3`, `mlp3`, `resid3`, `logits`.
        kind: `embed`, `head`, `mlp`, `feature`, `region`, `error` or `logits`.
        layer: place in the network, -1 for `embed`: the layer of a head or an MLP; over features
            the place of the site among the sites. The logits come last.
        number: of the head, feature or region, of a key-value port the kv head; -1 where there is
            none.
        port: of a target that is an input of attention `q`, `k` or `v`; else "".
    """

    site: tuple[str, ...]
    kind: tuple[str, ...]
    layer: Int[np.ndarray, " rows"]
    number: Int[np.ndarray, " rows"]
    port: tuple[str, ...]

    @classmethod
    def of_rows(cls, rows: Iterable[tuple[str, str, int, int, str]]) -> "NodeTable":
        """From (site, kind, layer, number, port) of each."""
        site, kind, layer, number, port = zip(*rows, strict=True)
        return cls(site, kind, np.array(layer), np.array(number), port)


class Graph(Protocol):
    """Nodes and edges in their fixed order.

    Attributes:
        n_edges: number of edges.
        n_edges_possible: edges that the architecture allows between these nodes.
        sources: names of the nodes that write, in forward order.
        targets: names of what edges end at, in forward order.
        nodes: `sources` and `logits`.
        n_roots: how many nodes, the first ones, are computed from no other node.
        fixed_nodes: nodes that no block of a block model takes away: the sink, and the root where
            there is only one.
        blocks: in forward order.
        edge_source, edge_target: index of each edge's ends in `sources` and `targets`.
        ends: the nodes that a target belongs to.
        reach: the nodes whose value an edge into a target can change: `ends`, and those that
            depend on the target otherwise.
        node_table, target_table: what each of `nodes` and of `targets` is.
        reads: pairs of a site and one that reads it: an edge is possible from each node of the one
            to each target of the other.
    """

    @property
    def n_edges(self) -> int: ...
    @property
    def n_edges_possible(self) -> int: ...
    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def nodes(self) -> tuple[str, ...]: ...
    @property
    def n_roots(self) -> int: ...
    @property
    def fixed_nodes(self) -> tuple[int, ...]: ...
    @property
    def blocks(self) -> Sequence[Block]: ...
    @property
    def edge_source(self) -> Int[np.ndarray, " n_edges"]: ...
    @property
    def edge_target(self) -> Int[np.ndarray, " n_edges"]: ...
    @property
    def ends(self) -> Ends: ...
    @property
    def reach(self) -> Ends: ...
    @property
    def node_table(self) -> NodeTable: ...
    @property
    def target_table(self) -> NodeTable: ...
    @property
    def reads(self) -> frozenset[tuple[str, str]]: ...

    def edge_name(self, edge: int) -> str:
        """The edge as people write it: `a0.h3->a3.h5.q`, `embed/f7->resid3/err`."""

    def edge_index(self, name: str) -> int:
        """Index of an edge by its name; KeyError where there is none."""
