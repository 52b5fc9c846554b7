"""Nodes that are blind, and nodes that go away: what was in work there is done elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgesweep.engine.runtime import (
    Event,
    PoolOptions,
    WorkerStartError,
    make_executor,
)
from edgesweep.engine.runtime.ray_executor import RayExecutor
from tests.runtime.clusters import Machines, gone
from tests.runtime.test_executors import Book, run, works
from tests.runtime.workers import NotOn, obedient

Make = Callable[..., RayExecutor]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Machines]:
    made = Machines()
    made.add(3)
    yield made
    made.close()


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def make(cluster: Machines, told: list[Event]) -> Iterator[Make]:
    made: list[Any] = []

    def factory(worker_factory: Any = obedient, **options: Any) -> Any:
        pool = PoolOptions(
            **{"actors": 3, "address": cluster.address, "start_timeout_s": 60, **options}
        )
        made.append(make_executor("ray", worker_factory, pool, told.append))
        return made[-1]

    yield factory
    for executor in made:
        executor.close()


def nodes_of(executor: RayExecutor) -> list[str]:
    """Where the pool has its workers, once all have started."""
    run(executor, works("sleep", *[0.3] * 12))
    return [slot.node for slot in executor._slots]


def test_a_blind_node_is_shut_out_and_nothing_is_given_up_for_it(
    make: Make, told: list[Event]
) -> None:
    executor = make()
    blind = nodes_of(executor)[0]
    began = time.monotonic()
    todo = works("blind", *[blind] * 40) + works("raise", "this one is poison")
    book = run(executor, todo)
    assert time.monotonic() - began < 10
    assert len(book.done) == 40
    assert {receipt["value"] for receipt in book.done.values()}.isdisjoint({blind})
    assert list(book.failed) == ["raise-0"]
    assert [(event.kind, event.facts["node"]) for event in told] == [("node_shut_out", blind)]
    assert "FileNotFoundError: no run folder here" in told[0].text
    assert len(run(executor, works("echo", *range(9))).done) == 9


def test_a_node_where_no_worker_can_be_made_is_shut_out(make: Make, told: list[Event]) -> None:
    first = make()
    bad = nodes_of(first)[1]
    first.close()
    book = run(make(NotOn(bad), actors=2), works("blind", *[bad] * 12))
    assert len(book.done) == 12
    assert {event.facts["node"] for event in told} <= {bad}


def test_no_node_where_a_worker_can_be_made_is_an_error(make: Make) -> None:
    with pytest.raises(WorkerStartError, match=r"on any of 3 nodes: FileNotFoundError: no weights"):
        run(make(NotOn("any")), works("echo", *range(9)))


def test_a_node_that_dies_costs_no_attempt_and_leaves_no_process(
    cluster: Machines, make: Make, told: list[Event]
) -> None:
    [late] = cluster.add()
    executor = make(actors=4, max_attempts=1)
    begun, killed = threading.Event(), []

    def kill() -> None:
        begun.wait(60)
        pids = {slot.pid for slot in executor._slots if slot.node == late.node_id}
        cluster.kill_raylet(late)
        killed.append((pids, gone(pids, 5)))

    def is_at_work() -> bool:
        """Asked by the pool each time that it looks around."""
        if any(slot.node == late.node_id and slot.attempt for slot in executor._slots):
            begun.set()
        return False

    thread = threading.Thread(target=kill)
    thread.start()
    book = run(executor, works("sleep", *[0.4] * 60), is_at_work)
    thread.join()
    [(pids, are_gone)] = killed
    assert pids
    assert are_gone, "an actor outlived its raylet by 5 s"
    assert not book.failed
    assert len(book.done) == 60
    assert max(receipt["attempt"] for receipt in book.done.values()) == 2
    assert [(event.kind, event.facts["node"]) for event in told] == [("node_lost", late.node_id)]


def test_all_nodes_may_go_three_times(cluster: Machines, make: Make, told: list[Event]) -> None:
    """As on spot machines; no attempt is lost, and the pool waits for new nodes."""
    executor = make(actors=2, max_attempts=1, start_timeout_s=None)
    book, at = Book(), [5, 12, 19]

    def come_and_go() -> bool:
        """Asked by the pool each time that it looks around."""
        if at and len(book.done) >= at[0]:
            at.pop(0)
            cluster.remove_all()
            cluster.add(2)
        return False

    executor.run(works("sleep", *[0.5] * 26), book.on_done, book.on_failed, come_and_go)
    assert (len(book.done), book.failed, at) == (26, {}, [])
    assert max(receipt["attempt"] for receipt in book.done.values()) > 1
    assert {event.kind for event in told} == {"node_lost"}
