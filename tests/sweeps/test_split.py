"""How prompts are split into shards and chunks, whatever their number: every input once, in one
shard, and no chunk in two."""

import numpy as np
import pytest

from edgesweep.storage import RunDirectory
from edgesweep.storage.arrays import open_array
from edgesweep.storage.readers import aggregate
from edgesweep.storage.tables import RESULTS, read_table
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import drive, reopen, start
from edgesweep.sweeps.plan.plan import Plan
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.plan.rows import rows_a_shard
from edgesweep.sweeps.planning import make_plan
from edgesweep.sweeps.progress import Silence
from edgesweep.sweeps.stages.attribute import AttributeShard
from edgesweep.sweeps.stopping import Stopper
from tests.sweeps.helpers import DATA, Faulty, contents, run_tiny, tiny

PRIMES = [(7, 2), (13, 5), (29, 5), (97, 8)]


@pytest.mark.parametrize(
    ("n", "target", "rows"),
    [(32, 16, 16), (31, 16, 31), (97, 16, 97), (6, 4, 3), (1, 16, 1), (257, 16, 16), (514, 16, 16)],
)
def test_rows_a_shard_divide_the_prompts_where_they_can(n, target, rows):
    assert rows_a_shard(n, target) == rows


def split(n: int, target: int, task: str = "ioi+agreement", **execution) -> dict:
    """A run of one cell with so many prompts of each member."""
    return tiny(
        sweep={"method": "eap", "task": task},
        evaluate={"threshold": 5, "ablation": "edge", "metric": "logit_diff"},
        data={"n_build": n, "n_eval": n},
        execution={"shard_inputs": target, **execution},
    )


def blocks_of(plan: Plan) -> list[tuple[str, int, int]]:
    shards = [s for s in plan.stages["attribute"] if isinstance(s, AttributeShard)]
    return [(s.rows.member, s.rows.start, s.rows.stop) for s in shards]


@pytest.mark.parametrize("task", ["ioi", "ioi+agreement"])
@pytest.mark.parametrize(("n", "target"), PRIMES)
def test_every_input_is_in_one_shard_and_every_chunk_too(n, target, task):
    plan = make_plan(resolve(parse_config(split(n, target, task))))
    dataset, blocks = plan.dataset(plan.cells[0]), blocks_of(plan)
    assert [i for _, a, b in blocks for i in range(a, b)] == list(range(n * len(dataset.members)))
    for member, a, b in blocks:
        assert {p.task for p in dataset.data.build[a:b]} == {member}
    step = plan.chunk_rows(dataset, "build", plan.nodes(plan.cells[0]))
    writers = [i // step for _, a, b in blocks for i in range(a, b, step)]
    assert len(set(writers)) == len(writers)
    assert all(a % step == 0 for _, a, _ in blocks)


@pytest.mark.parametrize("task", ["ioi", "ioi+agreement"])
def test_a_prime_number_of_prompts(tmp_path, task):
    """Stopped and resumed it has the same bytes, and the means are those of all inputs."""
    calm, out = tmp_path / "calm", tmp_path / "run"
    assert run_tiny(calm, split(29, 5, task)).exit_code == 0
    run = RunDirectory.open(calm)
    plan = reopen(calm).plan
    assert {b - a for _, a, b in blocks_of(plan)} == {5, 4}
    cell = plan.cells[0].key
    scores = np.asarray(open_array(run.attributions, f"{cell}/scores")[...], dtype=np.float64)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(aggregate(run, cell, "mean"), scores.mean(0), rtol=1e-12)
    assert set(read_table(run, RESULTS)["n_inputs"]) == ({29} if task == "ioi" else {29, 58})

    stopper, worker = Stopper(lambda text: None, ""), Faulty()
    worker.before = lambda shard: setattr(stopper, "asked", len(worker.asked) >= 9)
    outcome = drive(start(parse_config(split(29, 5, task)), out), Silence(), worker, stopper)
    assert outcome.stopped
    assert run_tiny(out, split(29, 5, task)).exit_code == 0
    assert contents(out, *DATA) == contents(calm, *DATA)


@pytest.mark.parametrize(
    ("n", "target"),
    [pytest.param(*prime, marks=pytest.mark.proof) for prime in PRIMES[:-1]]
    + [pytest.param(*PRIMES[-1], marks=pytest.mark.slow)],
)
def test_ray_gives_the_bytes_of_the_serial_executor(tmp_path, n, target):
    assert run_tiny(tmp_path / "serial", split(n, target)).exit_code == 0
    assert run_tiny(tmp_path / "ray", split(n, target, executor="ray", actors=2)).exit_code == 0
    assert contents(tmp_path / "ray", *DATA) == contents(tmp_path / "serial", *DATA)


def test_lists_of_features_and_blocks_of_positions(tmp_path):
    """Over features the lists of each block of positions follow those of the one before."""
    raw = split(7, 5, "ioi")
    raw["sweep"] |= {"nodes": "features", "method": "ig_activations", "steps": 1}
    raw["features"] = {"dictionaries": {"embed": "identity"}, "keep": 5000, "position_shards": 2}
    raw["data"] = {"n_build": 29, "n_eval": 2}
    assert run_tiny(tmp_path / "run", raw).exit_code == 0
    run = RunDirectory.open(tmp_path / "run")
    cell = run.plan["cells"][0]["key"]
    weight = np.asarray(open_array(run.attributions, f"{cell}/listed/weight")[...])
    assert len(weight) == 58
    mean, n = aggregate(run, cell, "mean"), aggregate(run, cell, "n")
    assert np.nanmax(n) == 29
    np.testing.assert_allclose(
        np.nansum(mean), np.nansum(weight.astype(np.float64)) / 29, rtol=1e-9
    )
