"""A tiny run hurt in the ways that the design page promises to bear: each ends in the bytes
of an undisturbed run, or says in one line what is missing."""

import errno
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.engine.methods import METHODS
from edgesweep.engine.runtime import PoolOptions, SerialExecutor
from edgesweep.storage import Busy, CommitLog, Fenced, RunDirectory
from edgesweep.storage.arrays import open_array
from edgesweep.storage.errors import storage_errors
from edgesweep.storage.tables import RESULTS, read_table
from edgesweep.sweeps.actor.halving import with_halving
from edgesweep.sweeps.command import cli
from edgesweep.sweeps.command.watching import run_status
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.driver import Driver
from edgesweep.sweeps.launch import drive, reopen, start, worker_settings
from edgesweep.sweeps.progress import Silence
from tests.sweeps.helpers import (
    DATA,
    Faulty,
    committed,
    contents,
    flip_a_bit,
    run_tiny,
    tiny,
)

MEANS = {"evaluate": {"eval_patch": ["counterfactual", "mean", "zero"]}}
HAS_GRAPH_TOOL = find_interpreter() is not None


def exchange(chunk: Path) -> None:
    """Another block of the same array in its place, sound by its own checksum."""
    block, _, rest = str(chunk).partition("/c/0/")
    chunk.write_bytes(Path(block, "c", "1", rest).read_bytes())


# --- faults -------------------------------------------------------------------------------------


def test_a_poison_shard_is_quarantined_and_the_rest_goes_on(calm, tmp_path):
    out = tmp_path / "run"
    poison = committed(calm)["attribute"][0]
    worker = Faulty(poison=poison)
    outcome = run_tiny(out, factory=worker)
    assert outcome.exit_code == 3
    assert worker.asked.count(poison) == 3
    assert outcome.quarantined == {f"attribute/{poison}": "ValueError: this shard is poison"}
    # The other cell is whole; the poisoned one has no row that stands on fewer inputs.
    healthy = read_table(RunDirectory.open(calm), RESULTS).query("method == 'ig_inputs'")
    assert read_table(RunDirectory.open(out), RESULTS).equals(healthy.reset_index(drop=True))
    found = run_status(out)
    assert found["shards"]["quarantined"] == 1
    assert drive(reopen(out), Silence()).exit_code == 0
    assert contents(out, *DATA) == contents(calm, *DATA)
    assert run_status(out)["shards"]["quarantined"] == 0


def test_a_poison_evaluation_leaves_its_rows_out(calm, tmp_path):
    out = tmp_path / "run"
    poison = next(
        k for k in committed(calm)["evaluate"] if k.endswith("edge.counterfactual.000004")
    )
    assert run_tiny(out, factory=Faulty(poison=poison)).exit_code == 3
    whole, left = (read_table(RunDirectory.open(path), RESULTS) for path in (calm, out))
    gone = whole.merge(left, how="outer", indicator=True).query("_merge != 'both'")
    assert set(gone["subset"]) == {"all", "agreement", "macro", "worst"}
    assert set(gone["ablation"]) == {"edge"}
    assert set(gone["_merge"]) == {"left_only"}
    assert drive(reopen(out), Silence()).exit_code == 0
    assert contents(out, *DATA) == contents(calm, *DATA)


@pytest.mark.parametrize(
    "where",
    ["attributions.zarr/*/scores", "aggregates.zarr/*/partials", "evaluations.zarr/*/*/values"],
)
def test_a_flipped_byte_is_found_and_the_shard_redone(calm, tmp_path, where):
    out = tmp_path / "run"
    run_tiny(out)
    chunk = sorted(
        f for folder in out.glob(where) for f in (folder / "c").rglob("*") if f.is_file()
    )[0]
    flip_a_bit(chunk)
    worker = Faulty()
    assert run_tiny(out, factory=worker).exit_code == 0
    assert len(worker.asked) == 1
    assert contents(out, *DATA) == contents(calm, *DATA)
    assert any(b'"uncommitted"' in file.read_bytes() for file in out.glob("commits/*/000002-*"))


@pytest.mark.parametrize("hurt", [Path.unlink, flip_a_bit, exchange])
def test_tables_are_made_of_what_was_committed(calm, tmp_path, capsys, hurt):
    """Committed data that is hurt while the run goes on: one line, no tables, and of the rows that
    cells had before it none but the right ones."""
    out = tmp_path / "run"
    launch = start(parse_config(tiny()), out)
    last = launch.plan.stages["evaluate"][-1].key

    def damage(shard):
        if shard.key == last:
            hurt(sorted(out.glob("evaluations.zarr/*/edge.counterfactual/values/c/0/*/*"))[0])

    assert cli.drive_and_tell(launch, Faulty(before=damage), page=None) == 1
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "values" in error
    assert "resume the run to redo" in error
    assert not list((out / "tables").glob("*.parquet"))
    whole, left = (read_table(RunDirectory.open(path), RESULTS) for path in (calm, out))
    assert 0 < len(left) < len(whole)
    assert len(whole.merge(left)) == len(left)
    assert run_tiny(out).exit_code == 0
    assert contents(out, *DATA) == contents(calm, *DATA)


def test_prompts_that_are_not_as_written_are_not_read(calm, tmp_path, capsys):
    out = tmp_path / "run"
    launch = start(parse_config(tiny()), out)

    def damage(shard):
        if len(worker.asked) == 1:
            path = sorted(out.glob("prompts/*/*.json"))[0]
            path.write_bytes(path.read_bytes().replace(b'"clean":[', b'"clean":[1,', 1))

    worker = Faulty(before=damage)
    assert cli.drive_and_tell(launch, worker, page=None) == 1
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "is damaged: its checksum does not match" in error
    assert run_tiny(out).exit_code == 0
    assert contents(out, *DATA) == contents(calm, *DATA)


def test_two_drivers_on_one_directory(calm, tmp_path):
    """A second driver is refused in the middle of the first; told to take over, it goes on, and the
    first commits nothing more."""
    out = tmp_path / "run"
    launch = start(parse_config(tiny()), out)
    settings = worker_settings(launch.plan, launch.run)

    def second(shard):
        if len(first.asked) == 3:
            first.before = None
            while not list(out.glob("commits/*/000001-*")):
                time.sleep(0.01)  # the first driver's thread is about to write what it has
            with pytest.raises(Busy, match="has a driver at work"):
                run_tiny(out)
            assert run_tiny(out, take_over=True).exit_code == 0

    first = Faulty(before=second)
    executor = SerialExecutor(lambda: first(settings), PoolOptions())
    before = contents(calm, *DATA)
    with pytest.raises(Fenced, match=r"another driver \(epoch 2\) has taken over"):
        Driver(launch.plan, launch.run, executor, Silence()).drive()
    assert contents(out, *DATA) == before
    log = CommitLog(launch.run)
    epochs = Counter(r["epoch"] for stage in log.stages() for r in log.records(stage))
    assert set(epochs) == {1, 2}
    assert epochs[1] <= 3


def test_scores_that_are_not_finite_are_counted_never_averaged(tmp_path, monkeypatch):
    method = METHODS["eap"]
    real = type(method).attribute

    def with_nan(self, model, batch, patch, metric, steps=1):
        found = real(self, model, batch, patch, metric, steps)
        found.scores[0, 7] = torch.nan
        return found

    monkeypatch.setattr(type(method), "attribute", with_nan)
    out = tmp_path / "run"
    assert run_tiny(out, tiny(sweep={"method": "eap"})).exit_code == 0
    run = RunDirectory.open(out)
    cell = run.plan["cells"][0]["key"]
    n_bad = np.asarray(open_array(run.aggregates, f"{cell}/n_bad")[...])
    assert (n_bad[7], n_bad.sum()) == (4, 4)
    assert np.isfinite(np.asarray(open_array(run.aggregates, f"{cell}/mean")[...])).all()
    assert any(event["event"] == "not_finite" for event in run.read_log())


def test_out_of_memory_halves_the_micro_batch_and_redoes_the_shard(tmp_path, monkeypatch):
    method = METHODS["eap"]
    real = type(method).attribute
    sizes = []

    def starved(self, model, batch, patch, metric, steps=1):
        sizes.append(len(batch))
        if len(batch) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return real(self, model, batch, patch, metric, steps)

    monkeypatch.setattr(type(method), "attribute", starved)
    out = tmp_path / "run"
    assert run_tiny(out, tiny(sweep={"method": "eap"})).exit_code == 0
    assert sizes == [2, 1, 1] * 4
    records = list(CommitLog(RunDirectory.open(out)).records("attribute"))
    assert {r["micro_batch"] for r in records} == {1}


def test_what_does_not_fit_at_all_is_an_error():
    def never(micro_batch):
        raise MemoryError

    with pytest.raises(MemoryError, match="one input at a time"):
        with_halving(4, never)
    with pytest.raises(RuntimeError, match="something else"):
        with_halving(4, lambda n: (_ for _ in ()).throw(RuntimeError("something else")))


def test_a_full_disk_is_one_line(tmp_path, capsys):
    def full(shard):
        with storage_errors("/run/x"):
            raise OSError(errno.ENOSPC, "No space left on device")

    worker = Faulty(before=full)
    assert cli.drive_and_tell(start(parse_config(tiny()), tmp_path / "run"), worker) == 1
    error = capsys.readouterr().err.strip()
    assert "the disk is full; free space there, then resume the run" in error
    assert len(error.splitlines()) == 1
    assert len(worker.asked) == 1
