"""The module-level graph: nodes, ports and edges of a transformer, and their one order.

Nodes are `embed`, heads `a3.h5`, MLPs `m3` and `logits`. A *source* is a node that writes to the
residual stream; a *target* is a port that reads it: `a3.h5.q`, and, per key-value head under
grouped-query attention, `a3.kv1.k` and `a3.kv1.v`; `m3`; `logits`.

Edge order, relied on by every array in a run directory: targets in forward order (per layer the
queries, the keys, the values, the MLP; last the logits), and for each target its sources in forward
order. The sources of one target are therefore a prefix of all sources, and the scores of one
layer's attention ports are one contiguous `[n_ports, n_sources_before]` block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from edgesweep.engine.graph.base import Ends, NodeTable


@dataclass(frozen=True)
class GraphSpec:
    """What an architecture fixes about the graph.

    Attributes:
        n_layers: number of blocks.
        n_heads: query heads a layer.
        n_kv_heads: key-value heads a layer; query head h reads group h // (n_heads // n_kv_heads).
        parallel: attention and MLP of a layer read the same stream, so no edge a3.* -> m3 exists.
        coupled: a norm after the attention block scales all heads of a layer by one factor, so a
            head reaches whatever its siblings reach (see `circuits.prune`).
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    parallel: bool = False
    coupled: bool = False

    def __post_init__(self) -> None:
        if min(self.n_layers, self.n_heads, self.n_kv_heads) < 1:
            raise ValueError(f"a graph needs at least one layer and one head; got {self}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"{self.n_heads} query heads cannot share {self.n_kv_heads} key-value heads evenly"
            )

    @property
    def n_attention_ports(self) -> int:
        """Ports of one layer's attention: a query a head, a key and a value a kv head."""
        return self.n_heads + 2 * self.n_kv_heads


@dataclass(frozen=True)
class PortBlock:
    """The targets of one module: all attention ports of a layer, one MLP, or the logits.

    Attributes:
        kind: "attention", "mlp" or "logits".
        layer: the layer; for the logits, n_layers.
        first_target: index of its first target; the others follow.
        n_targets: how many targets it has.
        n_sources: how many sources each of them reads: sources[:n_sources].
        first_edge: index of its first edge; it owns n_targets * n_sources edges, row-major.
    """

    kind: str
    layer: int
    first_target: int
    n_targets: int
    n_sources: int
    first_edge: int

    @property
    def edges(self) -> slice:
        """The edges of this block in the edge order."""
        return slice(self.first_edge, self.first_edge + self.n_targets * self.n_sources)


class EdgeGraph:
    """All nodes, ports and edges that an architecture has, in the fixed order.

    Attributes:
        spec: the architecture.
        sources: names of the nodes that write, in forward order.
        targets: names of the ports that read, in forward order.
        nodes: sources and `logits`; ports are not nodes.
        blocks: targets grouped by module, in forward order.
        n_edges, n_edges_possible: number of edges; all that there can be are there.
    """

    n_roots = 1

    def __init__(self, spec: GraphSpec) -> None:
        self.spec = spec
        self.sources: tuple[str, ...] = tuple(_source_names(spec))
        self.nodes: tuple[str, ...] = (*self.sources, "logits")
        self.targets: tuple[str, ...] = tuple(_target_names(spec))
        self.blocks: tuple[PortBlock, ...] = tuple(_port_blocks(spec))
        self.n_edges: int = self.blocks[-1].edges.stop
        self.n_edges_possible = self.n_edges
        self.fixed_nodes = (0, len(self.sources))

    def __repr__(self) -> str:
        return f"EdgeGraph({self.spec}, n_edges={self.n_edges})"

    # --- sources -----------------------------------------------------------------------------
    def head_source(self, layer: int, head: int) -> int:
        """Index of head `a{layer}.h{head}` among the sources."""
        return 1 + layer * (self.spec.n_heads + 1) + head

    def mlp_source(self, layer: int) -> int:
        """Index of MLP `m{layer}` among the sources."""
        return self.head_source(layer, self.spec.n_heads)

    # --- edges -------------------------------------------------------------------------------
    @cached_property
    def edge_source(self) -> Int[np.ndarray, " n_edges"]:
        """Index of each edge's source in `sources`."""
        parts = [np.tile(np.arange(b.n_sources), b.n_targets) for b in self.blocks]
        return np.concatenate(parts).astype(np.int32)

    @cached_property
    def edge_target(self) -> Int[np.ndarray, " n_edges"]:
        """Index of each edge's target in `targets`."""
        parts = [
            np.repeat(np.arange(b.first_target, b.first_target + b.n_targets), b.n_sources)
            for b in self.blocks
        ]
        return np.concatenate(parts).astype(np.int32)

    def edge_name(self, edge: int) -> str:
        """The edge as people write it: `a0.h3->a3.h5.q`."""
        source, target = self.edge_source[edge], self.edge_target[edge]
        return f"{self.sources[source]}->{self.targets[target]}"

    def edge_index(self, name: str) -> int:
        """Index of an edge by its name.

        Raises:
            KeyError: the architecture has no such edge.
        """
        source, _, target = name.partition("->")
        if source not in self._source_index or target not in self._target_index:
            raise KeyError(f"{name}: no such source or target in this model")
        block = self.blocks[self.target_block[self._target_index[target]]]
        row = self._target_index[target] - block.first_target
        column = self._source_index[source]
        if column >= block.n_sources:
            raise KeyError(f"{name}: {target} does not read {source}")
        return block.first_edge + row * block.n_sources + column

    # --- the view over nodes -----------------------------------------------------------------
    @cached_property
    def target_block(self) -> Int[np.ndarray, " n_targets"]:
        """Index of the block that each target belongs to."""
        parts = [np.full(b.n_targets, i) for i, b in enumerate(self.blocks)]
        return np.concatenate(parts)

    @cached_property
    def target_nodes(self) -> Bool[np.ndarray, "n_targets n_nodes"]:
        """Which nodes each target belongs to; a kv port belongs to every head of its group."""
        table = np.zeros((len(self.targets), len(self.nodes)), dtype=bool)
        for target, nodes in enumerate(self._nodes_of_targets()):
            table[target, nodes] = True
        return table

    @cached_property
    def ends(self) -> Ends:
        """`target_nodes` as pairs."""
        return _pairs(self.target_nodes)

    @cached_property
    def reach(self) -> Ends:
        """The nodes that a target can change: `ends`; where a norm follows the attention block, the
        ports of a layer change all of its heads."""
        if not self.spec.coupled:
            return self.ends
        table = self.target_nodes.copy()
        for block in self.blocks:
            if block.kind == "attention":
                rows = slice(block.first_target, block.first_target + block.n_targets)
                heads = self.head_source(block.layer, 0)
                table[rows, heads : heads + self.spec.n_heads] = True
        return _pairs(table)

    @cached_property
    def node_table(self) -> NodeTable:
        """What each node is; a head and an MLP stand at the sites that features of their blocks
        would."""
        return NodeTable.of_rows(_node_rows(self.spec))

    @cached_property
    def target_table(self) -> NodeTable:
        """What each target is."""
        return NodeTable.of_rows(_target_rows(self.spec))

    @cached_property
    def reads(self) -> frozenset[tuple[str, str]]:
        """Each site with those that read it; what a block reads is a prefix of the sources."""
        site, target = self.node_table.site, self.target_table.site
        return frozenset(
            (before, target[block.first_target])
            for block in self.blocks
            for before in dict.fromkeys(site[: block.n_sources])
        )

    def _nodes_of_targets(self) -> Iterator[list[int]]:
        spec = self.spec
        group = spec.n_heads // spec.n_kv_heads
        for block in self.blocks:
            if block.kind == "mlp":
                yield [self.mlp_source(block.layer)]
            elif block.kind == "logits":
                yield [len(self.sources)]
            else:
                heads = [self.head_source(block.layer, h) for h in range(spec.n_heads)]
                groups = [heads[g * group : (g + 1) * group] for g in range(spec.n_kv_heads)]
                yield from ([head] for head in heads)
                yield from groups
                yield from groups

    @cached_property
    def _source_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.sources)}

    @cached_property
    def _target_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.targets)}


def _pairs(table: Bool[np.ndarray, "targets nodes"]) -> Ends:
    target, node = np.nonzero(table)
    return Ends(target, node, len(table), table.shape[1])


def _source_names(spec: GraphSpec) -> Iterator[str]:
    yield "embed"
    for layer in range(spec.n_layers):
        yield from (f"a{layer}.h{head}" for head in range(spec.n_heads))
        yield f"m{layer}"


def _target_names(spec: GraphSpec) -> Iterator[str]:
    for layer in range(spec.n_layers):
        yield from (f"a{layer}.h{head}.q" for head in range(spec.n_heads))
        for letter in "kv":
            yield from (f"a{layer}.kv{group}.{letter}" for group in range(spec.n_kv_heads))
        yield f"m{layer}"
    yield "logits"


def _node_rows(spec: GraphSpec) -> Iterator[tuple[str, str, int, int, str]]:
    yield "embed", "embed", -1, -1, ""
    for layer in range(spec.n_layers):
        yield from ((f"attn{layer}", "head", layer, head, "") for head in range(spec.n_heads))
        yield f"mlp{layer}", "mlp", layer, -1, ""
    yield "logits", "logits", spec.n_layers, -1, ""


def _target_rows(spec: GraphSpec) -> Iterator[tuple[str, str, int, int, str]]:
    for layer in range(spec.n_layers):
        for letter, count in (("q", spec.n_heads), ("k", spec.n_kv_heads), ("v", spec.n_kv_heads)):
            yield from ((f"attn{layer}", "head", layer, number, letter) for number in range(count))
        yield f"mlp{layer}", "mlp", layer, -1, ""
    yield "logits", "logits", spec.n_layers, -1, ""


def _port_blocks(spec: GraphSpec) -> Iterator[PortBlock]:
    target = edge = 0
    for kind, layer, n_targets, n_sources in _block_shapes(spec):
        yield PortBlock(kind, layer, target, n_targets, n_sources, edge)
        target += n_targets
        edge += n_targets * n_sources


def _block_shapes(spec: GraphSpec) -> Iterator[tuple[str, int, int, int]]:
    for layer in range(spec.n_layers):
        before = 1 + layer * (spec.n_heads + 1)
        yield "attention", layer, spec.n_attention_ports, before
        yield "mlp", layer, 1, before if spec.parallel else before + spec.n_heads
    yield "logits", spec.n_layers, 1, 1 + spec.n_layers * (spec.n_heads + 1)
