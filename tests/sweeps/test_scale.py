"""The driver's own work grows with shards and with cells, not with their squares: works are
answered at once, and what is left is counted and timed."""

import multiprocessing
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.sweeps.command.addresses import finished
from edgesweep.sweeps.ending import end_run
from edgesweep.sweeps.plan import cells
from edgesweep.sweeps.view import View
from tests.memory import peak_bytes
from tests.storage.conftest import CONFIG, PLAN
from tests.storage.test_commits import RECEIPT
from tests.sweeps.stub import Timed, many_cells, many_rows

#: of four times as much; of squares it would be sixteen times
MOST = 8.0
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def digests(monkeypatch) -> Counter[str]:
    """How often something is hashed in a run's cells, by what is hashed."""
    found: Counter[str] = Counter()
    real = cells.digest

    def counting(value):
        found[str(value)] += 1
        return real(value)

    monkeypatch.setattr(cells, "digest", counting)
    return found


def test_four_times_the_shards_are_four_times_the_work(tmp_path, digests):
    few, many = (Timed(tmp_path / str(n), many_rows(n), ("attribute",)) for n in (250, 1000))
    # subtrees of 64 partials are given up; their reduction and the evaluation wait
    assert (few.outcome.left, many.outcome.left) == (4 + 2, 16 + 2)
    assert many.executor.asked["attribute"] == 1000
    assert many.cpu_s / few.cpu_s < MOST
    assert max(digests.values()) <= 8  # a key is made once for every object, not at each use
    bytes_a_shard = [_view_bytes(run) / run.n_shards for run in (few, many)]
    assert bytes_a_shard[1] < 1.2 * bytes_a_shard[0]


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_shards(tmp_path):
    """Seconds of the driver beside planning, and the memory of a process that does both: 600 MB,
    most of which imports take (torch's and transformers'), and 300 bytes a shard, 500 a prompt."""
    n = 100_000
    with SPAWN.Pool(1) as alone:
        found = alone.apply(_rows, (tmp_path / "run", n))
    plan_s, driver_s, imported, rss, view = found
    print(f"\n{n} shards: planning {plan_s:.1f} s, driving {driver_s:.1f} s CPU; at its peak")
    print(f"{rss / 1e6:.0f} MB, {imported / 1e6:.0f} of them imports; a view made anew has")
    print(f"{view / n:.0f} bytes a shard")
    assert driver_s <= 0.6e-3 * n
    assert rss <= 600e6 + 300 * n + 500 * n


def _rows(out: Path, n: int) -> tuple[float, float, int, int, int]:
    imported = peak_bytes()
    run = Timed(out, many_rows(n), ("attribute",))
    assert run.executor.asked["attribute"] == n
    rss = peak_bytes()
    return run.plan_s, run.driver_s, imported, rss, _view_bytes(run)


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_two_thousand_cells(tmp_path):
    """The same, and tables beside it."""
    n = 2000
    with SPAWN.Pool(1) as alone:
        found = alone.apply(_cells, (tmp_path / "run", n))
    plan_s, driver_s, tables_s, imported, rss = found
    print(f"\n{n} cells: planning {plan_s:.1f} s, driving {driver_s:.1f}, tables {tables_s:.1f}")
    print(f"of CPU; at its peak {rss / 1e6:.0f} MB, {imported / 1e6:.0f} of them imports")
    assert (plan_s + driver_s) / n <= 30e-3
    assert rss <= 600e6 + 300 * 4 * n + 500 * 5 * 8


def _cells(out: Path, n: int) -> tuple[float, float, float, int, int]:
    imported = peak_bytes()
    run = Timed(out, many_cells(n))
    assert (len(run.plan.cells), run.outcome.left) == (n, 0)
    return run.plan_s, run.driver_s, run.tables_s, imported, peak_bytes()


@pytest.mark.proof
def test_a_finished_run_of_a_hundred_thousand_shards_is_known_at_once(tmp_path):
    """What `resume` does before it makes a plan."""
    n = 100_000
    run = RunDirectory.create(tmp_path / "run", CONFIG, {**PLAN, "stages": {"attribute": n}})
    log = CommitLog(run)
    run.mend_config()
    with log.driving() as end:
        for i in range(n):
            log.commit("attribute", f"s{i:06d}", RECEIPT)
        end_run(run, log, {}, "done", None, whole=True)
        end["left"] = 0
    began = time.process_time()
    assert finished(tmp_path / "run") is not None
    seconds = time.process_time() - began
    print(f"\na finished run of {n} shards is known to be finished in {seconds:.2f} s of CPU")
    assert seconds <= 3


def _view_bytes(run: Timed) -> int:
    """What a driver that resumes keeps of all records."""
    tracemalloc.start()
    try:
        view = View.of(run.launch.run, run.plan, CommitLog(run.launch.run))
        assert sum(map(len, view.done.values())) == run.n_shards - run.outcome.left
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n", [10, pytest.param(50, marks=pytest.mark.proof)])
def test_four_times_the_cells_are_four_times_the_work(tmp_path, digests, n):
    few, many = (Timed(tmp_path / str(m), many_cells(m)) for m in (n, 4 * n))
    assert (len(few.plan.cells), len(many.plan.cells)) == (n, 4 * n)
    assert few.outcome.exit_code == many.outcome.exit_code == 0
    assert many.cpu_s / few.cpu_s < MOST
    assert max(digests.values()) <= 8
