"""A sweep over the neurons of a trained network of images, against the network written out."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgesweep.engine.network.feedforward_net import FeedForwardConfig
from edgesweep.engine.training import NetworkTraining
from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import open_array
from edgesweep.storage.tables import CIRCUITS, RESULTS, read_table
from edgesweep.sweeps.command.train_model import ModelRequest, train_model
from edgesweep.sweeps.config.load import ConfigError, parse_config
from edgesweep.sweeps.launch import reopen
from edgesweep.sweeps.plan.resolve import resolve
from edgesweep.sweeps.progress import Silence
from edgesweep.tasks import build_task
from tests.oracles import slow_feedforward as slow
from tests.sweeps.helpers import run_tiny, tiny

N = 6
SITES = ("input", "hidden0")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("models") / "digits-mlp"
    how = NetworkTraining(epochs=5)
    train_model(ModelRequest("digits", (), (12,), "relu", how, out), Silence())
    return str(out)


def config(model: str, **changes) -> dict:
    sections = {
        "sweep": {
            "model": model,
            "task": "digits",
            "nodes": "features",
            "method": ["eap", "node_ig"],
            "steps": 2,
            "build_patch": ["counterfactual", "mean"],
        },
        "features": {"dictionaries": dict.fromkeys(SITES, "identity"), "keep": 900, "edges": 900},
        "evaluate": {
            "threshold": [60, 400],
            "node_threshold": [8, 30],
            "ablation": "edge",
            "eval_patch": ["counterfactual", "zero", "mean"],
            "metric": ["logit_diff", "accuracy"],
        },
        "data": {"n_build": N, "n_eval": N},
        "execution": {"max_attempts": 1},
    }
    names = {*sections, *changes}
    return tiny(**{s: {**sections.get(s, {}), **changes.get(s, {})} for s in names})


@pytest.fixture(scope="module")
def run(model, tmp_path_factory) -> RunDirectory:
    out = tmp_path_factory.mktemp("digits") / "run"
    assert run_tiny(out, config(model)).exit_code == 0
    return RunDirectory.open(out)


@pytest.fixture(scope="module")
def oracle(model) -> slow.SlowNet:
    weights = {k: v.double() for k, v in load_file(f"{model}/model.safetensors").items()}
    return slow.SlowNet(FeedForwardConfig.from_pretrained(model), weights, SITES)


def values(oracle, numbers):
    return oracle.values(torch.tensor(numbers, dtype=torch.float64))


def patches(oracle, kind, examples, build):
    """The patch values of every example."""
    if kind == "counterfactual":
        return [values(oracle, e.patch) for e in examples]
    runs = [values(oracle, e.patch) for e in build]
    scale = 0.0 if kind == "zero" else 1.0
    mean = {name: scale * torch.stack([run[name] for run in runs]).mean(0) for name in runs[0]}
    return [mean] * len(examples)


@pytest.mark.parametrize("patch", ["counterfactual", "zero", "mean"])
def test_values_of_circuits_are_the_oracles(run, oracle, patch):
    data = build_task("digits", None, N, N, 0, shape=(8, 8))
    clean = [values(oracle, e.clean) for e in data.evaluation]
    patched = patches(oracle, patch, data.evaluation, data.build)
    edges, results = (read_table(run, t) for t in (CIRCUITS, RESULTS))
    rows = results[(results.method == "eap") & (results.eval_patch == patch)]
    for _, row in rows[rows.metric == "logit_diff"].iterrows():
        mine = edges[edges.circuit == row.circuit]
        kept = set(mine.source + "->" + mine.target)
        runs = zip(data.evaluation, clean, patched, strict=True)
        found = [
            float(slow.logit_diff(slow.edge_ablated(oracle, kept, c, p), e)) for e, c, p in runs
        ]
        assert row.value == pytest.approx(np.mean(found), rel=1e-4)
    assert len(rows) == 2 * 2 * 2  # build patches, thresholds, metrics


def test_node_scores_are_the_oracles(run, oracle):
    data = build_task("digits", None, N, N, 0, shape=(8, 8))
    plan = reopen(run.path).plan
    for cell in (c for c in plan.cells if c.method == "node_ig"):
        stored = np.asarray(open_array(run.attributions, layout.scores(cell.key))[...])
        patched = patches(oracle, cell.build_patch, data.build, data.build)
        for row, example, patch in zip(stored, data.build, patched, strict=True):
            clean, parts = values(oracle, example.clean), []
            for site in SITES:
                gradient = slow.node_gradient(
                    oracle, site, clean, patch, [(0.25, 0.5), (0.75, 0.5)], example
                )
                parts += [(clean[site] - patch[site]) * gradient, torch.zeros(1)]
            expected = torch.cat(parts).numpy()
            assert np.abs(row - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": "heads"}, "sweep.nodes: 'heads': .*has no attention heads"),
        ({"task": "ioi"}, "sweep.task: task ioi is text and this model reads arrays of 8×8"),
        ({"model": "tiny-random"}, "task digits is arrays of 8×8 and this model reads tokens"),
    ],
)
def test_models_and_tasks_that_do_not_fit_are_refused(model, change, message):
    raw = config(model, sweep={**config(model)["sweep"], **change})
    if change.get("nodes"):
        del raw["features"]
    with pytest.raises(ConfigError, match=message):
        resolve(parse_config(raw))


def test_sites_that_it_does_not_have_are_refused(model):
    raw = config(model, features={"dictionaries": {"resid0": "identity"}})
    with pytest.raises(ConfigError, match="'resid0' is no site; sites are input, hidden0"):
        resolve(parse_config(raw))
