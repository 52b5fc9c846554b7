"""What a block model's numbers are held against: numbers alone, no model, no run directory.

    saved      1 - Σ/Σ₁, the share of the description length of one block that a partition saves
    p          of a value among values of draws that are its equals if there is no structure
    agreement  adjusted mutual information of two partitions (Vinh, Epps and Bailey 2010): 1 for the
               same, 0 on average for partitions of those sizes that have nothing to do with each
               other
    contrast   how much more a task's own blocks matter to it than other tasks' do

Pinned by tests/blockmodel/test_structure.py.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from edgesweep.engine.graph.base import NodeTable

Partition = tuple[int, ...]
Blocks = Sequence[int] | Int[np.ndarray, " nodes"]

#: draws of a permutation test
PERMUTATIONS = 1999
#: sums of the same numbers in another order differ by less
ROUNDING = 1e-12


def saved(length: float, one_block: float) -> float:
    """Share of the length of one block that is saved; NaN for a graph without edges."""
    return 1 - length / one_block if one_block else float("nan")


def p_value(value: float, draws: Sequence[float] | Float[np.ndarray, " draws"]) -> float:
    """Share of the draws and of the value itself that are at least as large: valid where all are
    exchangeable, at the least 1 / (draws + 1). NaN without draws."""
    found = np.asarray(draws, dtype=np.float64)
    if not len(found) or not np.isfinite([value, *found]).all():
        return float("nan")
    return float((1 + (found >= value).sum()) / (1 + len(found)))


# --- partitions --------------------------------------------------------------------------------


def numbered(blocks: Iterable[Hashable]) -> Partition:
    """Blocks by any names as numbers, in the order of their first nodes."""
    number: dict[Hashable, int] = {}
    return tuple(number.setdefault(block, len(number)) for block in blocks)


def kind_and_depth(table: NodeTable, nodes: Sequence[int], cuts: int | None = None) -> Partition:
    """Some nodes of a graph by what they are and how deep they lie.

    Args:
        cuts: parts of equal depth; None: every layer is one.
    """
    layers = np.asarray(table.layer)[list(nodes)]
    if cuts is not None and len(nodes):
        n_layers = int(np.max(table.layer)) + 1
        layers = np.maximum(layers, 0) * cuts // n_layers
    kinds = [table.kind[node] for node in nodes]
    return numbered(zip(kinds, layers.tolist(), strict=True))


def coarser(table: NodeTable, nodes: Sequence[int]) -> list[Partition]:
    """By kind, and depth in 1, 2, 4, … parts, as far as that is coarser than by layer."""
    n_layers, cuts, found = int(np.max(table.layer)) + 1, 1, []
    while cuts < n_layers:
        found.append(kind_and_depth(table, nodes, cuts))
        cuts *= 2
    return list(dict.fromkeys(found))


def agreement(a: Blocks, b: Blocks) -> float:
    """Adjusted mutual information of two partitions of the same nodes, by scikit-learn; NaN of
    none."""
    from sklearn.metrics import adjusted_mutual_info_score  # a second, for who asks for it

    return float(adjusted_mutual_info_score(a, b)) if len(a) else float("nan")


# --- contrast ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contrast:
    """The mean over tasks of what is left with others' blocks changed less what is left with one's
    own, and the p of it."""

    value: float
    p: float


def contrast(
    left: Float[np.ndarray, "inputs tasks"],
    own: Int[np.ndarray, " inputs"],
    seed: int,
    n: int = PERMUTATIONS,
) -> Contrast:
    """Others minus own: the mean over inputs x of [mean over j ≠ own(x) of left(x, j)] −
    left(x, own(x)).

    Where tasks have as many inputs each, that is the mean off the diagonal less the mean on it of
    the matrix φ[task, blocks]. Its p is that of a permutation test, one-sided: the tasks of inputs
    are shuffled, so that every column is as often somebody's own as it is, and neither that an
    input is sensitive nor that a task's blocks are many counts.

    Args:
        left: what is left of each input's metric, in units of its task's λ(M) − λ(∅), with the
            blocks of each task changed.
        own: the task of each input, as a column of `left`.
    """
    left = np.asarray(left, dtype=np.float64)
    n_tasks, rows = left.shape[1], np.arange(len(left))
    if n_tasks < 2 or not np.isfinite(left).all():
        return Contrast(float("nan"), float("nan"))
    total = left.sum() / (n_tasks - 1) / len(left)

    def of(columns: Int[np.ndarray, " inputs"]) -> float:
        return float(total - left[rows, columns].mean() * n_tasks / (n_tasks - 1))

    draw, value = np.random.default_rng(seed), of(own)
    drawn = np.array([of(draw.permutation(own)) for _ in range(n)])
    return Contrast(value, p_value(value - ROUNDING, drawn))
