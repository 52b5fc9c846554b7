"""Regions of a small network: attributions, and ablations by hand."""

import numpy as np
import pytest
import torch

from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.regions.ablation import (
    HeldOut,
    Regions,
    ablations,
    answers_of,
    area,
    class_labels,
    run_without,
)
from edgesweep.engine.regions.baselines import CLUSTERINGS, clustered, shuffled
from edgesweep.engine.regions.correlation import RegionError
from edgesweep.engine.regions.seen import seen
from edgesweep.engine.regions.site import UnitSite, patch_values
from edgesweep.engine.training import NetworkTraining
from edgesweep.sweeps.command.train_model import ModelRequest, train_model
from edgesweep.sweeps.progress import Silence
from edgesweep.tasks import ArrayExample, build_task
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


def test_what_a_region_sees_makes_its_attribution(network, examples):
    """Against finite differences of the weighted sum; between kinks a ReLU network is linear."""
    site = UnitSite.of(network, "conv0")
    values, patch, of, _ = attributed(site, examples)
    weights = site.slopes(values, patch, torch.as_tensor(of), [(0.5, 1.0)])
    weights[:, ::2] = 0
    found = seen(site, examples, weights)
    assert found.shape == (40, 8, 8)
    for place in (11, 27, 36):
        moved = [_with(example, place, 1e-3) for example in examples]
        change = ((site.values(moved) - values) * weights).sum(1) / 1e-3
        pixels = torch.tensor([example.clean[place] for example in examples])
        expected = (change * pixels).numpy()
        assert found[:, place // 8, place % 8].numpy() == pytest.approx(expected, abs=5e-3)


def _with(example, place, more):
    numbers = list(example.clean)
    numbers[place] += more
    sides = tuple(numbers), example.patch
    return ArrayExample(*sides, example.good, example.bad, "digits", "image", (8, 8))


@pytest.fixture
def by_hand():
    """Three regions of seven units, the fifth of them dead, and a stand-in for the network: an
    input is right as long as units 0 and 3 have their value."""

    class Site:
        def without(self, values, patch, out):
            return torch.where(torch.as_tensor(out), patch, values)

        def outputs(self, values):
            right = ((values[:, 0] > 0) & (values[:, 3] > 0)).double()
            return torch.stack([1 - right, right], 1)

    regions = Regions.among(7, np.array([0, 1, 2, 3, 5, 6]), np.array([0, 0, 1, 1, 2, 2]))
    values = torch.ones(2, 7)
    scores = np.array([[3.0, 1, 0, 0, 9, 1, 1], [0, 0, 0, 0, 9, 4, 2]])
    example = ArrayExample((0.0,), (1.0,), (1,), (0,), "t", "image", (1,))
    tested = HeldOut(Site(), values, 0 * values, scores, answers_of([example] * 2))
    return regions, tested, scores


def test_curves_by_hand(by_hand):
    regions, tested, scores = by_hand
    assert regions.scores(scores).tolist() == [[2, 0, 1], [0, 0, 3]]
    assert regions.scores(scores, "sum").tolist() == [[4, 0, 2], [0, 0, 6]]
    plan = ablations([0, 0.34, 0.5, 0.7, 1], 2)
    labels = np.array([0, 0, 1])
    ran = list(run_without(regions, labels, tested, plan, ["accuracy", "logit_diff"]))
    found = {side: [] for side in ("ablate", "keep", "without", "only")}
    for ablation, (values, units) in zip(plan, ran, strict=True):
        assert (values[:, 1] == 2 * values[:, 0] - 1).all()
        found[ablation.side].append((ablation.n_regions(3) if ablation.of < 0 else -1,
                                     units.mean(), values[:, 0].mean()))  # fmt: skip
    # the strongest regions: 0 then 2 of the first input, 2 then 0 of the second
    expected = [(0, 0, 1.0), (1, 1 / 3, 0.5), (1, 1 / 3, 0.5), (2, 2 / 3, 0.0), (3, 1, 0.0)]
    assert np.array(found["ablate"]) == pytest.approx(np.array(expected))
    assert found["keep"][0] == (0, 1, 0.0)
    assert found["keep"][-1] == (3, 0, 1.0)
    assert [value for *_, value in found["without"]] == [0.0, 1.0]
    assert [value for *_, value in found["only"]] == [1.0, 0.0]
    _, units, accuracy = np.array(found["ablate"]).T
    assert area(units, accuracy) == pytest.approx(0.25 + 1 / 12)
    assert area(units[::-1], accuracy[::-1]) == pytest.approx(0.25 + 1 / 12)


def test_labels_by_hand(by_hand):
    """A class without inputs has no region."""
    regions, _, scores = by_hand
    means = regions.scores(scores)
    assert class_labels(means).tolist() == [0, 0, 1]
    lacking = np.vstack([means, np.full(3, np.nan)])
    assert class_labels(lacking).tolist() == [0, 0, 1]


def test_clusterings_have_as_many_blocks_as_are_asked_for():
    z, blocks = planted(40, 4, 1.0, 0)
    scores = np.random.default_rng(0).normal(size=(30, 40))
    for name in CLUSTERINGS:
        for n in (1, 4, 40):
            assert len(set(clustered(name, z, scores, n, 0).tolist())) == n, name
    assert sorted(shuffled(blocks, 3).tolist()) == sorted(blocks.tolist())
    with pytest.raises(RegionError, match="41 blocks of 40 live units"):
        clustered("ward", z, scores, 41, 0)
