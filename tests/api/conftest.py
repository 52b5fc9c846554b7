"""A finished run for the tests of the API."""

from pathlib import Path

import pytest

from tests.sweeps.helpers import run_tiny, tiny

PATCHES = ("counterfactual", "resample", "mean", "zero", "noise")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Edges and nodes of two tasks, evaluated in every way."""
    out = tmp_path_factory.mktemp("api") / "run"
    raw = tiny(
        sweep={"method": ["eap", "node_ap"]},
        evaluate={"threshold": [5, 40, 200], "eval_patch": PATCHES},
        data={"mean_positions": "pooled"},
    )
    assert run_tiny(out, raw).exit_code == 0
    return out
