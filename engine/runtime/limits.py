"""How long works take, and how long one may before its actor is taken for frozen."""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict

from edgesweep.engine.runtime.work import PoolOptions, Work

#: a work may take so many times as long as the longest of its group that was done
FACTOR = 10
#: the first of a group, of which nothing is known, so many times the floor
UNKNOWN = 6
#: each further attempt so many times the one before: what rightly takes long is done in the end
PATIENCE = 4


class TimeLimits:
    """The limits of a pool's works: as its options say, or by what others of the group took."""

    def __init__(self, options: PoolOptions) -> None:
        self._fixed, self._floor_s = options.work_timeout_s, options.work_floor_s
        self._took_s: dict[str, list[float]] = defaultdict(list)  # by group, sorted

    def of(self, work: Work, attempt: int) -> float:
        """Seconds; attempts are counted from 1."""
        if self._fixed is None:
            return math.inf
        if self._fixed != "auto":
            return float(self._fixed)
        took_s = self._took_s[work.group]
        first_s = UNKNOWN * self._floor_s
        if took_s:
            first_s = max(self._floor_s, FACTOR * took_s[-1])
        return first_s * PATIENCE ** min(attempt - 1, PATIENCE)

    def note(self, work: Work, seconds: float) -> None:
        """A work was done."""
        insort(self._took_s[work.group], seconds)

    def typical_s(self, work: Work) -> float | None:
        """The median of its group; None if none was done."""
        took_s = self._took_s[work.group]
        return took_s[len(took_s) // 2] if took_s else None
