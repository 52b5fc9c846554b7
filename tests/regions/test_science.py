"""What regions of a CNN on MNIST do when they are gone, as the specification says, and the first
level of the published encoding. By hand: make proof."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.engine.regions.encoding import Encoding
from edgesweep.engine.regions.encodings import fit_encoded
from edgesweep.engine.training import NetworkTraining
from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.storage.tables import REGION_ABLATION, read_table
from edgesweep.sweeps.command.train_model import ModelRequest, train_model
from edgesweep.sweeps.config.load import load_config
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.launch import drive, start
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.planning import make_plan
from edgesweep.sweeps.progress import Silence
from edgesweep.sweeps.regions import shards

#: 8,000 images to train on and to find regions with, 2,000 held out
MNIST = Path("/work/shared/data/mnist")
pytestmark = [
    pytest.mark.proof,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not MNIST.is_dir(), reason=f"no {MNIST}"),
]


@pytest.fixture(scope="module")
def cnn(tmp_path_factory) -> tuple[Path, float]:
    """The paper's network (appendix A.1), and its accuracy on what is held out."""
    out = tmp_path_factory.mktemp("models") / "mnist-cnn"
    how = NetworkTraining(epochs=10, batch=100, lr=1e-3)
    request = ModelRequest(str(MNIST), (32, 64), (), "relu", how, out, (5, 3), padding=0)
    return out, train_model(request, Silence())["test_accuracy"]


@pytest.fixture(scope="module")
def run(cnn, tmp_path_factory) -> RunDirectory:
    """The preset with one chain and three draws of random blocks, where nothing goes, a tenth of
    the regions, and all."""
    overrides = [
        *(f"sweep.model={cnn[0]}", f"sweep.task={MNIST}", "evaluate.metric=accuracy"),
        *("rois.partition=[sbm, random]", "rois.blocks=[auto]", "rois.tau=[0, 0.1, 1]"),
        *("rois.chains=1", "rois.draws=3", "rois.views=0", "measures.bootstrap=0"),
        "execution.executor=serial",
    ]
    out = tmp_path_factory.mktemp("rois") / "run"
    assert drive(start(load_config("mnist-rois", overrides), out), Silence()).exit_code == 0
    return RunDirectory.open(out)


@pytest.fixture(scope="module")
def accuracy(run):
    table = read_table(run, REGION_ABLATION)
    return table[table["metric"] == "accuracy"]


def test_the_network_tells_digits(cnn):
    print(f"\naccuracy {cnn[1]:.4f}")
    assert cnn[1] >= 0.96


def test_a_tenth_of_the_regions_is_most_of_it_and_of_random_ones_little(accuracy):
    curve = accuracy[(accuracy["side"] == "ablate") & (accuracy["tau"] == 0.1)]
    of = curve.groupby("partition")["value"].mean()
    print(f"\nwithout the first tenth: {of['sbm']:.4f}; of random blocks {of['random']:.4f}")
    assert of["sbm"] <= 0.25
    assert of["random"] >= of["sbm"] + 0.4


def test_a_class_goes_with_its_own_regions_and_no_other_does(accuracy, cnn):
    rows = accuracy[(accuracy["side"] == "without") & (accuracy["partition"] == "sbm")]
    own = rows["of"] == rows["on"]
    mean, others = rows[own]["value"].mean(), rows[~own]["value"].mean()
    print(f"\nwithout its own regions {mean:.4f}; without another's {others:.4f}")
    assert mean <= 0.45
    assert others >= cnn[1] - 0.01


@pytest.mark.skipif(find_interpreter() is None, reason="no graph-tool")
def test_the_published_encoding_has_an_idle_first_level(run):
    """On 150 live units, drawn, as where it was seen first: all of them take hours."""
    plan = make_plan(resolve(load_config(run.path / "config.yaml")))
    found = files.read_tensors(run, CommitLog(run), shards.TIES, plan.rois[0].key)
    z = found["z"].numpy()
    some = np.sort(np.random.default_rng(0).choice(len(z), 150, replace=False))
    how = Encoding("microcanonical", "nested", "published", 1)
    levels = fit_encoded(z[np.ix_(some, some)], how, 0, find_interpreter()).sizes
    print(f"\nlevels {levels}")
    assert levels[0] >= 0.95 * 150
