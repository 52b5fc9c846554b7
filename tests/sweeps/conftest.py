"""Runs that several modules look at."""

from pathlib import Path

import pytest

from edgesweep.engine.dictionaries.base import Identity, Relu, TopK
from edgesweep.engine.dictionaries.files import load_dictionary, save_dictionary
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.model import load_model
from edgesweep.storage import RunDirectory
from edgesweep.sweeps.launch import reopen
from tests.sweeps.featuresets import relu
from tests.sweeps.helpers import (
    run_tiny,
)
from tests.sweeps.over_features import config


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    """An undisturbed run, to compare with."""
    out = tmp_path_factory.mktemp("calm") / "run"
    assert run_tiny(out).exit_code == 0
    return out


@pytest.fixture(scope="session")
def features_run(tmp_path_factory) -> RunDirectory:
    """A run over features."""
    out = tmp_path_factory.mktemp("features") / "run"
    assert run_tiny(out, config()).exit_code == 0
    return RunDirectory.open(out)


@pytest.fixture(scope="session")
def features_plan(features_run):
    return reopen(features_run.path).plan


@pytest.fixture(scope="session")
def features_model(features_run, features_plan) -> FeatureModel:
    """The model with the run's dictionaries, by hand."""
    found = {"embed": Identity(features_plan.resolved.models["tiny-random"].sizes.d_model)}
    model = load_model(features_plan.resolved.models["tiny-random"].source)
    for file in (features_run.path / "dictionaries").iterdir():
        found[file.name.split("-")[0]] = load_dictionary(str(file), d_model=model.d_model)
    assert {s: type(d) for s, d in found.items()} == {
        "embed": Identity,
        "mlp1": Relu,
        "resid2": TopK,
    }
    return FeatureModel(model, found)


@pytest.fixture
def saved(tmp_path):
    """A dictionary in a file."""
    path = tmp_path / "relu.safetensors"
    save_dictionary(relu(), path)
    return path
