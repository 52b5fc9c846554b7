"""Who does what: the one policy of all executors. It knows no Ray, and tells the time by the clock
that it is given, so that whole pools can be simulated.

An executor asks `next` for each worker that is free, and says how each attempt ended: `done`,
`failed`, `lost` (with its node) or `given_back` (not done, and nobody's fault).

A *backup* is a second attempt at a work that takes much longer than others of its group, made when
nothing else waits; the first of the two to be done ends the other.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Set
from dataclasses import dataclass

from edgesweep.engine.runtime.blame import Blame
from edgesweep.engine.runtime.limits import TimeLimits
from edgesweep.engine.runtime.queue import BACK, FRONT, WorkQueue
from edgesweep.engine.runtime.work import (
    Event,
    Failure,
    Mishap,
    PoolOptions,
    RunRefused,
    Tell,
    Work,
    WorkerStopped,
)

#: a work is copied once it has taken so many times the median of its group
SLOW = 1.5


@dataclass(eq=False)
class Attempt:
    """One attempt at a work, on a node. `number` counts them from 1."""

    work: Work
    number: int
    node: str
    began: float
    limit_s: float
    is_copy: bool = False


class Policy:
    """The works of one run of an executor.

    Args:
        blame, limits: what was learned before; they outlive the run.
        on_failed: hears of each work that is given up.
        tell: hears what a person should know.
    """

    def __init__(
        self,
        works: Iterable[Work],
        options: PoolOptions,
        on_failed: Callable[[Work, Failure], None],
        blame: Blame | None = None,
        limits: TimeLimits | None = None,
        tell: Tell = lambda event: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue, self._options = WorkQueue(works), options
        self._blame, self._limits = blame or Blame(options), limits or TimeLimits(options)
        self._on_failed, self._tell, self._clock = on_failed, tell, clock
        self._n_given: Counter[str] = Counter()
        self._nodes: Set[str] = frozenset()
        self._copied: set[str] = set()  # works with two attempts in flight
        self.in_flight: list[Attempt] = []

    @property
    def n_waiting(self) -> int:
        return len(self._queue)

    @property
    def is_over(self) -> bool:
        return not self.in_flight and not self.n_waiting

    def add(self, works: Iterable[Work] | None) -> None:
        """Works that have become ready."""
        self._queue.add(works)

    def next(self, node: str, holds: str, nodes: Collection[str]) -> Attempt | None:
        """What a free worker does next, if anything.

        Args:
            node: where it lives. holds: what it holds.
            nodes: where there are workers.
        """
        self._nodes = {*nodes} - {*self._blame.shut_out}
        trusted = {other for other in self._nodes if self._blame.may_have(other, self._nodes)}
        if node not in trusted:
            return None
        work = self._queue.take(node, holds, trusted)
        if work is not None:
            return self._begin(work, node)
        slow = self._slowest(node) if self._options.backup else None
        if slow is None:
            return None
        key = slow.work.key
        text = f"{key} takes long: begun a second time elsewhere"
        self._tell(Event("backup", text, {"work": key}))
        return self._begin(slow.work, node, is_copy=True)

    def _begin(self, work: Work, node: str, is_copy: bool = False) -> Attempt:
        self._n_given[work.key] += 1
        limit_s = self._limits.of(work, len(self._blame.failed_on(work.key)) + 1)
        number = self._n_given[work.key]
        if is_copy:
            self._copied.add(work.key)
        self.in_flight.append(Attempt(work, number, node, self._clock(), limit_s, is_copy))
        return self.in_flight[-1]

    def _slowest(self, node: str) -> Attempt | None:
        """The work that most needs a copy, of those without one that run elsewhere."""
        slowest, most = None, SLOW
        for attempt in self.in_flight:
            seconds = self.seconds(attempt)
            if seconds <= self._options.backup_floor_s:
                break  # they stand in the order in which they began
            typical_s = self._limits.typical_s(attempt.work)
            is_elsewhere = attempt.node != node or len(self._nodes) == 1
            if typical_s is None or not is_elsewhere or attempt.work.key in self._copied:
                continue
            if seconds > most * (typical_s := max(typical_s, 1e-9)):
                slowest, most = attempt, seconds / typical_s
        return slowest

    def seconds(self, attempt: Attempt) -> float:
        """How long it has been at it."""
        return self._clock() - attempt.began

    def is_late(self, attempt: Attempt) -> bool:
        """Whether it has taken longer than it may."""
        return self.seconds(attempt) > attempt.limit_s

    # --- how attempts end ----------------------------------------------------------------------
    def done(self, attempt: Attempt) -> list[Attempt]:
        """Returns the other attempt at the work, which is to be ended."""
        others = self._end(attempt)
        self._limits.note(attempt.work, self.seconds(attempt))
        for other in others:
            self.in_flight.remove(other)
        if guilty := self._blame.done(attempt.work.key, attempt.node):
            self._say_shut_out(guilty)
        return others

    def failed(self, attempt: Attempt, mishap: Mishap) -> None:
        """It raised, or its process died and the node lives. Raises WorkerStopped."""
        if mishap.fatal:
            stopped = RunRefused if mishap.refusal else WorkerStopped
            raise stopped(mishap.error.partition(": ")[2] or mishap.error)
        if self._end(attempt):
            return
        work = attempt.work
        if guilty := self._blame.failed(work.key, mishap):
            self._say_shut_out(guilty)
        failed_on = self._blame.failed_on(work.key)
        if failed_on and self._blame.is_hopeless(work.key, self._nodes):
            self._blame.give_up(work.key)
            self._give_up(work, len(failed_on), mishap)
            return
        if not failed_on or self._blame.is_trial(work.key, self._nodes):
            self._put_first(work)
        else:
            self._queue.put(work, BACK, failed_on)

    def lost(self, attempt: Attempt, mishap: Mishap) -> None:
        """Its node is gone."""
        work = attempt.work
        if self._end(attempt):
            return
        if self._blame.lost(work.key):
            self._give_up(work, self._n_given[work.key], mishap)
        else:
            self._put_first(work)

    def given_back(self, attempt: Attempt) -> None:
        """It was not done, through no fault of its own or the node's."""
        if not self._end(attempt):
            self._put_first(attempt.work)

    def _put_first(self, work: Work) -> None:
        self._queue.put(work, FRONT, self._blame.failed_on(work.key))

    def _end(self, attempt: Attempt) -> list[Attempt]:
        """Returns other attempts at its work that go on."""
        self.in_flight.remove(attempt)
        if attempt.work.key not in self._copied:
            return []
        self._copied.discard(attempt.work.key)
        return [other for other in self.in_flight if other.work.key == attempt.work.key]

    def _give_up(self, work: Work, attempts: int, mishap: Mishap) -> None:
        self._on_failed(work, Failure.of(work.key, attempts, mishap))

    def _say_shut_out(self, node: str) -> None:
        self._tell(shut_out(self._blame.shut_out[node]))


def shut_out(mishap: Mishap) -> Event:
    """What a person hears, once, of a node that is given no more."""
    text = f"warning: nothing more is done on node {mishap.where}: {mishap.error}"
    facts = {"node": mishap.node, "host": mishap.host, "error": mishap.error}
    return Event("node_shut_out", text, facts)
