"""The run over features that the tests of this folder read."""

import shutil
from pathlib import Path

import pytest

from edgesweep.engine.dictionaries.base import Identity, Relu, TopK
from edgesweep.engine.dictionaries.files import load_dictionary
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.model import load_model
from edgesweep.storage import RunDirectory
from edgesweep.sweeps.launch import reopen
from tests.sweeps.helpers import run_tiny
from tests.sweeps.over_features import config


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> RunDirectory:
    """A run over features."""
    out = tmp_path_factory.mktemp("features") / "run"
    assert run_tiny(out, config()).exit_code == 0
    return RunDirectory.open(out)


@pytest.fixture(scope="session")
def plan(run):
    return reopen(run.path).plan


@pytest.fixture(scope="session")
def features(run, plan) -> FeatureModel:
    """The model with the run's dictionaries, by hand."""
    found = {"embed": Identity(plan.resolved.models["tiny-random"].sizes.d_model)}
    model = load_model(plan.resolved.models["tiny-random"].source)
    for file in (run.path / "dictionaries").iterdir():
        found[file.name.split("-")[0]] = load_dictionary(str(file), d_model=model.d_model)
    assert {s: type(d) for s, d in found.items()} == {
        "embed": Identity,
        "mlp1": Relu,
        "resid2": TopK,
    }
    return FeatureModel(model, found)


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """A copy of the run, to be hurt."""
    return Path(shutil.copytree(run.path, tmp_path / "run"))
