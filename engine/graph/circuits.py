"""Circuits: choosing edges by score, pruning what does nothing, and counting what is left.

A circuit is a bool mask over the edges of a `Graph`, in its order.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from edgesweep.engine.graph.base import Graph
from edgesweep.engine.graph.greedy import greedy_order

SELECTIONS = ("value", "abs", "topk_value", "topk_abs", "greedy")
#: those that read |scores|
BY_MAGNITUDE = frozenset({"abs", "topk_abs", "greedy"})
#: those whose thresholds are numbers of edges (of nodes, where these are scored)
BY_SIZE = frozenset({"topk_value", "topk_abs", "greedy"})
#: those that build on edges, and so select no nodes
OF_EDGES = frozenset({"greedy"})

EdgeMask = Bool[np.ndarray, " n_edges"]


def select(
    scores: Float[np.ndarray, " n_edges"],
    selection: str,
    threshold: float,
    graph: Graph | None = None,
) -> EdgeMask:
    """Edges kept by a threshold (w > τ, Dhimoïla section 5.1) or by rank.

    Args:
        scores: one aggregated score an edge; a score that is not finite is never kept.
        selection: "value" and "abs" keep scores (or |scores|) above `threshold`; "topk_value" and
            "topk_abs" keep the `threshold` edges that rank first, ties to the lower edge index;
            "greedy" takes as many from the logits backwards (see `greedy`).
        threshold: a score, or a number of edges.
        graph: whose edges they are; "greedy" needs it.

    Raises:
        ValueError: an unknown selection, or a number of edges that is not a whole number >= 0.
    """
    return next(selections(scores, selection, [threshold], graph))


def selections(
    scores: Float[np.ndarray, " n_edges"],
    selection: str,
    thresholds: Iterable[float],
    graph: Graph | None = None,
) -> Iterator[EdgeMask]:
    """`select` by each threshold, with one sort for all of them."""
    if selection not in SELECTIONS:
        raise ValueError(f"selection {selection!r} is none of {', '.join(SELECTIONS)}")
    ranked = np.abs(scores) if selection in BY_MAGNITUDE else np.asarray(scores)
    ranked = np.where(np.isfinite(ranked), ranked, -np.inf)
    if selection not in BY_SIZE:
        yield from (ranked > threshold for threshold in thresholds)
        return
    sizes = [_whole(threshold) for threshold in thresholds]
    order = _in_order(ranked, selection, max(sizes, default=0), graph)
    for size in sizes:
        mask = np.zeros(len(ranked), dtype=bool)
        mask[order[:size]] = True
        yield mask


def _whole(threshold: float) -> int:
    if threshold < 0 or threshold != int(threshold):
        raise ValueError(f"a size is a whole number of edges >= 0; got {threshold}")
    return int(threshold)


def _in_order(
    ranked: Float[np.ndarray, " n_edges"], selection: str, most: int, graph: Graph | None
) -> Int[np.ndarray, " taken"]:
    """The edges that selections by size take, first to last."""
    if selection not in OF_EDGES:
        return np.argsort(-ranked, kind="stable")[: int(np.isfinite(ranked).sum())]
    if graph is None:
        raise ValueError(f"selection {selection!r} builds on a graph's edges; give the graph")
    return greedy_order(graph, ranked, most)


def prune(graph: Graph, mask: EdgeMask, *, both_sides: bool) -> EdgeMask:
    """Drop edges that cannot act: those that lead nowhere and, if asked, those fed by nothing.

    Dropping what cannot reach the logits never changes the circuit's function. Dropping what the
    roots (`embed`) do not reach changes nothing only when all patch values come from one run
    (counterfactual, resample), so `both_sides` is for those. What a target changes besides its own
    nodes (`Graph.reach`: heads under a common norm, features that fall back on the mask of their
    site's error node) counts as reached by it.
    """
    kept = mask & _leads_to_logits(graph, mask)
    if both_sides:
        kept = kept & _fed_by_roots(graph, kept)
    return kept


def _leads_to_logits(graph: Graph, mask: EdgeMask) -> EdgeMask:
    """Edges whose target still reaches the logits: one sweep over the blocks, last to first."""
    useful = np.zeros(len(graph.nodes), dtype=bool)
    useful[-1] = True
    result = np.zeros(graph.n_edges, dtype=bool)
    for block in reversed(graph.blocks):
        targets = graph.reach.rows(block).targets_of(useful)
        kept = mask[block.edges] & targets[graph.edge_target[block.edges] - block.first_target]
        result[block.edges] = kept
        useful[graph.edge_source[block.edges][kept]] = True
    return result


def _fed_by_roots(graph: Graph, mask: EdgeMask) -> EdgeMask:
    """Edges whose source differs from its patch value: one sweep over the blocks, first to last."""
    fed = np.zeros(len(graph.nodes), dtype=bool)
    fed[: graph.n_roots] = True
    result = np.zeros(graph.n_edges, dtype=bool)
    for block in graph.blocks:
        kept = mask[block.edges] & fed[graph.edge_source[block.edges]]
        result[block.edges] = kept
        targets = np.zeros(block.n_targets, dtype=bool)
        targets[graph.edge_target[block.edges][kept] - block.first_target] = True
        fed |= graph.reach.rows(block).nodes_of(targets)
    return result


def touched_nodes(graph: Graph, mask: EdgeMask) -> Bool[np.ndarray, " n_nodes"]:
    """Nodes at either end of a kept edge; a head is touched if any of its ports is."""
    targets = np.zeros(len(graph.targets), dtype=bool)
    targets[graph.edge_target[mask]] = True
    touched = graph.ends.nodes_of(targets)
    touched[graph.edge_source[mask]] = True
    return touched


def node_edges(graph: Graph, mask: EdgeMask) -> Int[np.ndarray, "n_pairs 2"]:
    """The simple directed graph over nodes: (source, node) pairs, q, k and v merged, sorted.

    An edge into a key-value port ends at every query head of the group.
    """
    source, node, _ = edge_ends(graph, mask)
    codes = np.unique(source * len(graph.nodes) + node)
    return np.stack(np.divmod(codes, len(graph.nodes)), axis=1)


def edge_ends(
    graph: Graph, mask: EdgeMask
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Source, node at the other end, and place among the kept edges, in the order of the edges:
    as many pairs for an edge as its target belongs to nodes."""
    ends, targets = graph.ends, graph.edge_target[mask]
    counts = np.diff(ends.first)[targets]
    edge = np.repeat(np.arange(len(targets)), counts)
    within = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    node = ends.node[ends.first[targets[edge]] + within]
    return graph.edge_source[mask][edge].astype(np.int64), node.astype(np.int64), edge


def node_circuit(graph: Graph, mask: EdgeMask) -> EdgeMask:
    """Node ablation of a circuit's nodes, as a mask of edges.

    A node outside V_C takes its patch value after it is computed, which is to drop all of its
    outgoing edges and none of its siblings' (design: V_C is the nodes on kept edges).
    """
    kept = touched_nodes(graph, mask)
    return kept[graph.edge_source]


def induced_edges(graph: Graph, kept: Bool[np.ndarray, " sources"]) -> EdgeMask:
    """All edges among the kept nodes and into `logits`: a circuit that is given by its nodes
    (Dhimoïla section 5.1, E|V_C). An edge into a kv port needs a kept head of its group."""
    live = graph.ends.targets_of(np.append(kept, True))
    return kept[graph.edge_source] & live[graph.edge_target]


@dataclass(frozen=True)
class CircuitStats:
    """Sizes of a circuit."""

    n_nodes: int
    n_edges: int
    n_edges_possible: int

    @property
    def average_degree(self) -> float:
        """2 E / N, 0 if empty."""
        return 2 * self.n_edges / self.n_nodes if self.n_nodes else 0.0

    @property
    def density(self) -> float:
        """E / E_possible."""
        return self.n_edges / self.n_edges_possible if self.n_edges_possible else 0.0


def circuit_stats(graph: Graph, mask: EdgeMask, *, by_nodes: bool = False) -> CircuitStats:
    """Count a circuit's nodes and edges (a kv port's edge counts once).

    Args:
        by_nodes: of a circuit that is given by its nodes, pruned: these are the nodes that write,
            and the sink. An edge into a kv port touches every head of the group, and those that are
            not of the circuit are patched. Else all nodes on kept edges count.
    """
    nodes = _writing_nodes(graph, mask) if by_nodes else touched_nodes(graph, mask)
    return CircuitStats(int(nodes.sum()), int(mask.sum()), graph.n_edges_possible)


def _writing_nodes(graph: Graph, mask: EdgeMask) -> Bool[np.ndarray, " n_nodes"]:
    """Sources of kept edges, and the sink if there are any."""
    found = np.zeros(len(graph.nodes), dtype=bool)
    found[graph.edge_source[mask]] = True
    found[-1] = found.any()
    return found
