"""Regions of a small network: attributions, ablations by hand, the whole study, the command."""

import sys

import numpy as np
import pytest
import torch

from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.regions.ablation import HeldOut, Regions, area, by_class, class_labels, curve
from edgesweep.engine.regions.baselines import CLUSTERINGS, clustered, shuffled
from edgesweep.engine.regions.correlation import RegionError
from edgesweep.engine.regions.site import UnitSite, patch_values
from edgesweep.engine.training import NetworkTraining
from edgesweep.sweeps.command.cli import main
from edgesweep.sweeps.command.train_model import ModelRequest, train_model
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.progress import Silence
from edgesweep.sweeps.regions.study import regions
from edgesweep.tasks import build_task
from tests.regions.made import planted


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("models") / "digits-cnn"
    how = NetworkTraining(epochs=15, lr=5e-3)
    train_model(ModelRequest("digits", (6,), (24,), "relu", how, out), Silence())
    return str(out)


@pytest.fixture(scope="module")
def network(model):
    return load_model(resolve_model(model))


@pytest.fixture(scope="module")
def examples():
    return build_task("digits", None, 40, 2, 0, shape=(8, 8)).build


def attributed(site, examples, kind="zero", points=((0.5, 1.0),)):
    values = site.values(examples)
    patch = patch_values(site, kind, examples, site.values(examples, "patch").mean(0))
    of = site.predicted(values)
    return values, patch, of, site.attributions(values, patch, of, points)


def test_before_a_linear_head_it_is_the_value_times_its_weight(network, examples):
    site = UnitSite.of(network, "hidden0")
    weight = network.hf.output.weight
    for points in (((0.5, 1.0),), ((0.2, 0.3), (0.9, 0.7))):
        values, _, of, found = attributed(site, examples, points=points)
        expected = (values * weight[of]).double().numpy()
        assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["zero", "mean", "counterfactual"])
def test_attributions_add_up_to_what_the_patch_takes(kind, network, examples):
    site = UnitSite.of(network, "conv0")
    points = [((k + 0.5) / 64, 1 / 64) for k in range(64)]
    values, patch, of, found = attributed(site, examples, kind, points)
    rows = np.arange(len(of))
    moved = (site.outputs(values) - site.outputs(patch)).detach().numpy()[rows, of]
    assert found.sum(1) == pytest.approx(moved, abs=0.02 * float(np.abs(moved).max()))


def test_channels_are_sums_over_places(network, examples):
    neurons, channels = (UnitSite.of(network, "conv0", unit) for unit in ("neuron", "channel"))
    fine, coarse = (attributed(site, examples)[3] for site in (neurons, channels))
    assert channels.n_units == 6
    assert coarse == pytest.approx(fine.reshape(len(examples), 6, -1).sum(2), rel=1e-9)
    out = np.array([[True, False, False, False, True, False]])
    values = channels.values(examples)
    left = channels.without(values, torch.zeros_like(values), out)
    table = left.reshape(len(examples), 6, -1)
    assert (table[:, [0, 4]] == 0).all()
    assert torch.equal(table[:, 1], values.reshape(len(examples), 6, -1)[:, 1])


@pytest.fixture
def by_hand():
    """Three regions of seven units, the fifth of them dead, and a stand-in for the network: an
    input is right as long as units 0 and 3 have their value."""

    class Site:
        def without(self, values, patch, out):
            return torch.where(torch.as_tensor(out), patch, values)

        def predicted(self, values):
            return ((values[:, 0] > 0) & (values[:, 3] > 0)).numpy().astype(int)

    regions = Regions.among(7, np.array([0, 1, 2, 3, 5, 6]), np.array([0, 0, 1, 1, 2, 2]))
    values = torch.ones(2, 7)
    scores = np.array([[3.0, 1, 0, 0, 9, 1, 1], [0, 0, 0, 0, 9, 4, 2]])
    tested = HeldOut(Site(), values, 0 * values, scores, np.array([1, 1]))
    return regions, tested, scores


def test_curves_by_hand(by_hand):
    regions, tested, scores = by_hand
    assert regions.mean(scores).tolist() == [[2, 0, 1], [0, 0, 3]]
    points = list(curve(regions, tested, [0, 0.34, 0.5, 0.7, 1]))
    ablate = [(p.n_regions, p.units, p.accuracy) for p in points if p.side == "ablate"]
    # the strongest regions: 0 then 2 of the first input, 2 then 0 of the second
    expected = [(0, 0, 1.0), (1, 1 / 3, 0.5), (1, 1 / 3, 0.5), (2, 2 / 3, 0.0), (3, 1, 0.0)]
    assert np.array(ablate) == pytest.approx(np.array(expected))
    keep = [(p.n_regions, p.units, p.accuracy) for p in points if p.side == "keep"]
    assert keep[0] == (0, 1, 0.0)
    assert keep[-1] == (3, 0, 1.0)
    assert area([p for p in points if p.side == "ablate"]) == pytest.approx(0.25 + 1 / 12)


def test_labels_and_classes_by_hand(by_hand):
    regions, tested, scores = by_hand
    labels = class_labels(regions, scores, np.array([0, 1]))
    assert labels.tolist() == [0, 0, 1]
    without = by_class(regions, labels, tested, "without")
    assert without[:, 1].tolist() == [0.0, 1.0]  # no class 0 is in it: NaN there
    assert by_class(regions, labels, tested, "only")[:, 1].tolist() == [1.0, 0.0]
    with pytest.raises(RegionError, match="class 0 has no input"):
        class_labels(regions, scores, np.array([1, 1]))


def test_clusterings_have_as_many_blocks_as_are_asked_for():
    z, blocks = planted(40, 4, 1.0, 0)
    scores = np.random.default_rng(0).normal(size=(30, 40))
    for name in CLUSTERINGS:
        for n in (1, 4, 40):
            assert len(set(clustered(name, z, scores, n, 0).tolist())) == n, name
    assert sorted(shuffled(blocks, 3).tolist()) == sorted(blocks.tolist())
    with pytest.raises(RegionError, match="41 blocks of 40 live units"):
        clustered("ward", z, scores, 41, 0)


def test_a_study_of_digits(model):
    """Regions beat random blocks of the same sizes; whoever asks twice gets the same tables."""
    how = {"n_build": 300, "n_eval": 200, "draws": 4, "chains": 1, "blocks": [5], "judged": False}
    found = regions(model, "digits", "conv0", **how)
    facts = found.facts
    assert facts["accuracy"] > 0.9
    assert facts["n_units"] == 96
    areas = found.areas[found.areas.side == "ablate"].groupby("partition")
    assert areas.over_random.mean()["sbm"] > 0.02
    assert areas.over_random.mean()["random"] == pytest.approx(0, abs=1e-12)
    assert set(found.units.partition) == {"sbm", "random", "singletons", *CLUSTERINGS}
    assert set(found.units[found.units.partition == "ward"].n_blocks) >= {5}
    start = found.curves[(found.curves.side == "ablate") & (found.curves.tau == 0)]
    assert set(start.accuracy) == {facts["accuracy"]}
    again = regions(model, "digits", "conv0", **how)
    for name in ("units", "curves", "classes", "areas", "attributions"):
        assert getattr(found, name).equals(getattr(again, name)), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site": "conv7"}, "'conv7' is no site; sites are input, conv0, hidden0"),
        ({"unit": "channel", "site": "hidden0"}, "site 'hidden0' has no channels; use neurons"),
        ({"max_units": 50}, r"96 units are more than 50: their covariance and its fold take 0\.0"),
        ({"partition": ["sbm", "x"]}, "partition: 'x'; allowed: sbm, random, singletons"),
        ({"target": "true"}, "target: 'true'; allowed: predicted, label"),
        ({"blocks": [500]}, r"500 blocks of \d+ live units; allowed: 1 to"),
        ({"n_eval": 5000}, "task digits has 359 images for n_eval = 5000; lower it"),
        ({"task": "ioi"}, "task ioi is text and this model reads arrays of 8×8"),
        ({"model": "tiny-random", "task": "ioi"}, "model 'tiny-random' is no MLP or CNN"),
        ({"colour": 1}, "colour: no such key; allowed: blocks, chains"),
    ],
)
def test_what_cannot_be_studied_is_one_line(change, message, model):
    given = {"model": model, "task": "digits", "site": "conv0", "n_build": 60, "n_eval": 20}
    with pytest.raises(ConfigError, match=message):
        regions(**{**given, "judged": False, "chains": 1, "draws": 1, **change})


def test_the_command(model, tmp_path, monkeypatch, capsys):
    options = ["--n-build", "80", "--n-eval", "40", "--partition", "sbm,random", "--draws", "2"]
    given = ["--model", model, "--task", "digits", "--site", "hidden0", "--no-judge"]
    out = ["--out", str(tmp_path / "found")]
    monkeypatch.setattr(sys, "argv", ["edgesweep", "regions", *given, *options, *out])
    main()
    said = capsys.readouterr().out
    assert "24 units of hidden0, over 80 inputs" in said
    assert " without the strongest 11%" in said
    names = {"units", "curves", "classes", "areas", "attributions"}
    assert {p.name for p in (tmp_path / "found").iterdir()} == {
        *(f"{name}.parquet" for name in names),
        "facts.json",
        "report.html",
    }
    page = (tmp_path / "found" / "report.html").read_text()
    assert page.count("Plotly.newPlot(") == 5
    assert "random (" in page
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "found is there already; name a new folder" in capsys.readouterr().err
