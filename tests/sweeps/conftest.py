from pathlib import Path

import pytest

from tests.sweeps.helpers import run_tiny


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    """An undisturbed run, to compare with."""
    out = tmp_path_factory.mktemp("calm") / "run"
    assert run_tiny(out).exit_code == 0
    return out
