"""Circuits built from the logits backwards, edge by edge: the greedy search of EAP-IG's code.

1. The circuit starts with the logits alone. Candidates are the edges into what it has.
2. The candidate of the largest |score| is taken (ties to the lower edge index), as many times as
   the circuit shall have edges.
3. The node that an edge comes from joins the circuit, and the edges into it become candidates.
   Under grouped-query attention an edge into a kv port is one as soon as one head of the group has
   joined.

So every edge that is taken reaches the logits, which the edges of largest |score| need not do; one
that nothing feeds is pruned, as there. (Hanna et al. 2024, `apply_greedy` of their code, which
reads keys and values per query head.) The circuit of k edges is the first k of one order.
"""

import heapq

import numpy as np
from jaxtyping import Float, Int

from edgesweep.engine.graph.base import Graph


def greedy_order(
    graph: Graph, sizes: Float[np.ndarray, " n_edges"], most: int
) -> Int[np.ndarray, " taken"]:
    """Edges in the order in which they are taken.

    Args:
        sizes: |score| of each edge; what is not finite is never taken.
        most: how many at most; fewer where no candidate is left.
    """
    candidates = _Candidates(graph, sizes)
    joined = np.zeros(len(graph.nodes), dtype=bool)
    candidates.join(len(graph.nodes) - 1)
    taken: list[int] = []
    while len(taken) < most and candidates.heap:
        edge = candidates.take()
        taken.append(edge)
        source = int(graph.edge_source[edge])
        if not joined[source]:
            joined[source] = True
            candidates.join(source)
    return np.array(taken, dtype=np.int64)


class _Candidates:
    """Edges into the nodes that have joined, as a heap with one edge a target: its next."""

    def __init__(self, graph: Graph, sizes: Float[np.ndarray, " n_edges"]) -> None:
        edges = np.flatnonzero(np.isfinite(sizes))
        targets = graph.edge_target[edges]
        order = np.lexsort((edges, -sizes[edges], targets))
        self._edges, self._sizes, self._target = edges[order], sizes, graph.edge_target
        ends = np.arange(len(graph.targets) + 1)
        self._next = np.searchsorted(targets[order], ends).tolist()
        self._last = self._next[1:]
        self._closed = np.ones(len(graph.targets), dtype=bool)
        self._pairs = graph.ends.target[np.argsort(graph.ends.node, kind="stable")]
        nodes = np.arange(len(graph.nodes) + 1)
        self._first = np.searchsorted(np.sort(graph.ends.node), nodes)
        self.heap: list[tuple[float, int]] = []

    def join(self, node: int) -> None:
        """The edges into a node become candidates."""
        for target in self._pairs[self._first[node] : self._first[node + 1]].tolist():
            if self._closed[target]:
                self._closed[target] = False
                self._advance(target)

    def take(self) -> int:
        """The first candidate, which is none any more."""
        _, edge = heapq.heappop(self.heap)
        self._advance(int(self._target[edge]))
        return edge

    def _advance(self, target: int) -> None:
        place = self._next[target]
        if place < self._last[target]:
            self._next[target] += 1
            edge = int(self._edges[place])
            heapq.heappush(self.heap, (-float(self._sizes[edge]), edge))
