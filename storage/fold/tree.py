"""Per-edge statistics that do not depend on the order in which shards arrive. numpy only.

1. A shard of scores becomes a partial, float64 [7, E], its rows added in order.
2. Partials are leaves of a fixed binary tree keyed by the shard's index: node (level, i) merges
   (level-1, 2i) with (level-1, 2i+1), left operand first; a node without a sibling moves up as it
   is. Floating-point addition is not associative, so the tree, not the arrival, sets the bits.
   A block of 2^k leaves that begins at a multiple of 2^k is a node of level k, so it may be folded
   by itself: the tree over such blocks is the upper part of the tree over their leaves.
3. `finish` takes the means, once, at the end.

Scores that are not finite are counted in n_bad and enter nothing else. Every step works edge by
edge, so any range of edges may be folded by itself with the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

STATS = ("n", "n_bad", "sum", "sumsq", "sum_abs", "max", "max_abs")
AGGREGATIONS = ("mean", "max", "rms", "mean_abs", "max_abs")
_N, _BAD, _SUM, _SUMSQ, _SUM_ABS, _MAX, _MAX_ABS = range(7)


def partial(scores: np.ndarray) -> np.ndarray:
    """scores [rows, E] -> float64 [7, E], in the order of STATS; max of no finite row is NaN."""
    scores = np.asarray(scores)
    result = empty_partial(scores.shape[1])
    for row in scores:  # row by row: numpy's own sum over an axis may pair rows up by width
        _add_row(result, row.astype(np.float64))
    return result


def empty_partial(n_edges: int) -> np.ndarray:
    """The partial of no rows, which changes nothing it is merged with."""
    result = np.zeros((len(STATS), n_edges))
    result[[_MAX, _MAX_ABS]] = np.nan
    return result


def _add_row(result: np.ndarray, row: np.ndarray) -> None:
    good = np.isfinite(row)
    value = np.where(good, row, 0.0)
    magnitude = np.abs(value)
    result[_N] += good
    result[_BAD] += ~good
    result[_SUM] += value
    result[_SUMSQ] += value * value
    result[_SUM_ABS] += magnitude
    result[_MAX] = _larger(result[_MAX], np.where(good, row, np.nan))
    result[_MAX_ABS] = _larger(result[_MAX_ABS], np.where(good, magnitude, np.nan))


def _larger(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The larger that is a number. Adding 0.0 turns -0.0 into 0.0: which zero fmax returns depends
    on the order."""
    return np.fmax(a, b) + 0.0


def merge(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two partials, [7, E] each, as one."""
    result = left + right
    result[_MAX] = _larger(left[_MAX], right[_MAX])
    result[_MAX_ABS] = _larger(left[_MAX_ABS], right[_MAX_ABS])
    return result


#: of a packed partial, an edge: n and n_bad, max and max_abs, three sums
WORDS = 5


def pack(partial: np.ndarray) -> np.ndarray:
    """partial [7, E] of float32 scores -> uint64 [E, 5] without loss, 40 bytes an edge: counts are
    below 2**32, and what is largest is one of the scores."""
    words = np.empty((WORDS, partial.shape[1]), np.uint64)
    words[0] = _halves(partial[_N].astype(np.uint32), partial[_BAD].astype(np.uint32))
    largest = partial[[_MAX, _MAX_ABS]].astype(np.float32).view(np.uint32)
    words[1] = _halves(largest[0], largest[1])
    words[2:] = partial[[_SUM, _SUMSQ, _SUM_ABS]].view(np.uint64)
    return np.ascontiguousarray(words.T)


def unpack(words: np.ndarray) -> np.ndarray:
    """What `pack` packed."""
    words = np.ascontiguousarray(words.T)
    result = np.empty((len(STATS), words.shape[1]))
    result[[_N, _BAD]] = _both(words[0])
    result[[_MAX, _MAX_ABS]] = _both(words[1]).view(np.float32)
    result[[_SUM, _SUMSQ, _SUM_ABS]] = words[2:].view(np.float64)
    return result


def _halves(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)


def _both(words: np.ndarray) -> np.ndarray:
    return np.stack([words.astype(np.uint32), (words >> np.uint64(32)).astype(np.uint32)])


class TreeFold:
    """The tree over `n_leaves` shards. Leaves come in any order; in index order about log2(n) nodes
    are held at a time. Leaves that never come (quarantined shards) are left out."""

    def __init__(self, n_leaves: int) -> None:
        self._n_leaves = n_leaves
        self._nodes: dict[tuple[int, int], np.ndarray] = {}
        self._seen: set[int] = set()

    def add(self, index: int, leaf: np.ndarray) -> None:
        """Raises ValueError for an index out of range or given before."""
        if not 0 <= index < self._n_leaves or index in self._seen:
            raise ValueError(
                f"leaf {index} of {self._n_leaves} is out of range or was added before"
            )
        self._seen.add(index)
        level, node = 0, leaf
        while (sibling := self._nodes.pop((level, index ^ 1), None)) is not None:
            node = merge(node, sibling) if index % 2 == 0 else merge(sibling, node)
            level, index = level + 1, index // 2
        self._nodes[level, index] = node

    def result(self) -> np.ndarray | None:
        """The root; None if no leaf came. Ends the fold."""
        level = 0
        while self._nodes and (len(self._nodes) > 1 or max(self._nodes)[0] > level):
            self._move_up(level)
            level += 1
        return next(iter(self._nodes.values()), None)

    def _move_up(self, level: int) -> None:
        """Merges or moves every node of a level to the next one."""
        for _, index in sorted(key for key in self._nodes if key[0] == level):
            node = self._nodes.pop((level, index), None)
            if node is None:  # merged into its left sibling
                continue
            sibling = self._nodes.pop((level, index + 1), None) if index % 2 == 0 else None
            parent = (level + 1, index // 2)
            self._nodes[parent] = node if sibling is None else merge(node, sibling)


def fold(leaves: Iterable[tuple[int, np.ndarray]], n_leaves: int, n_edges: int) -> np.ndarray:
    """(shard index, partial [7, E]) in any order -> partial [7, E] of all of them."""
    tree = TreeFold(n_leaves)
    for index, leaf in leaves:
        tree.add(index, leaf)
    root = tree.result()
    return empty_partial(n_edges) if root is None else root


def finish(folded: np.ndarray) -> dict[str, np.ndarray]:
    """partial [7, E] -> float64 [E] for each of AGGREGATIONS and int64 [E] for n and n_bad. An edge
    without a finite score has NaN."""
    n = folded[_N]
    count = np.where(n > 0, n, np.nan)
    return {
        "mean": folded[_SUM] / count,
        "max": folded[_MAX].copy(),
        "rms": np.sqrt(folded[_SUMSQ] / count),
        "mean_abs": folded[_SUM_ABS] / count,
        "max_abs": folded[_MAX_ABS].copy(),
        "n": n.astype(np.int64),
        "n_bad": folded[_BAD].astype(np.int64),
    }
