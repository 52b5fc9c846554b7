"""Bases as dictionaries, by what defines them: the Jacobian of each text by itself, over the whole
vocabulary, from the sections that features are made of."""

import pytest
import torch

from edgesweep.engine.bases.rotation import Cut
from edgesweep.engine.dictionaries.base import NoDictionary
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.network.base import LOGITS
from edgesweep.engine.training import BasisTraining, Training, interaction_directions, train
from tests.tiny import prompts

WIDTH = 12
TEXTS = [p.clean for p in prompts(14)]
SOME = TEXTS[:3]
CUT = Cut(1e-9, 1e-12)


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama", dtype=torch.float64, n_layers=2, width=WIDTH)


def value_and_jacobian(model, site, end, text):
    """A site's value `[positions, d]`, and by it that of the end `[(positions,) numbers, positions,
    d]`."""
    whole = NoDictionary(WIDTH).to(dtype=torch.float64)
    features = FeatureModel(model, dict.fromkeys({site, end} - {LOGITS}, whole))
    inputs = model.prepare(torch.tensor([text]), torch.ones(1, len(text), dtype=torch.bool))
    value = features.site_values(model.run(inputs))[site].detach()

    def of_end(x):
        return features.segment(end, {site: x}, inputs)[0]

    return value[0], torch.autograd.functional.jacobian(of_end, value)[..., 0, :, :]


def second_moment(model, site, end, texts, encode=None):
    """M′ (LIB equation 19), of all directions and positions of the end."""
    found, n = torch.zeros(WIDTH, WIDTH, dtype=torch.float64), 0
    for text in texts:
        value, jacobian = value_and_jacobian(model, site, end, text)
        if encode is not None:
            jacobian = torch.einsum("satd,ak->sktd", jacobian, encode)
        rows = jacobian.reshape(-1, WIDTH)
        found, n = found + rows.T @ rows, n + len(value)
    return found / n


def values(model, site, texts=TEXTS):
    return torch.cat([value_and_jacobian(model, site, LOGITS, text)[0] for text in texts])


@pytest.mark.parametrize("site", ["embed", "resid0"])
def test_to_the_logits_features_have_the_variances_of_their_importance(model, site):
    """Cov(f) = diag(Λ), and the second moment of ∂F̂/∂f is the identity: the two invariants that
    define the basis."""
    wanted = BasisTraining(site, LOGITS, WIDTH, sources=0, cut=CUT)
    found = interaction_directions(model, TEXTS, SOME, wanted, micro_batch=4)
    f = found.encode(values(model, site))
    assert f.mean(0).abs().max() < 1e-9 * f.abs().max()
    covariance = f.T @ f / len(f)
    importance = covariance.diagonal()
    assert (importance.diff() < 0).all()
    assert (covariance - importance.diag()).abs().max() < 1e-9 * importance[0]
    m = second_moment(model, site, LOGITS, SOME)
    torch.testing.assert_close(
        found.decoder @ m @ found.decoder.T, torch.eye(WIDTH).double(), rtol=1e-7, atol=1e-7
    )


def test_to_another_site_those_directions_count_that_it_keeps(model):
    end = interaction_directions(
        model, TEXTS, SOME, BasisTraining("resid0", LOGITS, 5, sources=0, cut=CUT)
    )
    assert (end.n_features, end.d_model) == (5, WIDTH)
    wanted = BasisTraining("embed", "resid0", 4, sources=0, cut=CUT)
    found = interaction_directions(model, TEXTS, SOME, wanted, end, micro_batch=5)
    m = second_moment(model, "embed", "resid0", SOME, end.encoder.T)
    torch.testing.assert_close(
        found.decoder @ m @ found.decoder.T, torch.eye(4).double(), rtol=1e-7, atol=1e-7
    )
    f = found.encode(values(model, "embed"))
    covariance = f.T @ f / len(f)
    assert (covariance - covariance.diagonal().diag()).abs().max() < 1e-9 * covariance[0, 0]


def test_signs_stand_for_positions(model):
    """One sign for each, many times over, is each by itself."""
    end = train(values(model, "resid0"), Training("pca", features=3))
    exact, *sampled = (
        interaction_directions(
            model, TEXTS, SOME, BasisTraining("embed", "resid0", 3, n, CUT, seed=1), end
        )
        for n in (0, 1, 400)
    )
    lengths = [found.encode(values(model, "embed")).square().sum() for found in (exact, *sampled)]
    assert lengths[1] != lengths[0]
    assert abs(lengths[2] / lengths[0] - 1) < 0.05


def test_where_fewer_are_kept_the_rest_are_zero(model):
    few = TEXTS[:1]  # seven positions: six directions beside the mean
    found = interaction_directions(model, few, few, BasisTraining("embed", LOGITS, WIDTH, cut=CUT))
    assert found.n_features == WIDTH
    on = found.encode(values(model, "embed")).abs().amax(0) > 0
    assert on.tolist() == [True] * int(on.sum()) + [False] * (WIDTH - int(on.sum()))
    assert int(on.sum()) == 6
    assert not found.decoder[~on].any()


def test_of_principal_axes_the_first_are_kept(model):
    x = values(model, "resid0")
    whole, some = (train(x, Training("pca", features=n)) for n in (1024, 4))
    assert (whole.n_features, some.n_features) == (WIDTH, 4)
    assert torch.equal(whole.encoder[:4], some.encoder)
    variances = whole.encode(x).var(0)
    assert (variances.diff() < 0).all()
