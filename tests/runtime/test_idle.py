"""Actors that have no work at the end of a run are given back, those that may have some are not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgesweep.engine.runtime import PoolOptions, make_executor
from tests.runtime.test_executors import Book, run, works
from tests.runtime.workers import obedient

pytestmark = pytest.mark.usefixtures("local_ray")
#: in which an actor that was to be kept would have been given back
LONG_S = 2.0


@pytest.mark.parametrize(
    ("n_to_come", "n_left"), [(0, 1), pytest.param(2, 3, marks=pytest.mark.slow)]
)
def test_an_idle_actor_is_given_back_unless_there_is_work_to_come(
    tmp_path: Path, n_to_come: int, n_left: int
) -> None:
    executor, book, n_alive = make_executor("ray", obedient, PoolOptions(3, idle_s=0.5)), Book(), []
    run(executor, works("meet", *[(str(tmp_path / "all"), 3)] * 3))
    assert len(executor.pids()) == 3
    gate, began = tmp_path / "gate", time.monotonic()

    def look() -> bool:
        """One work goes on until as few actors are left as may be."""
        n_alive.append(len(executor.pids()))
        if time.monotonic() - began > LONG_S and n_alive[-1] == n_left:
            gate.touch()
        return False

    todo = [*works("echo", 1, 2), *works("wait", str(gate))]
    executor.run(todo, book.on_done, book.on_failed, look, lambda: n_to_come)
    executor.close()
    assert len(book.done) == 3
    assert n_alive[0] == 3
    assert n_alive[-1] == n_left
