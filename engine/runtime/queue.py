"""Works that wait, and who takes which of them.

1. Works are handed out by rank, and those of one rank in the order given.
2. A worker takes first what needs the thing that it holds (a model), whatever its rank, for
   fetching another takes long; or what needs none.
3. What was lost through no fault of its own goes to the *front*, and what failed to the *back*, so
   that accidents that come in a row do not all fall on one innocent work.
4. No work goes where it has failed, as long as there is another node for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Set
from typing import NamedTuple

from edgesweep.engine.runtime.work import Work

FRONT, ORDINARY, BACK = 0, 1, 2
NOWHERE: frozenset[str] = frozenset()


class _Bucket(NamedTuple):
    """What works that wait have in common: whose turn it is, what they need, where they failed."""

    turn: int
    holds: str
    failed_on: frozenset[str]

    def is_for(self, node: str, nodes: Set[str]) -> bool:
        return node not in self.failed_on or nodes <= self.failed_on


class WorkQueue:
    """Works that wait."""

    def __init__(self, works: Iterable[Work]) -> None:
        self._waiting: dict[_Bucket, list[tuple[int, int, Work]]] = {}
        self._n = self._n_put = 0
        keys: set[str] = set()
        for work in works:
            if work.key in keys:
                raise ValueError(f"two works have the key {work.key!r}; a key names one work")
            keys.add(work.key)
            self.put(work, ORDINARY)

    def __len__(self) -> int:
        return self._n

    def add(self, works: Iterable[Work] | None) -> None:
        """More works, each to its rank."""
        for work in works or ():
            self.put(work, ORDINARY)

    def put(self, work: Work, turn: int, failed_on: Iterable[str] = NOWHERE) -> None:
        """One work, again. Among those that failed the one that failed first comes first."""
        self._n_put += 1  # tells works of one rank apart, by age
        rank = 0 if turn == BACK else work.rank
        bucket = _Bucket(turn, work.holds, frozenset(failed_on))
        heapq.heappush(self._waiting.setdefault(bucket, []), (rank, self._n_put, work))
        self._n += 1

    def take(self, node: str, holds: str, nodes: Set[str]) -> Work | None:
        """The next work for a worker.

        Args:
            node: where it lives. holds: the last that it was asked for.
            nodes: where there are workers.
        """
        buckets = [bucket for bucket in self._waiting if bucket.is_for(node, nodes)]
        if not buckets:
            return None
        first = min(bucket.turn for bucket in buckets)
        buckets = [bucket for bucket in buckets if bucket.turn == first]
        near = [bucket for bucket in buckets if not holds or bucket.holds in ("", holds)]
        bucket = min(near or buckets, key=lambda bucket: self._waiting[bucket][0])
        work = heapq.heappop(self._waiting[bucket])[-1]
        if not self._waiting[bucket]:
            del self._waiting[bucket]
        self._n -= 1
        return work
