"""What the Ray pool does when processes die: actors at random moments, of poison, drivers."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesweep.engine.runtime import (
    NoPlaceError,
    PoolExhausted,
    PoolOptions,
    Work,
    WorkerStartError,
    make_executor,
)
from edgesweep.engine.runtime.ray_executor import RayExecutor
from tests.runtime.test_executors import Book, run, works
from tests.runtime.workers import obedient

pytestmark = pytest.mark.usefixtures("local_ray")
Make = Callable[..., RayExecutor]
PATIENCE_S = 120.0


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Any] = []

    def factory(worker_factory: Any = obedient, **options: Any) -> Any:
        made.append(make_executor("ray", worker_factory, PoolOptions(**options)))
        return made[-1]

    yield factory
    for executor in made:
        executor.close()


class Killer(threading.Thread):
    """Sends SIGKILL to a random live actor every so often."""

    def __init__(self, executor: RayExecutor, n_kills: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.executor, self.n_left, self.random = executor, n_kills, random.Random(seed)
        self.killed: list[int] = []

    def run(self) -> None:
        while self.n_left:
            time.sleep(self.random.uniform(0.02, 0.25))
            pids = [pid for pid in self.executor.pids() if pid not in self.killed]
            if pids:
                self.killed.append(self.random.choice(pids))
                self.n_left -= 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.killed[-1], signal.SIGKILL)


@pytest.mark.slow
def test_random_kills_cost_no_work(make: Make) -> None:
    executor = make(actors=2, max_attempts=30)
    run(executor, works("echo", 1, 2))
    killer = Killer(executor, n_kills=6, seed=3)
    killer.start()
    book = run(executor, works("sleep", *[0.25] * 24))
    assert len(book.done) == 24
    assert not book.failed
    assert len(killer.killed) == 6, "the work was over before the killing was"
    assert any(receipt["attempt"] > 1 for receipt in book.done.values())


@pytest.mark.parametrize(
    ("verb", "actors"),
    [
        ("die", 1),
        ("exit", 2),
        pytest.param("die", 2, marks=pytest.mark.slow),
        pytest.param("exit", 1, marks=pytest.mark.slow),
    ],
)
def test_poison_is_given_up_and_the_rest_is_done(make: Make, actors: int, verb: str) -> None:
    book = run(make(actors=actors), works(verb, 0) + works("echo", *range(6)))
    failure = book.failed[f"{verb}-0"]
    assert (failure.attempts, failure.kind) == (3, "death")
    assert failure.error.startswith("the actor died: ")
    assert len(failure.error) < 500
    assert "\n" not in failure.error
    assert len(book.done) == 6


@pytest.mark.slow
def test_two_poison_works_alone_do_not_pass_for_a_broken_machine(make: Make) -> None:
    book = run(make(actors=1), works("die", 0, 0))
    assert sorted(book.failed) == ["die-0", "die-1"]


@pytest.mark.proof
def test_a_work_that_outlives_its_accidents_is_done(make: Make) -> None:
    book = run(make(actors=1), works("die_until", 3))
    assert book.done["die_until-0"]["attempt"] == 3


@pytest.mark.proof
def test_a_pool_whose_slots_are_all_dead_says_so(make: Make) -> None:
    executor = make(actors=1)
    with pytest.raises(PoolExhausted, match=r"works are left and none of the 1 slots is alive"):
        run(executor, works("die", *range(8)))
    assert executor.pids() == []


def test_an_actor_that_died_between_stages_is_replaced(make: Make) -> None:
    executor = make(actors=1)
    run(executor, works("echo", 1))
    os.kill(executor.pids()[0], signal.SIGKILL)
    time.sleep(0.3)
    assert len(run(executor, works("echo", *range(3))).done) == 3


def test_a_constructor_that_dies_is_not_waited_for(make: Make) -> None:
    def dies() -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(PoolExhausted, match="the actor died"):
        run(make(dies, actors=1), works("echo", 1))


@pytest.mark.parametrize(
    ("asked", "lack"),
    [
        ({"num_gpus": 64}, r"1 CPU, 64 GPU, and the largest of 1 nodes has \d+ CPU, \d+ GPU"),
        ({"threads": 900}, r"900 CPU, 0 GPU, and the largest of 1 nodes has 4 CPU"),
        ({"memory_bytes": 10**15}, r"1e\+06 GB of memory, and the largest of 1 nodes has .* GB of"),
    ],
)
def test_actors_that_have_no_place_are_not_waited_for(make: Make, asked: Any, lack: str) -> None:
    with pytest.raises(NoPlaceError, match=f"each actor asks for .*{lack}"):
        run(make(actors=1, **asked), works("echo", 1))


def test_a_cluster_may_grow(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """What it lacks is said at once; the actors that wait are what it grows by."""
    executor = make(actors=1, num_gpus=64, start_timeout_s=0.5, address="auto")
    with pytest.raises(WorkerStartError, match=r"no actor could start in \d+ s: each actor asks"):
        run(executor, works("echo", 1))
    assert "warning: each actor asks for 1 CPU, 64 GPU" in capsys.readouterr().out


def test_a_work_that_hangs_is_killed(make: Make) -> None:
    executor = make(actors=1, work_timeout_s=2, max_attempts=1)
    book = run(executor, works("sleep", 1e9, 0))
    assert book.failed["sleep-0"].kind == "death"
    assert book.failed["sleep-0"].error == "no answer in 2 s, its time limit"
    assert list(book.done) == ["sleep-1"]


def test_a_frozen_actor_is_replaced(make: Make) -> None:
    """By default, at the latest after ten times what works of its group took; its process goes."""
    executor = make(actors=1, work_floor_s=2)
    todo = [Work(str(i), ("freeze", i == 5), "g") for i in range(8)]
    book = run(executor, todo[:1])
    frozen = executor.pids()[0]
    book = run(executor, todo[1:])
    assert len(book.done) == 7
    assert {key: r["attempt"] for key, r in book.done.items() if r["attempt"] > 1} == {"5": 2}
    assert gone({frozen})


@pytest.mark.proof
def test_threads_are_set_by_the_pool_and_not_by_the_machine(make: Make) -> None:
    book = run(make(actors=1, threads=2), works("environment", "OMP_NUM_THREADS"))
    assert book.done["environment-0"]["value"] == "2"


@pytest.mark.proof
def test_an_error_in_a_callback_kills_what_is_in_flight(make: Make, tmp_path: Path) -> None:
    """A fenced driver leaves no actor that goes on writing."""
    executor = make(actors=2)
    note = tmp_path / "note"
    todo = [Work("a", ("echo", 1)), *works("note", *[(str(note), 1.0)] * 3)]

    def refuse(work: Work, receipt: dict[str, Any]) -> None:
        while not note.exists():
            time.sleep(0.02)
        raise KeyError("fenced")

    with pytest.raises(KeyError):
        executor.run(todo, refuse, Book().on_failed, lambda: False)
    time.sleep(1.5)
    assert "begin" in note.read_text()
    assert "end" not in note.read_text()


DRIVER = """
import signal, sys
from edgesweep.engine.runtime import PoolOptions, Work, make_executor
from tests.runtime.workers import obedient
if __name__ == "__main__":
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    executor = make_executor("ray", obedient, PoolOptions(actors=2))
    works = [Work(f"w{i}", ("note", (sys.argv[1], float(sys.argv[2])))) for i in range(40)]
    executor.run(works, lambda w, r: print("done", w.key, flush=True), print, lambda: bool(stop))
    executor.close()
"""


def start_driver(tmp_path: Path, seconds: float) -> tuple[subprocess.Popen[str], Path]:
    note = tmp_path / "note"
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(note), str(seconds)],
        cwd=Path(__file__).parents[2],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    deadline = time.monotonic() + PATIENCE_S
    while not (note.exists() and "end" in note.read_text()):
        assert time.monotonic() < deadline, driver.communicate()[0]
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.05)
    return driver, note


def pids_in(note: Path) -> set[int]:
    return {int(line.split()[1]) for line in note.read_text().splitlines()}


def gone(pids: set[int]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids):
            return True
        time.sleep(0.1)
    return False


def test_ctrl_c_drains(tmp_path: Path) -> None:
    """The terminal sends SIGINT to the whole process group; the actors must not die of it, or a
    drain would find nothing in flight. Nothing is printed but what the driver prints."""
    driver, note = start_driver(tmp_path, 0.4)
    os.killpg(driver.pid, signal.SIGINT)
    output = driver.communicate(timeout=PATIENCE_S)[0].splitlines()
    events = [line.split()[0] for line in note.read_text().splitlines()]
    assert driver.returncode == 0
    assert events.count("begin") == events.count("end") == len(output) < 40
    assert all(line.startswith("done w") for line in output)
    assert gone(pids_in(note))


def test_actors_of_a_killed_driver_end(tmp_path: Path) -> None:
    driver, note = start_driver(tmp_path, 0.3)
    driver.kill()
    driver.communicate()
    assert gone(pids_in(note))


ORPHAN = """
import os, sys, time
from edgesweep.engine.runtime.parent import parent_alive, remember_parent
assert parent_alive()
if os.fork():
    time.sleep(0.3)
    os._exit(0)
remember_parent()
before = parent_alive()
time.sleep(1)
print(before, parent_alive(), flush=True)
"""


def test_an_orphan_knows_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "True False\n", done.stderr
