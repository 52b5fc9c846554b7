"""Who gets what, and who is to blame: the policy alone, without processes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from edgesweep.engine.runtime.policy import Attempt, Policy
from edgesweep.engine.runtime.work import Event, Failure, Mishap, PoolOptions, Work

NODES = ("a", "b", "c", "d")


class Bench:
    """A policy, what it told, and a clock."""

    def __init__(self, works: Iterable[Work], **options: object) -> None:
        self.now = 0.0
        self.told: list[Event] = []
        self.failed: dict[str, Failure] = {}
        pool = PoolOptions(**options)  # type: ignore[arg-type]
        self.policy = Policy(
            [*works], pool, self._fail, tell=self.told.append, clock=lambda: self.now
        )

    def _fail(self, work: Work, failure: Failure) -> None:
        self.failed[work.key] = failure

    def next(self, node: str, holds: str = "", nodes: Iterable[str] = NODES) -> Attempt | None:
        return self.policy.next(node, holds, {*nodes})

    def does(self, node: str, nodes: Iterable[str] = NODES) -> str:
        """A worker does what it is given; the work's key, "" for none."""
        attempt = self.next(node, nodes=nodes)
        if attempt is None:
            return ""
        self.policy.done(attempt)
        return attempt.work.key

    def fails(self, node: str, nodes: Iterable[str] = NODES) -> str:
        attempt = self.next(node, nodes=nodes)
        if attempt is None:
            return ""
        self.policy.failed(attempt, Mishap("exception", "E: blind", node=node, host=f"host-{node}"))
        return attempt.work.key


def works(n: int, group: str = "g", holds: str = "") -> list[Work]:
    return [Work(f"{group}{i}", None, group, i, holds) for i in range(n)]


# --- order --------------------------------------------------------------------------------------


def test_a_worker_takes_first_what_needs_the_model_that_it_holds():
    mixed = [Work(f"w{i}", None, rank=i, holds="AB"[i % 2]) for i in range(6)]
    bench = Bench([*mixed, Work("none", None, rank=9)])
    order = [bench.next("a", "B").work.key for _ in range(7)]
    assert order == ["w1", "w3", "w5", "none", "w0", "w2", "w4"]


def test_a_failed_work_of_an_old_model_waits_until_the_others_are_out():
    bench = Bench([Work("old", None, rank=0, holds="A"), *works(3, holds="B")])
    assert bench.fails("a", ["a"]) == "old"
    assert [bench.next("a", "A", ["a"]).work.key for _ in range(4)] == ["g0", "g1", "g2", "old"]


def test_a_lost_work_comes_first_and_costs_no_attempt():
    bench = Bench(works(3), max_attempts=1)
    gone = Mishap("lost", "the node is gone", node="b")
    for number in range(1, 31):
        attempt = bench.next("b")
        assert (attempt.work.key, attempt.number) == ("g0", number)
        bench.policy.lost(attempt, gone)
    assert bench.does("a") == "g0"
    assert not bench.failed


def test_a_work_that_is_lost_again_and_again_is_given_up():
    bench = Bench(works(1), max_lost=2)
    for _ in range(3):
        bench.policy.lost(bench.next("a"), Mishap("lost", "the node is gone", node="a", host="h"))
    assert (bench.failed["g0"].kind, bench.failed["g0"].attempts) == ("lost", 3)
    assert bench.policy.is_over


# --- places -------------------------------------------------------------------------------------


def test_a_work_is_tried_on_different_nodes_and_then_given_up():
    bench = Bench(works(1))
    assert bench.fails("a") == "g0"
    assert bench.next("a") is None
    assert bench.fails("b") == "g0"
    assert bench.fails("c") == "g0"
    assert (bench.failed["g0"].attempts, bench.failed["g0"].host) == (3, "host-c")


def test_where_there_are_fewer_nodes_they_are_tried_again():
    bench = Bench(works(1))
    assert [bench.fails(node, "ab") for node in "abb"] == ["g0"] * 3
    assert bench.failed["g0"].attempts == 3


def test_a_node_is_shut_out_for_what_others_can_do():
    bench = Bench(works(9))
    assert [bench.fails("a") for _ in range(3)] == ["g0", "g1", "g2"]
    assert bench.next("a") is None, "while others do better, it waits"
    assert not bench.told
    assert bench.does("b") == "g2", "what tells whose fault it is comes first"
    [event] = bench.told
    assert event.kind == "node_shut_out"
    assert event.facts == {"node": "a", "host": "host-a", "error": "E: blind"}
    assert [bench.does("b") for _ in range(8)] == [*(f"g{i}" for i in range(3, 9)), "g0", "g1"]
    assert bench.policy.is_over
    assert not bench.failed
    assert len(bench.told) == 1


def test_three_blind_nodes_of_four_give_up_nothing():
    bench = Bench(works(40))
    while not bench.policy.is_over:
        for node in "abc":
            bench.fails(node)
        bench.does("d")
    assert not bench.failed
    assert sorted(event.facts["node"] for event in bench.told) == ["a", "b", "c"]


def test_a_work_does_not_wait_for_a_node_that_is_given_nothing():
    bench = Bench([*works(1, "bad"), *works(3)])
    assert bench.fails("b", "ab") == "bad0"
    assert [bench.fails("a", "ab") for _ in range(3)] == ["g0", "g1", "g2"]
    assert [bench.fails("b", "ab") for _ in range(3)] == ["g2", "bad0", "g0"]
    while not bench.policy.is_over:
        assert bench.fails("a", "ab") or bench.fails("b", "ab"), "nobody may do what is left"
    assert len(bench.failed) == 4


def test_works_that_fail_everywhere_shut_nobody_out():
    """A fault of ours in one stage, while another stage does well."""
    bench = Bench([*works(30, "bad"), *works(30, "good")])
    for _ in range(400):
        for node in NODES:
            if (attempt := bench.next(node)) is None:
                continue
            if attempt.work.group == "good":
                bench.policy.done(attempt)
            else:
                bench.policy.failed(attempt, Mishap("exception", "E: bug", node=node))
    assert bench.policy.is_over
    assert not bench.told
    assert sorted(bench.failed) == sorted(work.key for work in works(30, "bad"))
    assert {failure.attempts for failure in bench.failed.values()} <= {3, len(NODES)}


# --- backups ------------------------------------------------------------------------------------


@pytest.fixture
def slow() -> tuple[Bench, Attempt]:
    """Three works done in 10 s each; one is at work on node a since then."""
    bench = Bench(works(4), backup=True)
    for _ in range(3):
        attempt = bench.next("b")
        bench.now += 10
        bench.policy.done(attempt)
    return bench, bench.next("a")


def test_a_work_that_takes_long_is_begun_a_second_time_elsewhere(slow):
    bench, first = slow
    bench.now += 14
    assert bench.next("b") is None
    bench.now += 2
    assert bench.next("a") is None
    copy = bench.next("b")
    assert (copy.work, copy.number, copy.is_copy) == (first.work, 2, True)
    assert bench.next("c") is None, "one copy is enough"
    assert [event.kind for event in bench.told] == ["backup"]
    assert bench.policy.done(copy) == [first]
    assert bench.policy.is_over


def test_a_failure_of_one_of_two_is_none(slow):
    bench, first = slow
    bench.now += 16
    copy = bench.next("b")
    bench.policy.failed(first, Mishap("death", "killed", node="a"))
    assert not bench.policy.n_waiting
    bench.policy.given_back(copy)
    assert bench.policy.n_waiting == 1


def test_there_are_no_backups_unless_asked_for():
    bench = Bench(works(2))
    bench.does("a")
    bench.next("a")
    bench.now += 10**6
    assert bench.next("b") is None
