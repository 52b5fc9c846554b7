"""Search over sizes for the smallest that will do: which sizes to measure next, and what is known
by then. No model, no run directory: a caller measures, and tells for each size whether it passes.

A *level* asks for the smallest size that passes. Size 0 is taken to fail. Two searches differ in
what they make of a curve that is not monotone:

    lasting    the smallest measured size that passes and above which all measured ones do. Every
               measurement counts, whoever asked for it (a grid, another level), so that several
               levels of one curve are searched together, some sizes of each at a time
    `Halving`  bisection as it is published (the edges that LIB needs): its own midpoints alone
               count, in order; those of the next levels of its tree may be measured ahead at once,
               and the answer is the same

Both end between two neighbours, one that fails and one that passes. Pinned by
tests/evaluation/test_search.py against every size tried.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

#: of several circuits in one forward, what each costs beside the first, over one alone: 16 take 7
#: times as long (benchmarks/attribution.py)
FURTHER = 0.4
#: sizes of each level that are measured at once, at most
MOST_EACH = 4


@dataclass(frozen=True)
class Bracket:
    """What is known of a level.

    Attributes:
        fails: the largest measured size that does not pass; 0 where none is.
        passes: the smallest measured one above it; None where none is.
        top: the largest size that there is.
    """

    fails: int
    passes: int | None
    top: int

    @property
    def upper(self) -> int:
        """The end above which nothing is asked for."""
        return self.top if self.passes is None else self.passes

    @property
    def is_reached(self) -> bool:
        return self.passes is not None

    def is_open(self, within: float = 0.0) -> bool:
        """Whether a size between its ends may be the answer. `within`: the share by which an answer
        may be above the smallest."""
        if self.passes is None:
            return self.fails < self.top
        return self.passes - self.fails > max(1.0, within * self.passes)


def bracket(passed: Mapping[int, bool], top: int) -> Bracket:
    """What measured sizes, 1 to `top`, say of a level: of a curve that dips, the size after its
    last dip that was seen."""
    fails = max((size for size, passes in passed.items() if not passes), default=0)
    return Bracket(fails, min((size for size in passed if size > fails), default=None), top)


def ask(brackets: Iterable[Bracket], each: int, within: float = 0.0) -> list[int]:
    """Sizes to measure next, ascending; none where every level is decided.

    Args:
        brackets: one a level. `each` sizes are asked for a level, evenly spaced, levels that have
            the same ends together; beside these an upper end that was not measured.
    """
    found: set[int] = set()
    for span, levels in Counter(b for b in brackets if b.is_open(within)).items():
        found.update(between(span.fails, span.upper, each * levels))
        if not span.is_reached:
            found.add(span.top)
    return sorted(found)


def between(low: int, high: int, n: int) -> list[int]:
    """At most `n` sizes strictly between two, evenly spaced."""
    steps = (low + (high - low) * i // (n + 1) for i in range(1, n + 1))
    return sorted({size for size in steps if low < size < high})


def rounds(gap: int, each: int) -> int:
    """How often sizes are asked for, at most, until a level between sizes that are `gap` apart is
    decided, if measurements for other levels leave it where it is."""
    n = 0
    while gap > 1:
        gap, n = -(-gap // (each + 1)), n + 1
    return n


@cache
def cheapest(levels: int) -> int:
    """How many sizes a level to measure at once: n of them cut what is left to a 1/(n + 1)-th, and
    with those of other levels cost 1 + `FURTHER` (n · levels − 1) runs of one. Of two about as
    cheap, the more, for rounds wait for each other."""

    def cost(n: int) -> float:
        return (1 + FURTHER * (n * levels - 1)) / float(np.log2(n + 1))

    costs = {n: cost(n) for n in range(1, MOST_EACH + 1)}
    return max(n for n, of_n in costs.items() if of_n <= 1.02 * min(costs.values()))


# --- bisection as it is published --------------------------------------------------------------


@dataclass(frozen=True)
class Halving:
    """Bisection between two sizes, of which `low` is taken to fail and `high` to pass, neither of
    them measured: each midpoint becomes the upper end if it passes, else the lower one. The answer
    is the upper end once the two are neighbours.

    Attributes:
        up: midpoints are rounded up, as they are where the number of edges that are cut is halved
            (LIB: p = (lower + upper) // 2 of the edges are cut, all others kept).
    """

    low: int
    high: int
    up: bool = False

    def narrowed(self, passed: Mapping[int, bool]) -> tuple[int, int]:
        """Its ends, as far as its own midpoints are measured, in order. Others do not count."""
        low, high = self.low, self.high
        for middle in self.asked(passed):
            low, high = (low, middle) if passed[middle] else (middle, high)
        return low, high

    def asked(self, passed: Mapping[int, bool]) -> list[int]:
        """Its own midpoints that are measured, in the order in which it asks for them."""
        low, high, found = self.low, self.high, list[int]()
        while high - low > 1 and (middle := self._middle(low, high)) in passed:
            found.append(middle)
            low, high = (low, middle) if passed[middle] else (middle, high)
        return found

    def ahead(self, passed: Mapping[int, bool], depth: int) -> list[int]:
        """The midpoints of the next `depth` levels of its tree, whichever way it goes, ascending:
        at most 2**depth − 1; none once the answer is known."""
        spans, found = [self.narrowed(passed)], list[int]()
        for _ in range(depth):
            spans = [span for span in spans if span[1] - span[0] > 1]
            middles = [self._middle(*span) for span in spans]
            found += middles
            pairs = zip(spans, middles, strict=True)
            spans = [half for (low, high), m in pairs for half in ((low, m), (m, high))]
        return sorted(found)

    def answer(self, passed: Mapping[int, bool]) -> int | None:
        """None until it is known."""
        low, high = self.narrowed(passed)
        return high if high - low <= 1 else None

    def _middle(self, low: int, high: int) -> int:
        return (low + high + self.up) // 2
