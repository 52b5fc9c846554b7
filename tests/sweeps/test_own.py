"""A stage of ten lines and a kind of nodes of one file join a sweep, through Ray, killed and
resumed, and no other file is edited."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgesweep.engine.training import NetworkTraining
from edgesweep.storage import RunDirectory
from edgesweep.storage.tables import CIRCUITS, RESULTS, read_table
from edgesweep.sweeps.command.train_model import ModelRequest, train_model
from edgesweep.sweeps.config import schema
from edgesweep.sweeps.granularity.kinds import KINDS
from edgesweep.sweeps.progress import Silence
from edgesweep.sweeps.stages.registry import STAGES
from tests.sweeps.helpers import DATA, contents, run_tiny
from tests.sweeps.own_driver import know_both, own_config, own_worker
from tests.sweeps.test_chaos import descendants, reap, wait_for_commits


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("models") / "digits"
    train_model(
        ModelRequest("digits", (), (12,), "relu", NetworkTraining(epochs=2), out), Silence()
    )
    return str(out)


@pytest.fixture
def known():
    """The stage and the kind are known to this process for one test."""
    before = dict(STAGES), dict(KINDS), list(schema.NODES)
    know_both()
    yield
    for registry, was in zip((STAGES, KINDS), before, strict=False):
        registry.clear()
        registry.update(was)
    schema.NODES[:] = before[2]


def drive(run: Path, model: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.sweeps.own_driver", str(run), model]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
@pytest.mark.usefixtures("known")
def test_a_stage_and_a_kind_of_one_s_own(model, tmp_path):
    calm, hurt = tmp_path / "calm", tmp_path / "hurt"
    assert run_tiny(calm, own_config(model, "serial"), own_worker).exit_code == 0
    killed = drive(hurt, model)
    wait_for_commits(hurt, 3, killed)
    orphans = descendants(killed.pid)
    killed.kill()
    killed.wait()
    reap(orphans)
    assert not (hurt / "results.parquet").exists()
    assert drive(hurt, model).wait(timeout=240) == 0
    assert contents(hurt, *DATA, "counts") == contents(calm, *DATA, "counts")

    run = RunDirectory.open(calm)
    counts = {p.stem: json.loads(p.read_text())["n"] for p in (calm / "counts").glob("*.json")}
    edges = read_table(run, CIRCUITS)
    assert counts == edges.groupby("circuit").size().to_dict()
    assert set(edges["source"]) <= {f"{s}/f{i}" for s in ("input", "hidden0") for i in range(64)}
    results = read_table(run, RESULTS)
    assert set(results["nodes"]) == {"neurons"}
    assert set(results["method"]) == {"eap", "node_ap"}
