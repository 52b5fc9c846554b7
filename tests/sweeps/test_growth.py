"""Networks on the way of a training as an axis: how well each does, and the page's course of it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from edgesweep.dashboards.data import load_run
from edgesweep.dashboards.report import render
from edgesweep.dashboards.sections.layered import growth
from edgesweep.engine.training.modadd import Modadd, ModaddNet, right, splits
from edgesweep.storage import RunDirectory
from edgesweep.storage.tables import EDGES_NEEDED, NETWORK_SCORES, read_table
from edgesweep.sweeps.progress import Silence
from edgesweep.sweeps.training.modadd import ModaddRequest, train_sums
from tests.sweeps.helpers import run_tiny

HOW = Modadd(7, 16, 2, 64, share=0.9, steps=240, lr=3e-3, weight_decay=3.0)
STEPS = (0, 120, 240)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, RunDirectory]:
    folder = tmp_path_factory.mktemp("models") / "grok"
    train_sums(ModaddRequest(HOW, folder, STEPS), Silence())
    raw = {
        "name": "grok",
        "sweep": {
            "model": [str(folder / f"step-{step:06d}") for step in STEPS],
            "task": "modadd",
            "nodes": "lib",
            "method": "interactions",
            "rule": "right",
        },
        "edges_needed": {"points": 2},
        "measures": {"bootstrap": 0},
        "data": {"n_build": 44, "n_eval": 5},
        "execution": {"executor": "serial"},
    }
    out = folder.parent / "run"
    assert run_tiny(out, raw).exit_code == 0
    return folder, RunDirectory.open(out)


def test_scores_are_those_of_the_networks(run):
    """Of the pairs that each was trained on, and of those that it was not."""
    folder, directory = run
    table = read_table(directory, NETWORK_SCORES).set_index(["model", "split", "metric"])
    for step in STEPS:
        name, net = f"step-{step:06d}", ModaddNet(HOW)
        net.load_state_dict(load_file(folder / name / "model.safetensors"))
        for split, sums in zip(("build", "eval"), splits(7, 0.9), strict=True):
            with torch.no_grad():
                each = cross_entropy(net(sums.tokens).double(), sums.sums, reduction="none")
            told = table.loc[name, split, "nll"]
            assert told.score == pytest.approx(float(each.mean()), rel=1e-5)
            assert told.standard_error == pytest.approx(float(each.std()) / len(each) ** 0.5, 1e-4)
            assert table.loc[name, split, "accuracy"].score == right(net, sums)
            assert told.n_inputs == len(sums.sums)


def test_the_page_shows_the_course(run):
    """A panel of each, over one axis; steps that only guess have no edges needed."""
    directory = run[1]
    data = load_run(directory.path)
    (section,) = growth.section(data)
    ((_, figure),) = section.figures()
    lines = {(trace.name, trace.yaxis): trace for trace in figure.data if trace.type == "scatter"}
    table = read_table(directory, NETWORK_SCORES).query("split == 'eval' and metric == 'nll'")
    assert lines["evaluation prompts", "y"].x.tolist() == list(STEPS)
    assert lines["evaluation prompts", "y"].y.tolist() == table.score.tolist()
    needed = read_table(directory, EDGES_NEEDED).sort_values("model")
    needed = needed.query("search == 'robust' and source == 'mid0'")
    assert set(needed.model) < {f"step-{step:06d}" for step in STEPS}
    assert lines["mid0 → resid0", "y3"].y.tolist() == needed.edges.tolist()
    heats = [trace for trace in figure.data if trace.type == "heatmap"]
    assert [trace.yaxis for trace in heats] == ["y5", "y6", "y7"]
    assert all((trace.z[0] == 0).all() for trace in heats)  # the largest of each step
    assert "Structure through training" in render(data)


def test_only_steps_of_a_training_are_one():
    assert growth.trainings_of(["step-10", "step-9", "step-100", "gpt2", "seed0", "seed1"]) == {
        "step-": {"step-9": 9, "step-10": 10, "step-100": 100}
    }
    assert growth.trainings_of(["seed0", "seed1", "seed2", "a-step1", "a-step2"]) == {}
