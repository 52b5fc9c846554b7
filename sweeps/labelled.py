"""Circuits as block models see them, and what is left of one without a task's blocks."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from edgesweep.engine.blocklabels import (
    block_attribution,
    block_edge_mask,
    block_margins,
    block_purity,
    label_blocks,
)
from edgesweep.engine.graph import Graph, edge_ends, node_edges, touched_nodes
from edgesweep.engine.graph.circuits import EdgeMask


def simple_graph(graph: Graph, mask: EdgeMask) -> tuple[list[int], np.ndarray]:
    """The circuit as block models see it: ids of its nodes, and edges between places in that list.

    Returns:
        Node ids in forward order; int64 `[n_pairs, 2]`, (source, target).
    """
    nodes = np.flatnonzero(touched_nodes(graph, mask))
    place = np.full(len(graph.nodes), -1)
    place[nodes] = np.arange(len(nodes))
    return nodes.tolist(), place[node_edges(graph, mask)].reshape(-1, 2)


def edge_nodes(graph: Graph, mask: EdgeMask, nodes: Sequence[int]) -> list[tuple[int, ...]]:
    """For each kept edge, its source and its ends, as places in `nodes`."""
    place = np.full(len(graph.nodes), -1)
    place[list(nodes)] = np.arange(len(nodes))
    source, node, edge = edge_ends(graph, mask)
    starts = np.flatnonzero(np.diff(edge, prepend=-1))
    ends = np.split(place[node], starts[1:])
    return [
        (int(place[s]), *of.tolist())
        for s, of in zip(source[starts], ends[: len(starts)], strict=True)
    ]


class LabelledBlocks:
    """A circuit's blocks, each labelled by the member task that gives it most attribution.

    Args:
        mask: the circuit's kept edges.
        nodes, block_of: its nodes and the block of each.
        scores: `[n_tasks, n_edges]`, aggregated scores of each member.
        margin: how many times the next task's attribution a block's task must have.
    """

    def __init__(
        self,
        graph: Graph,
        mask: EdgeMask,
        nodes: Sequence[int],
        block_of: np.ndarray,
        scores: np.ndarray,
        margin: float,
    ) -> None:
        self._mask, self._block_of = mask, block_of
        self._edge_nodes = edge_nodes(graph, mask, nodes)
        kept = np.nan_to_num(scores[:, mask], nan=0.0, posinf=0.0, neginf=0.0)
        self._kept, self.shares = kept, block_attribution(block_of, self._edge_nodes, kept)
        self.labels, self.margins = label_blocks(self.shares, margin), block_margins(self.shares)
        self._always = [i for i, node in enumerate(nodes) if node in graph.fixed_nodes]

    @property
    def purity(self) -> float:
        """How far each block is one task's (`engine.blocklabels`)."""
        return block_purity(self.shares)

    def shuffled_purities(self, seed: int, n: int) -> list[float]:
        """The same of blocks of the same sizes with other nodes in them, the fixed ones apart."""
        draw, found = np.random.default_rng(seed), []
        free = np.setdiff1d(np.arange(len(self._block_of)), self._always)
        for _ in range(n):
            block_of = np.array(self._block_of)
            block_of[free] = draw.permutation(block_of[free])
            found.append(block_purity(block_attribution(block_of, self._edge_nodes, self._kept)))
        return found

    def without(self, task: int) -> EdgeMask:
        """The circuit without every edge that touches a block of that task, ends apart."""
        return self._left(task, "without")

    def only(self, task: int) -> EdgeMask:
        """The circuit's edges among that task's blocks and the fixed nodes (`embed`, `logits`)."""
        return self._left(task, "only")

    def moved(self, block_of: np.ndarray) -> LabelledBlocks:
        """The same labels, with other nodes in the blocks."""
        other = copy.copy(self)
        other._block_of = block_of
        return other

    def _left(self, task: int, mode: str) -> EdgeMask:
        keep = block_edge_mask(
            self._block_of,
            self._edge_nodes,
            self.labels,
            task,
            mode,  # type: ignore[arg-type]
            self._always,
        )
        left = np.zeros_like(self._mask)
        left[np.flatnonzero(self._mask)[keep]] = True
        return left
