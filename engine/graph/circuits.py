"""Circuits: choosing edges by score, pruning what does nothing, and counting what is left.

A circuit is a bool mask over the edges of an `EdgeGraph`, in its order.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from engine.graph.edges import EdgeGraph

SELECTIONS = ("value", "abs", "topk_value", "topk_abs")

EdgeMask = Bool[np.ndarray, " n_edges"]


def select(scores: Float[np.ndarray, " n_edges"], selection: str, threshold: float) -> EdgeMask:
    """Edges kept by a threshold (w > τ, Dhimoïla section 5.1) or by rank.

    Args:
        scores: one aggregated score an edge; a score that is not finite is never kept.
        selection: "value" and "abs" keep scores (or |scores|) above `threshold`; "topk_value" and
            "topk_abs" keep the `threshold` edges that rank first, ties to the lower edge index.
        threshold: a score, or a number of edges.

    Raises:
        ValueError: an unknown selection, or a number of edges that is not a whole number >= 0.
    """
    if selection not in SELECTIONS:
        raise ValueError(f"selection {selection!r} is none of {', '.join(SELECTIONS)}")
    ranked = np.abs(scores) if selection.endswith("abs") else np.asarray(scores)
    ranked = np.where(np.isfinite(ranked), ranked, -np.inf)
    if not selection.startswith("topk"):
        return ranked > threshold
    if threshold < 0 or threshold != int(threshold):
        raise ValueError(f"a top-k size is a whole number of edges >= 0; got {threshold}")
    order = np.argsort(-ranked, kind="stable")[: int(threshold)]
    mask = np.zeros(len(ranked), dtype=bool)
    mask[order[np.isfinite(ranked[order])]] = True
    return mask


def prune(graph: EdgeGraph, mask: EdgeMask, *, both_sides: bool) -> EdgeMask:
    """Drop edges that cannot act: those that lead nowhere and, if asked, those fed by nothing.

    Dropping what cannot reach the logits never changes the circuit's function. Dropping what
    `embed` does not reach changes nothing only when all patch values come from one run
    (counterfactual, resample), so `both_sides` is for those. Where a norm follows the attention
    block (Gemma), a head acts on its siblings through the common scale and counts as reaching what
    they reach.
    """
    kept = mask & _leads_to_logits(graph, mask)
    if both_sides:
        kept = kept & _fed_by_embed(graph, kept)
    return kept


def _leads_to_logits(graph: EdgeGraph, mask: EdgeMask) -> EdgeMask:
    """Edges whose target still reaches the logits: one sweep over the blocks, last to first."""
    useful = np.zeros(len(graph.nodes), dtype=bool)
    useful[-1] = True
    result = np.zeros(graph.n_edges, dtype=bool)
    for block in reversed(graph.blocks):
        rows = slice(block.first_target, block.first_target + block.n_targets)
        if graph.spec.coupled and block.kind == "attention":
            heads = _head_slice(graph, block.layer)
            useful[heads] = useful[heads].any()
        useful_rows = graph.target_nodes[rows] @ useful
        block_mask = mask[block.edges].reshape(block.n_targets, block.n_sources)
        kept = block_mask & useful_rows[:, None]
        result[block.edges] = kept.ravel()
        useful[: block.n_sources] |= kept.any(axis=0)
    return result


def _fed_by_embed(graph: EdgeGraph, mask: EdgeMask) -> EdgeMask:
    """Edges whose source differs from its patch value: one sweep over the blocks, first to last."""
    fed = np.zeros(len(graph.nodes), dtype=bool)
    fed[0] = True
    result = np.zeros(graph.n_edges, dtype=bool)
    for block in graph.blocks:
        rows = slice(block.first_target, block.first_target + block.n_targets)
        block_mask = mask[block.edges].reshape(block.n_targets, block.n_sources)
        kept = block_mask & fed[: block.n_sources]
        result[block.edges] = kept.ravel()
        fed |= kept.any(axis=1) @ graph.target_nodes[rows]
        if graph.spec.coupled and block.kind == "attention":
            heads = _head_slice(graph, block.layer)
            fed[heads] = fed[heads].any()
    return result


def _head_slice(graph: EdgeGraph, layer: int) -> slice:
    return slice(graph.head_source(layer, 0), graph.mlp_source(layer))


def touched_nodes(graph: EdgeGraph, mask: EdgeMask) -> Bool[np.ndarray, " n_nodes"]:
    """Nodes at either end of a kept edge; a head is touched if any of its ports is."""
    touched = np.zeros(len(graph.nodes), dtype=bool)
    touched[graph.edge_source[mask]] = True
    targets = np.unique(graph.edge_target[mask])
    touched |= graph.target_nodes[targets].any(axis=0)
    return touched


def node_edges(graph: EdgeGraph, mask: EdgeMask) -> Int[np.ndarray, "n_pairs 2"]:
    """The simple directed graph over nodes: (source, node) pairs, q, k and v merged, sorted.

    An edge into a key-value port ends at every query head of the group.
    """
    adjacency = np.zeros((len(graph.nodes), len(graph.nodes)), dtype=bool)
    for block in graph.blocks:
        rows = slice(block.first_target, block.first_target + block.n_targets)
        kept = mask[block.edges].reshape(block.n_targets, block.n_sources)
        adjacency[: block.n_sources] |= kept.T @ graph.target_nodes[rows]
    return np.argwhere(adjacency)


def node_circuit(graph: EdgeGraph, mask: EdgeMask) -> EdgeMask:
    """Node ablation of a circuit's nodes, as a mask of edges.

    A node outside V_C takes its patch value after it is computed, which is to drop all of its
    outgoing edges and none of its siblings' (design: V_C is the nodes on kept edges).
    """
    kept = touched_nodes(graph, mask)
    return kept[graph.edge_source]


def induced_edges(graph: EdgeGraph, kept: Bool[np.ndarray, " sources"]) -> EdgeMask:
    """All edges among the kept nodes and into `logits`: a circuit that is given by its nodes
    (Dhimoïla section 5.1, E|V_C). An edge into a kv port needs a kept head of its group."""
    live = graph.target_nodes @ np.append(kept, True)
    return kept[graph.edge_source] & live[graph.edge_target]


def without_nodes(graph: EdgeGraph, mask: EdgeMask, nodes: Iterable[str]) -> EdgeMask:
    """The circuit without every edge that touches one of `nodes`."""
    return mask & ~_touches(graph, nodes, of="any")


def only_nodes(graph: EdgeGraph, mask: EdgeMask, nodes: Iterable[str]) -> EdgeMask:
    """The circuit's edges among `nodes`, `embed` and `logits`."""
    return mask & _touches(graph, {*nodes, "embed", "logits"}, of="both")


def _touches(graph: EdgeGraph, nodes: Iterable[str], of: str) -> EdgeMask:
    chosen = np.isin(graph.nodes, list(nodes))
    at_source = chosen[graph.edge_source]
    inside = (graph.target_nodes & chosen).sum(axis=1)
    if of == "any":
        return at_source | (inside > 0)[graph.edge_target]
    return at_source & (inside == graph.target_nodes.sum(axis=1))[graph.edge_target]


@dataclass(frozen=True)
class CircuitStats:
    """Sizes of a circuit: `average_degree` = 2 E / N (0 if empty), `density` = E / E_possible."""

    n_nodes: int
    n_edges: int
    n_edges_possible: int
    average_degree: float
    density: float


def circuit_stats(graph: EdgeGraph, mask: EdgeMask) -> CircuitStats:
    """Count a circuit's nodes (on kept edges) and edges (a kv port's edge counts once)."""
    n_nodes = int(touched_nodes(graph, mask).sum())
    n_edges = int(mask.sum())
    degree = 2 * n_edges / n_nodes if n_nodes else 0.0
    return CircuitStats(n_nodes, n_edges, graph.n_edges, degree, n_edges / graph.n_edges)
