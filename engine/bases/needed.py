"""How many edges a network needs to stay within a bound of its own score: from the score of each
input by the number of edges that are kept, whatever is measured.

`published`  LIB's bisection (`engine.statistics.search.Halving`) between none and all of
             (d + 1)(d′ + 1) edges, sizes before any cut and with the constants, as if the score
             rose with the number of edges. It does not always, so that what it ends at hangs on its
             steps, which are reproduced.
robust       the smallest measured number from which on every larger one that was measured passes,
             whichever search asked for it (`bracket` there): over a grid, and then between its
             neighbours until the number below it is one that fails (`settle`).

A resample of the inputs has a robust number of its own, of the same measured scores; numbers are
measured until those of all resamples are known within a share (`RESOLVED`). Resamples are the same
for every basis, so that the difference of two is resampled too. A number above that of all edges is
the network as it is.

Pinned by tests/bases/test_needed.py to the published loop and to every number tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from edgesweep.engine.statistics.search import Bracket, Halving, ask, bracket

#: of a resample's number, the share by which it may be too large
RESOLVED = 0.05

Scores = Float[np.ndarray, " inputs"]
Weights = Float[np.ndarray, "draws inputs"]


@dataclass(frozen=True)
class Bound:
    """At most `within` worse than the network's own score; `more`: more is better."""

    within: float
    more: bool

    def met(self, score: np.ndarray, base: np.ndarray) -> np.ndarray:
        held: np.ndarray = score >= base - self.within if self.more else score <= base + self.within
        return held


@dataclass
class Curve:
    """Scores by the number of edges that are kept.

    Args:
        measure: the score of each input with so many edges, from 1 to `top`.
        base: the network's own.
        top: a number that asks for the network as it is, and so passes.
    """

    measure: Callable[[int], Scores]
    base: Scores
    bound: Bound
    top: int
    scores: dict[int, Scores] = field(default_factory=dict)

    def tried(self, sizes: Iterable[int]) -> None:
        """Measures what is not known yet."""
        for size in sizes:
            if size not in self.scores:
                self.scores[size] = self.measure(size)

    @property
    def passed(self) -> dict[int, bool]:
        """Of all inputs, which numbers suffice."""
        return {
            size: bool(self.bound.met(scores.mean(), self.base.mean()))
            for size, scores in self.scores.items()
        }

    def brackets(self, weights: Weights | None = None) -> list[Bracket]:
        """What is known of the robust number: of each resample, or of all inputs."""
        if weights is None:
            return [bracket(self.passed, self.top)]
        sizes, passed = self._under(weights)
        kinds, which = np.unique(passed, axis=1, return_inverse=True)
        found = [
            bracket(dict(zip(sizes, kind.tolist(), strict=True)), self.top) for kind in kinds.T
        ]
        return [found[place] for place in which.ravel()]

    def robust(self, weights: Weights | None = None) -> Int[np.ndarray, " draws"]:
        """The robust number of each resample, or of all inputs."""
        return np.array([found.upper for found in self.brackets(weights)])

    def _under(self, weights: Weights) -> tuple[list[int], Bool[np.ndarray, "sizes draws"]]:
        sizes = sorted(self.scores)
        means = np.stack([self.scores[size] for size in sizes]) @ weights.T
        return sizes, self.bound.met(means, weights @ self.base)


def published(curve: Curve, total: int, depth: int = 1) -> tuple[int, list[int]]:
    """The published bisection.

    Args:
        total: all edges, of sizes before any cut.
        depth: how many of its steps are measured ahead, whatever they find; the answer is the same.

    Returns:
        What is needed, and the numbers that were asked for, in order.
    """
    halving = Halving(0, total, up=True)
    while (answer := halving.answer(curve.passed)) is None:
        curve.tried(halving.ahead(curve.passed, depth))
    return answer, halving.asked(curve.passed)


def settle(curve: Curve, weights: Weights | None = None, within: float = 0.0) -> None:
    """Measures until the robust number of all inputs, or those of all resamples, are known within a
    share."""
    while sizes := ask(sorted(set(curve.brackets(weights)), key=_ends), 1, within):
        curve.tried(sizes)


def _ends(found: Bracket) -> tuple[int, int]:
    return found.fails, found.upper


def log_sizes(n: int, points: int) -> list[int]:
    """Numbers of edges from 1 to n, evenly spaced by ratio."""
    if n < 1:
        return []
    return sorted({int(k) for k in np.unique(np.round(np.geomspace(1, n, points)))})


def shared_out(total: int, wanted: Sequence[int], most: Sequence[int]) -> list[int]:
    """Some edges among sections in proportion to what is wanted of each; what a section has not
    goes to the others. Of parts of an edge the largest are rounded up, earlier sections first.

    Args:
        wanted: of each section, at least 1. most: of each section, all that there are.
    """
    left, found = min(total, sum(most)), [0] * len(wanted)
    open_ = set(range(len(wanted)))
    while open_:
        whole = sum(wanted[i] for i in open_)
        full = {i for i in open_ if left * wanted[i] >= most[i] * whole}
        if not full:
            break
        for i in full:
            found[i] = most[i]
            left -= most[i]
        open_ -= full
    if open_:
        whole = sum(wanted[i] for i in open_)
        for i in open_:
            found[i] = left * wanted[i] // whole
        over = left - sum(found[i] for i in open_)
        by_part = sorted(open_, key=lambda i: (-(left * wanted[i] % whole), i))
        for i in by_part[:over]:
            found[i] += 1
    return found
