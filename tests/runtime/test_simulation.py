"""Whole pools simulated: the real policy, a clock of our own, actors that only take time.

Each cell has shards that are attributed, then one that reduces, then shards that are evaluated; a
cell waits for nobody but itself. Times are in seconds of that clock.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from edgesweep.engine.runtime.policy import Attempt, Policy
from edgesweep.engine.runtime.work import Failure, PoolOptions, Work
from edgesweep.sweeps.driver import CELLS_AHEAD

MEAN_S, REDUCE_S = 60.0, 120.0
N_CELLS, N_SHARDS = 10, 100
STAGES = ("attribute", "reduce", "evaluate")
#: what a driver does in `poll_s` of real time, at a price that a test can pay
LOOK_S = 5.0
HUNG = 1e-12


@dataclass
class Pool:
    """Actors of given speeds, each on a node of its own."""

    speeds: Sequence[float]
    options: PoolOptions
    seed: int = 0
    now: float = 0.0
    done: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        works = [work for cell in range(N_CELLS) for work in self._stage(cell, "attribute")]
        self.policy = Policy(works, self.options, fail, clock=lambda: self.now)
        self.takes_s: dict[str, float] = {}
        self.left = {(cell, stage): self._n(stage) for cell in range(N_CELLS) for stage in STAGES}

    def run(self) -> float:
        """The time at which the last work is done."""
        free, ends = [*range(len(self.speeds))], []
        nodes = {str(actor) for actor in free}
        at: dict[Attempt, int] = {}
        while not self.policy.is_over:
            free = [actor for actor in free if not self._give(actor, nodes, ends, at)]
            end, _, attempt = ends[0]
            may_copy = self.options.backup and free and not self.policy.n_waiting
            if may_copy and end > self.now + LOOK_S:
                self.now += LOOK_S
                continue
            heapq.heappop(ends)
            if attempt in self.policy.in_flight:
                self.now = end
                free += [at[a] for a in (attempt, *self.policy.done(attempt))]
                self.policy.add(self._become_ready(attempt.work))
        return self.now

    def _give(
        self, actor: int, nodes: set[str], ends: list[tuple[float, int, Attempt]], at: dict
    ) -> bool:
        attempt = self.policy.next(str(actor), "", nodes)
        if attempt is None:
            return False
        at[attempt] = actor
        end = self.now + self._seconds(attempt.work) / self.speeds[actor]
        heapq.heappush(ends, (end, len(at), attempt))
        return True

    def _seconds(self, work: Work) -> float:
        base = REDUCE_S if work.payload[1] == "reduce" else MEAN_S
        return self.takes_s.setdefault(work.key, base * self.random.lognormvariate(0, 0.15))

    def _n(self, stage: str) -> int:
        return 1 if stage == "reduce" else N_SHARDS

    def _stage(self, cell: int, stage: str) -> list[Work]:
        later = CELLS_AHEAD * (stage == STAGES[-1])
        rank = (cell + later) * len(STAGES) + STAGES.index(stage)
        names = [f"{stage}-{cell}-{i}" for i in range(self._n(stage))]
        return [Work(name, (cell, stage), f"{stage}", rank) for name in names]

    def _become_ready(self, work: Work) -> list[Work]:
        assert work.key not in self.done, "done twice"
        self.done.add(work.key)
        cell, stage = work.payload
        self.left[cell, stage] -= 1
        if self.left[cell, stage] or stage == STAGES[-1]:
            return []
        return self._stage(cell, STAGES[STAGES.index(stage) + 1])

    def share_of_ideal(self) -> float:
        """Ideal: all actors at work all the time."""
        took_s = self.run()
        assert len(self.done) == sum(map(self._n, STAGES)) * N_CELLS
        return sum(self.takes_s.values()) / sum(self.speeds) / took_s


def fail(work: Work, failure: Failure) -> None:
    raise AssertionError(failure)


def some_slow(share: float, speed: float) -> Callable[[random.Random], float]:
    return lambda chance: speed if chance.random() < share else 1.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("speed", "backup", "least"),
    [
        (some_slow(0.0, 1.0), False, 0.95),
        (some_slow(0.0, 1.0), True, 0.95),
        (some_slow(0.05, 0.1), True, 0.85),
    ],
    ids=["equal", "equal and backups", "5% ten times slower"],
)
def test_a_pool_is_near_its_ideal(speed, backup, least, seed):
    chance = random.Random(seed + 99)
    speeds = [speed(chance) for _ in range(64)]
    assert Pool(speeds, PoolOptions(actors=64, backup=backup), seed).share_of_ideal() >= least


def test_a_hung_actor_does_not_hold_a_run_up():
    speeds = [HUNG, *[1.0] * 63]
    assert Pool(speeds, PoolOptions(actors=64, backup=True)).share_of_ideal() >= 0.9


def test_without_backups_slow_actors_are_waited_for():
    """So that the numbers above are not got for nothing."""
    chance = random.Random(99)
    speeds = [some_slow(0.05, 0.1)(chance) for _ in range(64)]
    assert Pool(speeds, PoolOptions(actors=64)).share_of_ideal() < 0.85
