"""Runs that several modules look at."""

from pathlib import Path

import pytest

from edgesweep.engine.dictionaries.files import save_dictionary
from tests.sweeps.featuresets import relu
from tests.sweeps.helpers import run_tiny


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    """An undisturbed run, to compare with."""
    out = tmp_path_factory.mktemp("calm") / "run"
    assert run_tiny(out).exit_code == 0
    return out


@pytest.fixture
def saved(tmp_path):
    """A dictionary in a file."""
    path = tmp_path / "relu.safetensors"
    save_dictionary(relu(), path)
    return path
