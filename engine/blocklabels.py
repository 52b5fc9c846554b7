"""Which task a block belongs to, and which edges a block ablation keeps; arrays in, arrays out.

Written as the design page ("Block models") defines them, after figure 12 of "Emerging structures":

    attribution[b, t] = Σ |score_t(e)|, kept edges e that touch block b / Σ |score_t(e)|, kept edges
    label[b]          = the task with the largest attribution, ties to the first task; none where
                        that is less than `margin` times the next largest: the block is shared

Kept edges are edges in score space: an edge into a kv port ends at every query head of its group.
So an edge comes with all nodes that it touches, ``edge_nodes[e]``, a tuple of node ids: its source
and then its ends. ``block_of`` is int [n_nodes].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Mode = Literal["without", "only"]
#: in place of a task, of a block that no task owns
SHARED = -1


def block_attribution(
    block_of: np.ndarray,
    edge_nodes: Sequence[Sequence[int]],
    scores_by_task: np.ndarray,
) -> np.ndarray:
    """Each block's share of each task's attribution: float64 [n_blocks, n_tasks], each in 0..1.

    ``scores_by_task``: [n_tasks, n_kept_edges], signed aggregated scores. An edge counts once for a
    block, however many of its ends lie there; shares of a task without any attribution are 0.
    """
    magnitude = np.abs(np.asarray(scores_by_task, dtype=np.float64))
    if magnitude.ndim != 2 or magnitude.shape[1] != len(edge_nodes):
        raise ValueError(
            f"scores_by_task has shape {magnitude.shape}; it must be "
            f"[n_tasks, {len(edge_nodes)} kept edges]"
        )
    if not np.isfinite(magnitude).all():
        raise ValueError("scores_by_task holds values that are not finite")
    edge, block = _incidence(np.asarray(block_of), edge_nodes)
    n_blocks = int(np.max(block_of)) + 1 if len(block_of) else 0
    # bincount adds in edge order, so the bits do not depend on a linear algebra library's threads.
    touched = [np.bincount(block, weights=row[edge], minlength=n_blocks) for row in magnitude]
    shares = np.zeros((n_blocks, len(magnitude)))
    for task, row in enumerate(magnitude):
        if total := float(row.sum()):
            shares[:, task] = touched[task] / total
    return shares


def label_blocks(attribution: np.ndarray, margin: float = 1.0) -> np.ndarray:
    """The task index of each block, int64 [n_blocks]: the largest, ties by task order; SHARED where
    its margin is less than is asked for."""
    if attribution.shape[1] == 0:
        raise ValueError("no task to label the blocks by")
    owns = ~(block_margins(attribution) < margin)
    return np.where(owns, np.argmax(attribution, axis=1), SHARED)


def block_margins(attribution: np.ndarray) -> np.ndarray:
    """How many times the next largest attribution the largest of each block is: float64 [n_blocks],
    inf where no other task has any, NaN of a single task."""
    if attribution.shape[1] < 2:
        return np.full(len(attribution), np.nan)
    following, largest = np.sort(attribution, axis=1)[:, -2:].T
    equal = np.where(largest > 0, np.inf, 1.0)  # nothing has no owner
    return np.divide(largest, following, out=equal, where=following > 0)


def block_purity(attribution: np.ndarray) -> float:
    """The share of the blocks' attribution that is for the task that has most in its block, every
    task weighing the same: Σ_b max_t a[b, t] / Σ_b Σ_t a[b, t]. 1 if each block serves one task,
    NaN of no attribution; the mean over blocks of the first task's share, by attribution."""
    total = float(attribution.sum())
    return float(attribution.max(axis=1, initial=0.0).sum()) / total if total else float("nan")


def block_edge_mask(
    block_of: np.ndarray,
    edge_nodes: Sequence[Sequence[int]],
    labels: np.ndarray,
    task: int,
    mode: Mode,
    always: Sequence[int],
) -> np.ndarray:
    """The kept edges that stay in a block ablation: bool [n_kept_edges].

    ``without``: edges that touch no node of a block labelled ``task``. ``only``: edges of which
    every node is in a block labelled ``task``. Nodes in ``always`` (the ids of embed and logits)
    belong to no task in either mode: a graph without its source or its sink computes nothing,
    whatever else it keeps.
    """
    if mode not in ("without", "only"):
        raise ValueError(f"mode is {mode!r}; allowed: without, only")
    of_task = np.asarray(labels)[np.asarray(block_of)] == task
    forbidden = of_task if mode == "without" else ~of_task
    forbidden[list(always)] = False
    return ~_any_per_edge(edge_nodes, forbidden)


def block_matrix(block_of: np.ndarray, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """Edges from block to block: int64 [n_blocks, n_blocks], row the source's, column the target's.

    ``src``, ``dst``: int [n_edges], node ids of the simple graph that was fitted.
    """
    block_of = np.asarray(block_of, dtype=np.int64)
    n_blocks = int(block_of.max()) + 1 if len(block_of) else 0
    cell = (
        block_of[np.asarray(src, dtype=np.int64)] * n_blocks
        + block_of[np.asarray(dst, dtype=np.int64)]
    )
    return np.bincount(cell, minlength=n_blocks * n_blocks).reshape(n_blocks, n_blocks)


def _flat(edge_nodes: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Edge id and node id of every (edge, touched node) pair, in edge order."""
    counts = np.fromiter((len(nodes) for nodes in edge_nodes), np.int64, len(edge_nodes))
    node = np.fromiter((n for nodes in edge_nodes for n in nodes), np.int64, int(counts.sum()))
    return np.repeat(np.arange(len(edge_nodes)), counts), node


def _incidence(
    block_of: np.ndarray, edge_nodes: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """The distinct (edge, touched block) pairs, by edge and then by block."""
    edge, node = _flat(edge_nodes)
    pairs = np.unique(np.stack([edge, block_of[node]], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _any_per_edge(edge_nodes: Sequence[Sequence[int]], of_node: np.ndarray) -> np.ndarray:
    edge, node = _flat(edge_nodes)
    return np.bincount(edge[of_node[node]], minlength=len(edge_nodes)) > 0
