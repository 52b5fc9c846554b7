"""The driver's own work grows with shards and with cells, not with their squares: works are
answered at once, and what is left is counted and timed."""

import resource
import tracemalloc
from collections import Counter

import pytest

from edgesweep.storage import CommitLog
from edgesweep.sweeps.plan import cells
from edgesweep.sweeps.view import View
from tests.sweeps.stub import Timed, many_cells, many_rows

#: of four times as much; of squares it would be sixteen times
MOST = 8.0


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
def test_a_hundred_thousand_shards(tmp_path):
    """G1, G2, G3: seconds of the driver, its memory, and a resume of what is there."""
    run = Timed(tmp_path / "run", many_rows(100_000), ("attribute",))
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    view = _view_bytes(run) / run.n_shards
    print(f"\n{run.n_shards} shards: planning {run.plan_s:.1f} s, driving {run.driver_s:.1f} s CPU")
    print(f"memory {rss / 1e6:.0f} MB at its peak; a view {view:.0f} bytes a shard")
    assert run.driver_s / run.n_shards < 2e-3
    assert rss < 600e6 + 800 * run.n_shards + 1700 * 100_000


@pytest.mark.proof
def test_two_thousand_cells(tmp_path):
    run = Timed(tmp_path / "run", many_cells(2000))
    assert (len(run.plan.cells), run.outcome.left) == (2000, 0)
    print(f"\n2,000 cells: planning {run.plan_s:.1f} s, driving {run.driver_s:.1f} s CPU")
    assert run.driver_s / 2000 < 0.3


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
