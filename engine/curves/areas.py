"""Whole curves of faithfulness φ against size in one number each, of what was measured alone.

    mean_over_log_size   φ over the logarithm of the size, from the smallest to the largest that was
                         measured; beside it `share_of_log_axis`, how much of all sizes that is
    cpr, cmd             the circuit performance ratio and circuit model distance of MIB

The size of a circuit is how many edges were *selected*, before pruning: the axis is then the same
for all ablations, patches and metrics, and a circuit that broke stays where it was asked for. One
that prunes to nothing is the empty circuit, φ = 0 (`of_whole`). φ is not clipped: it may be below 0
or above 1. No point is made up: where too few were measured there is no number (NaN).

MIB (Mueller et al. 2025, section 3.2 and its code) measures the shares `MIB_SHARES` of all that is
scored, each rounded down to a number of edges, and takes the trapezoid over the shares as they
stand, from 0.1% to all:

    CPR = ∫ φ dk    of edges that rank first by signed score, `topk_value`; may exceed 1
    CMD = ∫ |1 − φ| dk    of those that rank first by magnitude, `topk_abs`; 0 is best

Summed in float64. Pinned by tests/evaluation/test_areas.py, by hand.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

Array = Float[np.ndarray, "..."]
#: an array, or where no axis is left a number
Numbers = Array | np.float64
#: of each circuit the edges, and φ `[*lead, sizes]`
Sizes = Int[np.ndarray, " sizes"] | Sequence[int]
Curves = Array | Sequence[float]

#: of all that is scored
MIB_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def size_of_share(share: float, n: int) -> int:
    """Edges in a share of `n`, rounded down; a share that is a whole number of edges is that."""
    return math.floor(share * n + 1e-9)


def of_whole(n_edges: Sizes, faithfulness: Curves) -> Array:
    """φ as curves have it: 0 for a circuit of which no edge is left.

    Args:
        n_edges: edges of each circuit as it was run.
        faithfulness: `[*lead, sizes]`.
    """
    return np.where(np.asarray(n_edges) == 0, 0.0, np.asarray(faithfulness, dtype=np.float64))


def mean_over_log_size(selected: Sizes, faithfulness: Curves) -> Numbers:
    """Mean of φ over the logarithm of size, between the points linear in it; NaN with fewer than
    two sizes, or where a φ is NaN.

    Args:
        selected: edges that were selected of each circuit. Circuits of one size are averaged; those
            of none are not on the axis.
        faithfulness: `[*lead, sizes]`, as `of_whole` has it.
    """
    sizes, phi = _points(selected, faithfulness)
    if len(sizes) < 2:
        return np.full(phi.shape[:-1], np.nan)[()]
    x = np.log(sizes)
    return np.trapezoid(phi, x, axis=-1) / (x[-1] - x[0])


def share_of_log_axis(selected: Sizes, n_possible: int) -> float:
    """How much of the logarithmic axis, from one edge to all `n_possible`, lies between the
    smallest size and the largest."""
    sizes = [size for size in np.asarray(selected).tolist() if size > 0]
    if not sizes or n_possible < 2:
        return 0.0
    return math.log(max(sizes) / min(sizes)) / math.log(n_possible)


def cpr(selected: Sizes, faithfulness: Curves, n_scored: int) -> Numbers:
    """∫ φ dk over MIB's shares of `n_scored` edges; NaN unless all of them were measured.

    Args:
        selected, faithfulness: as above; nodes in place of edges for methods that score nodes, as
            MIB has it.
    """
    return np.trapezoid(_at_shares(selected, faithfulness, n_scored), MIB_SHARES, axis=-1)


def cmd(selected: Sizes, faithfulness: Curves, n_scored: int) -> Numbers:
    """∫ |1 − φ| dk, as `cpr`."""
    phi = _at_shares(selected, faithfulness, n_scored)
    return np.trapezoid(np.abs(1 - phi), MIB_SHARES, axis=-1)


def _at_shares(selected: Sizes, faithfulness: Curves, n_scored: int) -> Array:
    """φ `[*lead, share]` at MIB's shares, NaN where none was measured. A share that comes to no
    edge is the empty circuit."""
    sizes, phi = _points(selected, faithfulness)
    found = np.full((*phi.shape[:-1], len(MIB_SHARES)), np.nan)
    for place, share in enumerate(MIB_SHARES):
        size = size_of_share(share, n_scored)
        at = np.flatnonzero(sizes == size)
        if size == 0:
            found[..., place] = 0.0
        elif len(at):
            found[..., place] = phi[..., at[0]]
    return found


def _points(
    selected: Sizes, faithfulness: Curves
) -> tuple[Int[np.ndarray, " points"], Float[np.ndarray, "*lead points"]]:
    """Sizes above 0, ascending, each once, and the mean φ of its circuits."""
    all_sizes = np.asarray(selected, dtype=np.int64)
    some = all_sizes > 0
    phi = np.asarray(faithfulness, dtype=np.float64)[..., some]
    sizes, place = np.unique(all_sizes[some], return_inverse=True)
    sums = [phi[..., place == i].mean(-1) for i in range(len(sizes))]
    lead = (*phi.shape[:-1], 0)
    return sizes, np.stack(sums, axis=-1) if sums else np.zeros(lead)
