"""The conformance suite: what every executor does, serial and Ray with 1, 2 and 3 actors alike."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesweep.engine.runtime import (
    Executor,
    Failure,
    PoolOptions,
    RunRefused,
    Work,
    WorkerStartError,
    WorkerStopped,
    make_executor,
)
from tests.runtime.workers import MadeOnce, never_made, obedient

PROOF = pytest.mark.proof
KINDS = [
    pytest.param(("serial", 1), id="serial1"),
    pytest.param(("ray", 1), id="ray1", marks=PROOF),
    pytest.param(("ray", 2), id="ray2"),
    pytest.param(("ray", 3), id="ray3", marks=PROOF),
]
Make = Callable[..., Executor]


class Book:
    """What the callbacks heard."""

    def __init__(self) -> None:
        self.done: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, Failure] = {}
        self.order: list[str] = []

    def on_done(self, work: Work, receipt: dict[str, Any]) -> None:
        assert work.key not in self.done, "told twice"
        assert threading.current_thread() is threading.main_thread()
        self.done[work.key] = receipt
        self.order.append(work.key)

    def on_failed(self, work: Work, failure: Failure) -> None:
        assert work.key not in self.failed, "told twice"
        self.failed[work.key] = failure
        self.order.append(work.key)


def works(verb: str, *values: Any) -> list[Work]:
    return [Work(f"{verb}-{i}", (verb, value)) for i, value in enumerate(values)]


def run(executor: Executor, todo: list[Work], stop: Callable[[], bool] = lambda: False) -> Book:
    book = Book()
    executor.run(todo, book.on_done, book.on_failed, stop)
    return book


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    kind, actors = request.param
    if kind == "ray":
        request.getfixturevalue("local_ray")
    made: list[Executor] = []

    def factory(worker_factory: Any = obedient, **options: Any) -> Executor:
        made.append(make_executor(kind, worker_factory, PoolOptions(actors=actors, **options)))
        return made[-1]

    yield factory
    for executor in made:
        executor.close()


@pytest.fixture(scope="module", params=KINDS)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """One pool for all tests that leave it well, which is part of what they test."""
    kind, actors = request.param
    if kind == "ray":
        request.getfixturevalue("local_ray")
    shared = make_executor(kind, obedient, PoolOptions(actors=actors))
    yield shared
    shared.close()


def test_every_work_is_done_once_with_its_own_receipt(executor: Executor) -> None:
    book = run(executor, works("echo", *range(20)))
    assert {key: r["value"] for key, r in book.done.items()} == {f"echo-{i}": i for i in range(20)}
    assert {r["attempt"] for r in book.done.values()} == {1}
    assert {r["pid"] for r in book.done.values()} <= set(executor.pids())
    assert not book.failed


def test_no_work_starts_nothing(make: Make) -> None:
    executor = make()
    assert run(executor, []).order == []
    assert executor.pids() == []


def test_a_worker_is_made_once_and_serves_several_stages(make: Make, tmp_path: Path) -> None:
    executor = make(MadeOnce(tmp_path / "made"))
    for _ in range(3):
        assert len(run(executor, works("echo", *range(6))).done) == 6
    made = (tmp_path / "made").read_text().split()
    assert len(made) == len(set(made)) == len(executor.pids())


def test_one_work_makes_one_worker(make: Make, tmp_path: Path) -> None:
    run(make(MadeOnce(tmp_path / "made")), works("echo", 1))
    assert len((tmp_path / "made").read_text().split()) == 1


def test_a_work_that_raises_is_tried_three_times_and_given_up(executor: Executor) -> None:
    book = run(executor, works("raise", "a bad row") + works("echo", *range(5)))
    failure = pickle.loads(pickle.dumps(book.failed["raise-0"]))
    assert (failure.attempts, failure.kind, failure.error) == (
        3,
        "exception",
        "ValueError: a bad row",
    )
    assert "in _raise" in failure.traceback
    assert len(book.done) == 5


def test_an_exception_costs_an_attempt_and_not_the_worker(make: Make, tmp_path: Path) -> None:
    executor = make(MadeOnce(tmp_path / "made"), max_attempts=5)
    book = run(executor, works("raise_until", 4, 2, 1))
    assert [book.done[f"raise_until-{i}"]["attempt"] for i in range(3)] == [4, 2, 1]
    assert len((tmp_path / "made").read_text().split()) == len(executor.pids())


def test_a_failed_work_goes_to_the_back_of_the_queue(executor: Executor) -> None:
    book = run(executor, works("raise", "x") + works("echo", *range(8)))
    assert book.order.index("raise-0") >= 6


def test_the_cap_is_a_setting(make: Make) -> None:
    assert run(make(max_attempts=1), works("raise", "x")).failed["raise-0"].attempts == 1


def test_an_exception_that_does_not_pickle_comes_back_as_text(executor: Executor) -> None:
    failure = run(executor, works("unpicklable", 0)).failed["unpicklable-0"]
    assert failure.error == "Unpicklable: has a constructor that pickle cannot call"


def test_a_receipt_is_small(executor: Executor) -> None:
    failure = run(executor, works("big", 10**6)).failed["big-0"]
    assert "arrays are written to the store, not returned" in failure.error


def test_a_long_traceback_is_shortened(executor: Executor) -> None:
    failure = run(executor, works("raise", "x" * 100_000)).failed["raise-0"]
    assert len(failure.traceback) < 5000
    assert "characters left out" in failure.traceback


def test_what_no_retry_mends_stops_the_run(executor: Executor) -> None:
    with pytest.raises(WorkerStopped, match=r"^the disk is full$") as stopped:
        run(executor, works("stop", "the disk is full") + works("echo", *range(5)))
    assert not isinstance(stopped.value, RunRefused)


def test_what_would_end_the_same_way_again_is_told_apart(executor: Executor) -> None:
    with pytest.raises(RunRefused, match=r"^9 blocks of 8 units$"):
        run(executor, works("refuse", "9 blocks of 8 units") + works("echo", *range(5)))


def test_a_factory_that_raises_is_one_clear_error(make: Make) -> None:
    with pytest.raises(WorkerStartError) as error:
        run(make(never_made), works("echo", *range(5)))
    assert str(error.value) == (
        "the worker could not start: FileNotFoundError: no weights in /models/none"
    )


def test_stop_drains(executor: Executor) -> None:
    book = Book()
    executor.run(
        works("sleep", *[0.02] * 30), book.on_done, book.on_failed, lambda: len(book.done) >= 4
    )
    assert 4 <= len(book.done) <= 4 + 3
    assert len(run(executor, works("echo", *range(5))).done) == 5


def test_stop_before_the_start_does_nothing(make: Make) -> None:
    assert run(make(), works("echo", 1), lambda: True).order == []


def test_an_error_in_a_callback_comes_through_and_the_executor_lives(executor: Executor) -> None:
    def refuse(work: Work, receipt: dict[str, Any]) -> None:
        raise KeyError("fenced")

    with pytest.raises(KeyError, match="fenced"):
        executor.run(works("echo", *range(9)), refuse, Book().on_failed, lambda: False)
    assert len(run(executor, works("echo", *range(9))).done) == 9


def test_keys_are_unique(executor: Executor) -> None:
    with pytest.raises(ValueError, match="two works have the key 'a'"):
        run(executor, [Work("a", ("echo", 1)), Work("a", ("echo", 2))])


def test_closing_twice_is_no_trouble(make: Make) -> None:
    executor = make()
    run(executor, works("echo", 1))
    executor.close()
    executor.close()
    assert executor.pids() == []


def test_unknown_executor() -> None:
    with pytest.raises(ValueError, match="executor is 'dask'; it is one of ray, serial"):
        make_executor("dask", obedient, PoolOptions())


def test_a_slot_outlives_a_poison_work() -> None:
    assert PoolOptions(max_attempts=9).slot_deaths == 10
    with pytest.raises(ValueError, match="must be the greater"):
        PoolOptions(max_attempts=4, max_slot_deaths=4)
    with pytest.raises(ValueError, match="actors is 0"):
        PoolOptions(actors=0)
