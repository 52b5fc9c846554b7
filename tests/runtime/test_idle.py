"""Actors that have no work at the end of a run are given back, those that may have some are not."""

from __future__ import annotations

import pytest

from edgesweep.engine.runtime import PoolOptions, make_executor
from tests.runtime.test_executors import Book, run, works
from tests.runtime.workers import obedient

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.mark.parametrize(("n_to_come", "n_left"), [(0, 1), (2, 3)])
def test_an_idle_actor_is_given_back_unless_there_is_work_to_come(
    n_to_come: int, n_left: int
) -> None:
    executor, book, n_alive = make_executor("ray", obedient, PoolOptions(3, idle_s=0.5)), Book(), []

    def look() -> bool:
        n_alive.append(len(executor.pids()))
        return False

    run(executor, works("sleep", *[1] * 6))  # all have started
    todo = works("sleep", *[0.5] * 9, 6)
    executor.run(todo, book.on_done, book.on_failed, look, lambda: n_to_come)
    executor.close()
    assert len(book.done) == 10
    assert max(n_alive) == 3
    assert n_alive[-1] == n_left
