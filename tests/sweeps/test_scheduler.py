"""What can be done when: shards and gates over groups, in any order of commits."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from edgesweep.sweeps.scheduler import Scheduler
from edgesweep.sweeps.stages.base import Gate, Stage


@dataclass(frozen=True)
class Item:
    key: str
    of: str


class Toy(Stage[Item]):
    """Shards `x0 x1 …` of each part, each in the group of its part; `after`: needs of each part."""

    def __init__(self, name: str, n: int, after: tuple[str, ...] = (), gate: str = "") -> None:
        self.name, self._n, self._after, self._gate = name, n, after, gate

    def shards(self, plan) -> Iterator[Item]:
        return (Item(f"{part}{i}", part) for part in plan.parts for i in range(self._n))

    def groups(self, plan, shard):
        return (f"{self.name} {shard.of}",)

    def needs(self, plan, shard):
        groups = tuple(f"{name} {shard.of}" for name in self._after)
        return (*groups, f"{self._gate} {shard.of}") if self._gate else groups

    def gates(self, plan):
        for part in plan.parts if self._gate else ():
            needs = tuple(f"{name} {part}" for name in self._after)
            yield Gate(f"{self._gate} {part}", needs, lambda view, part=part: view.append(part))


def plan_of(*stages: Toy) -> SimpleNamespace:
    plan = SimpleNamespace(parts=("a", "b"), all_stages={stage.name: stage for stage in stages})
    plan.stages = {stage.name: tuple(stage.shards(plan)) for stage in stages}
    plan.stage = plan.all_stages.__getitem__
    return plan


def ready(scheduler: Scheduler, opened: list[str]) -> list[tuple[str, Item]]:
    found = []
    for item in scheduler.ready():
        if isinstance(item, Gate):
            item.open(opened)
        else:
            found.append(item)
    return found


NONE = {"score": (), "fold": (), "run": ()}


@pytest.fixture
def plan() -> SimpleNamespace:
    stages = Toy("score", 3), Toy("fold", 1, ("score",)), Toy("run", 2, ("fold",), gate="circuits")
    return plan_of(*stages)


def test_what_something_waits_for_is_told_from_what_nothing_waits_for(plan):
    scheduler = Scheduler(plan, plan.all_stages, NONE)
    waited_for = {
        name: scheduler.is_waited_for(name, plan.stages[name][0]) for name in plan.all_stages
    }
    assert waited_for == {"score": True, "fold": True, "run": False}


@pytest.mark.parametrize("seed", range(20))
def test_everything_is_handed_out_once_and_never_too_early(plan, seed):
    draw, opened, order = random.Random(seed), [], []
    scheduler = Scheduler(plan, plan.all_stages, NONE)
    todo = ready(scheduler, opened)
    assert {stage for stage, _ in todo} == {"score"}
    while todo:
        stage, shard = todo.pop(draw.randrange(len(todo)))
        order.append((stage, shard.key))
        scheduler.done(stage, shard)
        todo += ready(scheduler, opened)
    assert len(order) == len(set(order)) == 12
    assert sorted(opened) == ["a", "b"]
    for part in "ab":
        mine = [stage for stage, key in order if key.startswith(part)]
        assert mine == ["score"] * 3 + ["fold"] + ["run"] * 2


def test_one_part_runs_while_another_waits(plan):
    opened: list[str] = []
    scheduler = Scheduler(plan, plan.all_stages, NONE)
    todo = [item for item in ready(scheduler, opened) if item[1].of == "a"]
    seen = []
    while todo:
        seen.append(todo[0])
        scheduler.done(*todo.pop(0))
        todo += ready(scheduler, opened)
    assert [stage for stage, _ in seen] == ["score"] * 3 + ["fold"] + ["run"] * 2
    assert opened == ["a"]


def test_what_is_committed_is_not_handed_out_and_opens_gates(plan):
    opened: list[str] = []
    there = {"score": {"a0", "a1", "a2", "b0"}, "fold": {"a0"}, "run": {"a1"}}
    scheduler = Scheduler(plan, plan.all_stages, there)
    found = {(stage, shard.key) for stage, shard in ready(scheduler, opened)}
    assert found == {("score", "b1"), ("score", "b2"), ("run", "a0")}
    assert opened == ["a"]


def test_a_reader_waits_for_what_is_done_again(plan):
    """A fold that was damaged: what reads it waits, though all else is there."""
    opened: list[str] = []
    there = {"score": {f"{p}{i}" for p in "ab" for i in range(3)}, "fold": {"b0"}, "run": {"b0"}}
    scheduler = Scheduler(plan, plan.all_stages, there)
    found = {(stage, shard.key) for stage, shard in ready(scheduler, opened)}
    assert found == {("fold", "a0"), ("run", "b1")}
    scheduler.done("fold", Item("a0", "a"))
    assert {key.key for _, key in ready(scheduler, opened)} == {"a0", "a1"}
    assert opened == ["b", "a"]


def test_what_is_left_out_holds_up_what_reads_it_alone(plan):
    opened: list[str] = []
    left = {name: stage for name, stage in plan.all_stages.items() if name != "fold"}
    scheduler = Scheduler(plan, left, NONE)
    todo, n = ready(scheduler, opened), 0
    while todo:
        n += 1
        scheduler.done(*todo.pop())
        todo += ready(scheduler, opened)
    assert n == 6
    assert opened == []


def test_a_need_that_nothing_meets_is_a_fault():
    plan = plan_of(Toy("fold", 1, ("score",)))
    with pytest.raises(KeyError, match="score a is needed, and no stage makes it"):
        Scheduler(plan, plan.all_stages, {"fold": ()})
