"""Through Ray: the same bytes as the serial executor, whatever the number of actors."""

from pathlib import Path

import pytest

from engine.blockmodel import find_interpreter
from tests.sweeps.helpers import BLOCKS, DATA, contents, run_tiny, tiny

FIT = BLOCKS if find_interpreter() else {}


def config(**execution) -> dict:
    """Every stage and every kind of patch."""
    return tiny(
        blocks=FIT,
        evaluate={"eval_patch": ["counterfactual", "mean", "zero"], "aggregation": ["mean", "rms"]},
        sweep={"build_patch": ["counterfactual", "mean"]},
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
