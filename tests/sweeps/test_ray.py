"""Through Ray: the same bytes as the serial executor, whatever the number of actors."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.engine.training import NetworkTraining
from edgesweep.storage import RunDirectory
from edgesweep.sweeps.command.train_model import ModelRequest, train_model
from edgesweep.sweeps.command.watching import run_status
from edgesweep.sweeps.progress import Silence
from tests.sweeps import test_interactions_sweep as layered
from tests.sweeps.helpers import (
    BLOCKS,
    DATA,
    FURTHER,
    FURTHER_DATA,
    HELD_AGAINST,
    NULLS_DATA,
    contents,
    run_tiny,
    tiny,
)

PATIENCE_S = 240.0
FITTED = find_interpreter() is not None
FIT = {**BLOCKS, **HELD_AGAINST} if FITTED else {}
ALL = (*DATA, *FURTHER_DATA, *(NULLS_DATA if FITTED else ()), "means.zarr")


def config(**execution) -> dict:
    """Every stage and every kind of patch."""
    return tiny(
        blocks=FIT,
        evaluate={
            "eval_patch": ["counterfactual", "mean", "zero"],
            "ablation": "edge",
            **FURTHER["evaluate"],
        },
        sweep={"build_patch": ["zero", "mean"]},
        measures=FURTHER["measures"],
        data={"mean_positions": "pooled"},
        execution=execution,
    )


@pytest.fixture(scope="module")
def serial(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("serial") / "run"
    assert run_tiny(out, config()).exit_code == 0
    return out


PROOF = pytest.mark.proof


@pytest.mark.parametrize("actors", [2, pytest.param(1, marks=PROOF), pytest.param(3, marks=PROOF)])
def test_ray_gives_the_bytes_of_the_serial_executor(serial, tmp_path, actors):
    out = tmp_path / "run"
    assert run_tiny(out, config(executor="ray", actors=actors)).exit_code == 0
    assert contents(out, *ALL) == contents(serial, *ALL)


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_interaction_graphs_are_the_same_bytes_also_after_a_kill(drivers, tmp_path):
    """Of a network of images with all bases; its driver on Ray is killed once some are found."""
    how = NetworkTraining(epochs=5)
    model = tmp_path / "digits-mlp"
    train_model(ModelRequest("digits", (), (12, 8), "gelu", how, model), Silence())
    sweep = {"nodes": ["lib", "gib", "pca"]}
    raw = layered.config(str(model), sweep=sweep)
    assert run_tiny(tmp_path / "serial", raw).exit_code == 0
    on_ray = layered.config(str(model), sweep=sweep, execution={"executor": "ray", "actors": 2})
    (tmp_path / "ray.json").write_text(json.dumps(on_ray))
    driver = drivers(0.25, config=str(tmp_path / "ray.json"))
    driver.wait_for("commits/rotations/*.jsonl")
    driver.process.kill()
    driver.process.wait()
    assert not list(driver.out.glob("commits/directions/*"))
    assert run_tiny(driver.out, on_ray, take_over=True).exit_code == 0
    found = contents(driver.out, *layered.FILES)
    assert found == contents(tmp_path / "serial", *layered.FILES)
    assert any(name.startswith("attributions.zarr/") for name in found)


class Driver:
    """A driver of its own on Ray, with a terminal of its own or none."""

    def __init__(
        self, out: Path, seconds_a_shard: float, *, terminal: bool = False, config: str = ""
    ) -> None:
        self.out, self.printed = out, out.with_name("printed")
        self.terminal, theirs = os.openpty() if terminal else (None, None)
        with self.printed.open("wb") as file:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.sweeps.chaos_driver"),
                    *(str(out), str(seconds_a_shard), *([config] if config else [])),
                ],
                start_new_session=True,
                stdin=theirs or subprocess.DEVNULL,
                stdout=theirs or file,
                stderr=file,
                preexec_fn=_with_terminal if terminal else _hears_all,
            )
        if theirs is not None:
            os.close(theirs)

    def wait_for(self, pattern: str) -> None:
        """Until a file is there."""
        deadline = time.monotonic() + PATIENCE_S
        while not list(self.out.glob(pattern)):
            assert self.process.poll() is None, self.printed.read_text()
            assert time.monotonic() < deadline
            self._look_at_terminal()
            time.sleep(0.05)

    def _look_at_terminal(self) -> None:
        """Or it is full, and the driver waits for somebody to read."""
        if self.terminal is not None:
            os.set_blocking(self.terminal, False)
            with suppress(BlockingIOError):
                os.read(self.terminal, 2**16)

    def hears(self, number: int) -> None:
        """Sends a signal to the driver and all that it has started, as terminals and Slurm do."""
        assert self.process.poll() is None
        os.killpg(self.process.pid, number)
        time.sleep(1)

    def close_terminal(self) -> None:
        """The kernel then sends SIGHUP, and what is printed goes nowhere."""
        assert self.terminal is not None
        os.close(self.terminal)

    def ended(self) -> tuple[int, str]:
        return self.process.wait(timeout=PATIENCE_S), self.printed.read_text()


@pytest.fixture
def drivers(tmp_path) -> Iterator[Callable[..., Driver]]:
    """Makes drivers, and ends those that a test has left."""
    made: list[Driver] = []

    def make(seconds_a_shard: float, **options: Any) -> Driver:
        made.append(Driver(tmp_path / "run", seconds_a_shard, **options))
        return made[-1]

    yield make
    for driver in made:
        driver.process.kill()
        driver.process.wait()


def _hears_all() -> None:
    """Even if these tests were started under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _with_terminal() -> None:
    _hears_all()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


#: signal, how often, and the seconds that a shard takes
ASKED = [
    (signal.SIGINT, 1, 0.25),
    pytest.param(signal.SIGINT, 2, 4, marks=PROOF),
    pytest.param(signal.SIGTERM, 1, 0.25, marks=PROOF),
    pytest.param(signal.SIGTERM, 2, 4, marks=PROOF),
    pytest.param(signal.SIGHUP, 1, 0.25, marks=PROOF),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("number", "times", "seconds_a_shard"), ASKED)
def test_a_driver_that_is_asked_to_stop(drivers, number, times, seconds_a_shard):
    """Once, what is in flight is committed; twice, it is not waited for. No actor outlives it."""
    driver = drivers(seconds_a_shard)
    # once a shard of many is done others are in flight; between stages there would be none
    driver.wait_for("commits/attribute/*.jsonl")
    for _ in range(times):
        driver.hears(number)
    code, printed = driver.ended()
    assert code == 3, printed
    assert f"resume with: edgesweep resume {driver.out}" in printed
    assert ("aborted" in printed) == (times == 2)
    assert_stopped_well(driver.out)


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_a_closed_terminal_drains(drivers):
    driver = drivers(0.25, terminal=True)
    driver.wait_for("commits/attribute/*.jsonl")
    driver.close_terminal()
    code, errors = driver.ended()
    assert (code, errors) == (3, "")
    assert_stopped_well(driver.out)
    assert RunDirectory.open(driver.out).read_log()[-1]["stopped"]


@pytest.mark.slow
def test_sigterm_while_ray_starts(drivers):
    """Ray has a handler of its own for it, which would end the driver."""
    driver = drivers(0.25)
    driver.wait_for("means.zarr/*")
    time.sleep(1.5)
    driver.hears(signal.SIGTERM)
    code, printed = driver.ended()
    assert code == 3, printed
    assert "stopping when the shards in flight are done" in printed


def assert_stopped_well(out: Path) -> None:
    found = run_status(out)
    assert found["state"] == "stopped"
    assert 0 < found["shards"]["committed"] < found["shards"]["total"]
    assert found["shards"]["quarantined"] == 0
