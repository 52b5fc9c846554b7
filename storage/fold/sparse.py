"""The statistics of `fold` for scores that are lists of pairs, not a row of all edges. numpy only.

1. An input is a list of (code, score), a code standing for an edge; codes that come twice are
   added. An edge that an input does not list has the score 0 there.
2. Inputs are added one after the other, in their order, so the bits depend on nothing else.
3. Codes fall into parts by a hash; each part can be folded by itself, so memory is bounded by the
   number of parts. `strongest` keeps the edges of largest mean |score| and says what is dropped.

Scores that are not finite are counted in n_bad and enter nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edgesweep.storage.fold.tree import finish

#: rows of `SparseFold.stats`
SUM, SUMSQ, SUM_ABS, MAX, MAX_ABS, LISTED, BAD = range(7)
#: a multiplier whose high bits mix those of a code
_MIXER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class SparseFold:
    """Sums over inputs of the edges that any of them lists.

    Attributes:
        codes: ascending, `[edges]` int64.
        stats: `[7, edges]` float64: of finite scores the sum, the sum of squares and of magnitudes,
            the largest and the largest magnitude of those listed, how many are listed; how many
            listed ones are not finite.
        n_inputs: how many inputs were added.
    """

    codes: np.ndarray
    stats: np.ndarray
    n_inputs: int

    @classmethod
    def empty(cls) -> SparseFold:
        return cls(np.zeros(0, dtype=np.int64), np.zeros((7, 0)), 0)

    def at(self, codes: np.ndarray) -> SparseFold:
        """The same of the given edges (ascending), listed here or not."""
        stats = _blank(len(codes))
        place = np.searchsorted(codes, self.codes)
        known = place < len(codes)
        known[known] = codes[place[known]] == self.codes[known]
        stats[:, place[known]] = self.stats[:, known]
        return SparseFold(codes, stats, self.n_inputs)

    def merge(self, other: SparseFold) -> SparseFold:
        """The inputs of both, these first."""
        codes = np.union1d(self.codes, other.codes)
        left, right = self.at(codes).stats, other.at(codes).stats
        stats = left + right
        for row in (MAX, MAX_ABS):
            stats[row] = np.fmax(left[row], right[row])
        return SparseFold(codes, stats, self.n_inputs + other.n_inputs)

    def finish(self) -> dict[str, np.ndarray]:
        """float64 `[edges]` for each of `fold.AGGREGATIONS`, int64 for n and n_bad."""
        s, n = self.stats, self.n_inputs
        absent = s[LISTED] + s[BAD] < n
        largest = np.where(absent, np.fmax(s[MAX], 0.0), s[MAX])
        magnitude = np.where(absent, np.fmax(s[MAX_ABS], 0.0), s[MAX_ABS])
        good = n - s[BAD]
        partial = np.stack([good, s[BAD], s[SUM], s[SUMSQ], s[SUM_ABS], largest, magnitude])
        return finish(partial + 0.0)  # no -0.0


def _blank(n: int) -> np.ndarray:
    stats = np.zeros((7, n))
    stats[[MAX, MAX_ABS]] = np.nan
    return stats


def one_input(codes: np.ndarray, scores: np.ndarray) -> SparseFold:
    """The fold of one input; codes that come twice are added in the order given."""
    codes, place = np.unique(np.asarray(codes, dtype=np.int64), return_inverse=True)
    value = np.zeros(len(codes))
    np.add.at(value, place, np.asarray(scores, dtype=np.float64))
    good = np.isfinite(value)
    finite = np.where(good, value, 0.0)
    listed = np.where(good, value, np.nan)
    stats = [finite, finite**2, np.abs(finite), listed, np.abs(listed), good, ~good]
    return SparseFold(codes, np.stack(stats).astype(np.float64), 1)


def fold_inputs(inputs: Iterable[tuple[np.ndarray, np.ndarray]]) -> SparseFold:
    """(codes, scores) of inputs, in order."""
    total = SparseFold.empty()
    for codes, scores in inputs:
        total = total.merge(one_input(codes, scores))
    return total


def part_of(codes: np.ndarray, n_parts: int) -> np.ndarray:
    """The part `[codes]` that each code falls into, by a hash that spreads neighbours."""
    mixed = codes.astype(np.uint64) * _MIXER >> np.uint64(32)
    return (mixed % np.uint64(n_parts)).astype(np.int64)


def strongest(folds: Sequence[SparseFold], n: int) -> tuple[np.ndarray, float]:
    """Of disjoint parts, the codes (ascending) of the `n` edges with the largest mean |score|, ties
    by code, and the share of all mean |score| that the others hold."""
    codes = np.concatenate([f.codes for f in folds]) if folds else np.zeros(0, dtype=np.int64)
    mass = np.concatenate([f.stats[SUM_ABS] for f in folds]) if folds else np.zeros(0)
    order = np.lexsort((codes, -mass))[:n]
    kept, total = np.sort(codes[order]), float(mass.sum())
    return kept, 1.0 - float(mass[order].sum()) / total if total else 0.0
