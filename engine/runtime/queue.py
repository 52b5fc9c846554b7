"""The one attempt policy, shared by all executors.

1. Works are handed out by rank, and those of one rank in the order given.
2. A failed attempt sends the work to the *back* of the queue, so that accidents that come in a row
   do not all fall on one innocent work.
3. A work that has used up its attempts is reported and the rest goes on.
4. A mishap that no retry mends stops the run.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from edgesweep.engine.runtime.work import Failure, Mishap, Work, WorkerStopped


class WorkQueue:
    """Works that wait, and how often each was tried. Attempts are counted from 1."""

    def __init__(
        self,
        works: Sequence[Work],
        max_attempts: int,
        on_failed: Callable[[Work, Failure], None],
    ) -> None:
        repeated = [key for key, n in Counter(work.key for work in works).items() if n > 1]
        if repeated:
            raise ValueError(f"two works have the key {repeated[0]!r}; a key names one work")
        self._waiting: list[tuple[float, int, Work]] = []
        self._n_put = 0
        self._attempts: Counter[str] = Counter()
        self._max_attempts = max_attempts
        self._on_failed = on_failed
        self.add(works)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, works: Iterable[Work] | None) -> None:
        """More works, each to its rank."""
        for work in works or ():
            self._put(work, work.rank)

    def _put(self, work: Work, rank: float) -> None:
        self._n_put += 1  # tells works of one rank apart, by age
        heapq.heappush(self._waiting, (rank, self._n_put, work))

    def take(self) -> tuple[Work, int]:
        """The next work and the number of this attempt."""
        work = heapq.heappop(self._waiting)[-1]
        self._attempts[work.key] += 1
        return work, self._attempts[work.key]

    def failed(self, work: Work, mishap: Mishap) -> None:
        """Books a failed attempt: the back of the queue, or `on_failed`. Raises WorkerStopped."""
        if mishap.fatal:
            raise WorkerStopped(mishap.error.partition(": ")[2] or mishap.error)
        attempts = self._attempts[work.key]
        if attempts < self._max_attempts:
            self._put(work, math.inf)
            return
        failure = Failure(work.key, attempts, mishap.kind, mishap.error, mishap.traceback)
        self._on_failed(work, failure)
