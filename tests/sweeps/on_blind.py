"""A whole run on a cluster of which one node does not see the run directory."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from edgesweep.storage import RunDirectory, status
from edgesweep.sweeps.actor.context import WorkerSettings
from edgesweep.sweeps.actor.worker import Task, make_worker
from edgesweep.sweeps.command.watching import pool_lines
from tests.runtime.clusters import Machines
from tests.sweeps.helpers import DATA, contents, run_tiny, tiny


@pytest.fixture
def cluster(shared):
    made = Machines()
    made.add()
    blind = made.add_without(shared)
    yield made
    os.killpg(blind.pid, signal.SIGTERM)
    blind.wait(30)
    made.close()


@pytest.fixture
def shared(tmp_path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


def pool_of(run: RunDirectory) -> dict[str, Any]:
    return status(run)["pool"]


def patiently(settings: WorkerSettings) -> Any:
    """Workers that wait until the others have started, and one node is shut out."""
    worker = make_worker(settings)
    run, until = RunDirectory.open(settings.run), time.monotonic() + 90

    def work(task: Task, attempt: int) -> dict[str, Any]:
        while not pool_of(run)["shut_out"] and time.monotonic() < until:
            time.sleep(0.2)
        return worker(task, attempt)

    work.greeting = worker.greeting
    return work


def test_a_node_that_does_not_see_the_run_is_shut_out(shared, cluster, tmp_path):
    execution = {"executor": "ray", "address": cluster.address, "actors": 3}
    outcome = run_tiny(shared / "run", tiny(execution=execution), patiently)
    assert (outcome.exit_code, outcome.quarantined) == (0, {})
    [line] = pool_lines(pool_of(RunDirectory.open(shared / "run")))
    assert line.startswith("shut out: node ")
    assert "is not there, or not the run" in line
    run_tiny(tmp_path / "serial")
    assert contents(shared / "run", *DATA) == contents(tmp_path / "serial", *DATA)
    assert not list((shared / "run").glob(".tmp-*"))
