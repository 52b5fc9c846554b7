"""Through Ray: the same bytes as the serial executor, whatever the number of actors."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.blockmodel import find_interpreter
from sweeps.watching import run_status
from tests.sweeps.helpers import BLOCKS, DATA, contents, run_tiny, tiny

FIT = BLOCKS if find_interpreter() else {}


def config(**execution) -> dict:
    """Every stage and every kind of patch."""
    return tiny(
        blocks=FIT,
        evaluate={"eval_patch": ["counterfactual", "mean", "zero"], "ablation": "edge"},
        sweep={"build_patch": ["zero", "mean"]},
        data={"mean_positions": "pooled"},
        execution=execution,
    )


@pytest.fixture(scope="module")
def serial(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("serial") / "run"
    assert run_tiny(out, config()).exit_code == 0
    return out


@pytest.mark.parametrize("actors", [1, 2, 3])
def test_ray_gives_the_bytes_of_the_serial_executor(serial, tmp_path, actors):
    out = tmp_path / "run"
    assert run_tiny(out, config(executor="ray", actors=actors)).exit_code == 0
    mine, theirs = contents(out, *DATA, "means.zarr"), contents(serial, *DATA, "means.zarr")
    assert mine == theirs


@pytest.mark.parametrize(("times", "seconds_a_shard"), [(1, 0.25), (2, 4)])
def test_ctrl_c_reaches_the_whole_terminal_group(tmp_path, times, seconds_a_shard):
    """Once, what is in flight is committed; twice, it is not waited for. No actor outlives it."""
    out = tmp_path / "run"
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.sweeps.chaos_driver", str(out), str(seconds_a_shard)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    # once a shard of many is done others are in flight; between stages there would be none
    while not list((out / "commits" / "attribute").glob("*.json")):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(times):
        assert driver.poll() is None
        os.killpg(driver.pid, signal.SIGINT)
        time.sleep(1)
    printed, _ = driver.communicate(timeout=60)
    assert driver.returncode == 3
    assert f"resume with: edgesweep resume {out}" in printed
    assert ("aborted" in printed) == (times == 2)
    found = run_status(out)
    assert found["state"] == "stopped"
    assert 0 < found["shards"]["committed"] < found["shards"]["total"]
    assert found["shards"]["quarantined"] == 0
