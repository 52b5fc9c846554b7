"""The one attempt policy, shared by all executors.

1. Works are handed out in the order given.
2. A failed attempt sends the work to the *back* of the queue, so that accidents that come in a row
   do not all fall on one innocent work.
3. A work that has used up its attempts is reported and the rest goes on.
4. A mishap that no retry mends stops the run.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

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
        self._waiting = deque(works)
        self._attempts: Counter[str] = Counter()
        self._max_attempts = max_attempts
        self._on_failed = on_failed

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> tuple[Work, int]:
        """The next work and the number of this attempt."""
        work = self._waiting.popleft()
        self._attempts[work.key] += 1
        return work, self._attempts[work.key]

    def failed(self, work: Work, mishap: Mishap) -> None:
        """Books a failed attempt: the back of the queue, or `on_failed`. Raises WorkerStopped."""
        if mishap.fatal:
            raise WorkerStopped(mishap.error.partition(": ")[2] or mishap.error)
        attempts = self._attempts[work.key]
        if attempts < self._max_attempts:
            self._waiting.append(work)
            return
        failure = Failure(work.key, attempts, mishap.kind, mishap.error, mishap.traceback)
        self._on_failed(work, failure)
