"""Training dictionaries: planted features are found, and every figure of the report is checked."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgesweep.engine.dictionaries import (
    Dictionary,
    DictionaryError,
    Identity,
    Linear,
    Relu,
    TopK,
    load_dictionary,
    save_dictionary,
)
from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.network import Model
from edgesweep.engine.training import (
    Baseline,
    Training,
    activations,
    fit_of,
    spliced_losses,
    train,
)
from edgesweep.engine.training import dictionaries as training
from tests.oracles import slow_splicing

torch.set_num_threads(1)  # what is trained here is small: threads only wait for each other
WIDTH, PLANTED = 24, 32
TEXTS = [(5, 9, 3, 11), (7, 2), (1, 4, 8, 60, 33, 12), (20,), (41, 3, 3, 17, 2), (8, 9)]
SITES = ("embed", "attn0", "mlp1", "resid0", "attn2", "resid2")


def planted(n: int = 4000, on: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of few of many directions at random strengths, off centre; and the directions."""
    draw = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(PLANTED, WIDTH, generator=draw))
    which = torch.rand(n, PLANTED, generator=draw).topk(on).indices
    strength = torch.zeros(n, PLANTED)
    strength.scatter_(1, which, 1.0 + torch.rand(n, on, generator=draw))
    noise = 0.01 * torch.randn(n, WIDTH, generator=draw)
    return strength @ directions + noise + 0.2, directions


HOW = {
    "topk": Training("topk", 2 * PLANTED, k=3, steps=1200, batch=256, lr=3e-3),
    "relu": Training("relu", 2 * PLANTED, l1=0.02, steps=4000, batch=256, lr=1e-2),
}
ON = {"topk": 3, "relu": 2}
SHORT = {kind: replace(how, steps=60) for kind, how in HOW.items()}


def share_found(dictionary: Dictionary, directions: torch.Tensor) -> float:
    """Of the planted directions, those that a feature points along."""
    cosines = torch.nn.functional.normalize(dictionary.decoder) @ directions.T
    return float((cosines.amax(0) > 0.95).float().mean())


# --- what is learnt -----------------------------------------------------------------------------
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.proof)])
@pytest.mark.parametrize("kind", HOW)
def test_planted_features_are_found(kind, seed):
    x, directions = planted(on=ON[kind], seed=seed)
    how = replace(HOW[kind], seed=seed)
    found = train(x[:3500], how)
    assert share_found(train(x, replace(how, steps=1)), directions) < 0.3
    assert share_found(found, directions) >= 0.85
    fit = fit_of(found, x[3500:], Baseline.of(x[:3500]))
    assert fit.variance_explained > 0.9
    assert fit.l0 < 3 * ON[kind]
    norms = found.decoder.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-5)
    assert not any(t.requires_grad for t in found.tensors().values())


def test_a_few_positions_of_another_size_do_no_harm():
    """As a model's first token: a hundred times as long as the others."""
    x, directions = planted()
    x[::100] = 300 * directions[0] + x[::100]
    found = train(x, HOW["topk"])
    assert share_found(found, directions) >= 0.85
    fit = fit_of(found, x, Baseline.of(x))
    assert fit.variance_explained > 0.9
    assert (fit.positions, fit.sinks) == (3960, 40)


@pytest.mark.parametrize("kind", SHORT)
def test_units_do_not_matter(kind):
    x, _ = planted()
    found, larger = train(x, SHORT[kind]), train(64 * x, SHORT[kind])
    torch.testing.assert_close(larger.decoder, found.decoder, rtol=0, atol=1e-4)
    torch.testing.assert_close(larger.encode(64 * x), 64 * found.encode(x), rtol=0, atol=0.01)


@pytest.mark.parametrize("kind", HOW)
@pytest.mark.proof
def test_dead_features_are_given_new_directions(kind, monkeypatch):
    """All features but four start where no value can turn them on."""
    x, directions = planted(on=ON[kind])

    class Dead(training._Trainer):
        def __init__(self, *given) -> None:
            super().__init__(*given)
            with torch.no_grad():
                self.shift[4:] = -100.0

    monkeypatch.setattr(training, "_Trainer", Dead)
    found = train(x, HOW[kind])
    assert fit_of(found, x, Baseline.of(x)).dead_share < 0.3
    assert share_found(found, directions) >= 0.85
    monkeypatch.setattr(Dead, "_resample", lambda *_: None)
    left = train(x, replace(HOW[kind], steps=HOW[kind].steps // 8))  # they are no deader later
    assert fit_of(left, x, Baseline.of(x)).dead_share > 0.9


@pytest.mark.parametrize("kind", SHORT)
def test_resampling_leaves_living_features_alone(kind):
    x, _ = planted()
    trainer = training._Trainer(x, SHORT[kind])
    trainer.step(1)
    trainer._on[:] = True
    trainer._on[[3, 5]] = False
    before = [p.detach().clone() for p in trainer._parameters]
    with torch.no_grad():
        trainer._resample(x[:50], x[:50].square().mean(1))
    dead = torch.zeros(2 * PLANTED, dtype=torch.bool)
    dead[[3, 5]] = True
    for old, parameter in zip(before, trainer._parameters, strict=True):
        assert torch.equal(old[~dead], parameter[~dead])
        state = trainer._adam.state[parameter]
        assert not state["exp_avg"][dead].any()
        assert not state["exp_avg_sq"][dead].any()
    assert not torch.equal(before[0][dead], trainer.encoder[dead])
    torch.testing.assert_close(trainer.decoder[dead].norm(dim=1), torch.ones(2))
    assert not trainer._on.any()


@pytest.mark.parametrize("kind", [*SHORT, "pca"])
def test_a_seed_decides_everything(kind):
    x, _ = planted()
    how = SHORT.get(kind, Training(kind))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = train(x, how).digest
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert train(x, how).digest == first
    other = train(x, replace(how, seed=1)).digest
    assert (other == first) is (kind == "pca")


def test_progress_is_told():
    told: list[tuple[int, float]] = []
    x, _ = planted()
    train(x, replace(HOW["topk"], steps=200), lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == [*range(1, 200, 10), 200]
    assert told[-1][1] < 0.5 * told[0][1]


# --- principal axes -----------------------------------------------------------------------------
def test_principal_axes_are_those_of_the_covariance():
    x, _ = planted(500)
    found = train(x, Training("pca"))
    assert isinstance(found, Linear)
    _, _, axes = np.linalg.svd((x - x.mean(0)).double().numpy(), full_matrices=False)
    cosines = np.abs((found.decoder.double().numpy() * axes).sum(1))
    np.testing.assert_allclose(cosines, 1.0, atol=1e-5)  # in order, up to sign
    torch.testing.assert_close(found.bias, x.mean(0), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.decoder @ found.decoder.T, torch.eye(WIDTH), rtol=0, atol=1e-5)
    assert found.error(x).abs().max() < 1e-4
    variances = found.encode(x).var(0)
    assert (variances[:-1] >= variances[1:] - 1e-5).all()


# --- what is refused ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "n", "message"),
    [
        (Training("sparse"), 100, "kind 'sparse' cannot be trained; allowed: topk, relu, pca"),
        (Training("topk", 8, k=9), 100, "k is 9 of 8 features; allowed: 1 to all"),
        (Training("topk", 8, k=0), 100, "k is 0 of 8 features; allowed: 1 to all"),
        (Training("relu"), 1, "1 positions are too few to train on"),
        (Training("pca"), 10, "10 positions have no 24 principal axes; give more prompts"),
    ],
)
def test_what_cannot_be_trained(how, n, message):
    with pytest.raises(DictionaryError, match=message):
        train(planted(n)[0], how)


def test_activations_that_do_not_vary():
    with pytest.raises(DictionaryError, match="the activations do not vary"):
        train(torch.ones(50, WIDTH), Training("topk", 8, k=2))


# --- the figures of the report ------------------------------------------------------------------
def test_fit_by_hand():
    """Two coordinates of which the dictionary has one; one feature of three is never on; the median
    is (1, 0) and the norms' 2, so that a position of norm 41 is a sink and one of 40 is none."""
    basis = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    encoder = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    dictionary = Relu(encoder, torch.zeros(3), basis, torch.zeros(2))
    trained_on = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 2.0], [1.0, -5.0], [1.0, 0.0]])
    baseline = Baseline.of(trained_on)
    assert (baseline.median.tolist(), baseline.limit) == ([1.0, 0.0], 40.0)
    x = torch.tensor([[3.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0], [41.0, 0.0], [0.0, 40.0]])
    for batch in (1, 3, 100):
        fit = fit_of(dictionary, x, baseline, batch)
        total = 2.0**2 + 2.0**2 + 2 * (1.0 + 2.0**2) + (1.0 + 40.0**2)
        assert fit.variance_explained == pytest.approx(1 - (8 + 40.0**2) / total, abs=1e-6)
        assert fit.l0 == pytest.approx(2 / 5)
        assert fit.dead_share == pytest.approx(1 / 3, abs=1e-6)
        assert (fit.positions, fit.sinks) == (5, 1)


def constant(value: torch.Tensor) -> Dictionary:
    """No feature is ever on, and its bias stands for everything."""
    eye = torch.eye(len(value))
    return Relu(eye, torch.full((len(value),), -1e6), eye, value)


def test_the_median_explains_and_recovers_nothing():
    """Beside a mean, which sinks drag away, it would seem to explain nearly all."""
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0)) + 3
    x[::40] = 1000.0
    baseline = Baseline.of(x)
    fit = fit_of(constant(baseline.median), x, baseline)
    assert fit.variance_explained == pytest.approx(0.0, abs=1e-6)
    assert (fit.positions, fit.sinks) == (390, 10)
    about_mean = (x[1:40] - x.mean(0)).square().sum()
    assert 1 - (x[1:40] - baseline.median).square().sum() / about_mean > 0.99


def test_fit_of_what_does_not_vary_or_is_not_there():
    x = torch.ones(4, 2)
    assert fit_of(Identity(2), x, Baseline.of(x)).variance_explained is None
    nothing = fit_of(Identity(2), 100 * x, Baseline.of(x))
    assert (nothing.variance_explained, nothing.l0, nothing.positions) == (None, None, 0)
    assert fit_of(Identity(2), x, Baseline.of(0 * x)).sinks == 0  # of no norm there is no multiple


@pytest.mark.parametrize(("tokens", "micro_batch"), [(4096, 1), (4, 4), (4096, 16)])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", slow_splicing.PLACES)
def test_activations_are_the_sites_values(family, site, micro_batch, tokens, monkeypatch):
    monkeypatch.setattr(training, "TOKENS", tokens)
    model = tiny_model(family)
    found = activations(model, site, TEXTS, micro_batch)
    in_order = sorted(TEXTS, key=len)
    expected = torch.cat([slow_splicing.site_value(model.hf, site, text) for text in in_order])
    assert found.shape == (sum(map(len, TEXTS)), model.d_model)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", slow_splicing.PLACES)
def test_losses_are_those_of_hooks(family, site):
    model = tiny_model(family)
    x = activations(model, site, TEXTS)
    dictionary = train(x, Training("topk", 16, k=2, steps=20, batch=8))
    limit = float(x.norm(dim=1).quantile(0.75))  # a quarter of the positions are sinks
    baseline = Baseline(x.median(0).values, limit)
    ours = spliced_losses(model, site, dictionary, TEXTS, baseline, micro_batch=4)

    def but_for_sinks(value, other):
        long = (value.norm(dim=-1) > limit)[..., None]
        return torch.where(long, value, other)

    changes = {
        "loss_clean": lambda value: value,
        "loss_spliced": lambda v: but_for_sinks(v, dictionary.decode(dictionary.encode(v))),
        "loss_median": lambda v: but_for_sinks(v, x.median(0).values),
    }
    slow = {n: slow_splicing.loss(model.hf, site, TEXTS, c) for n, c in changes.items()}
    for name, expected in slow.items():
        assert ours[name] == pytest.approx(expected, rel=1e-4), name
    lost = slow["loss_median"] - slow["loss_clean"]
    if lost <= 0:  # a random model can be better off without its site
        assert ours["loss_recovered"] is None
    else:
        kept = (slow["loss_median"] - slow["loss_spliced"]) / lost
        assert ours["loss_recovered"] == pytest.approx(kept, rel=1e-2, abs=1e-3)


def foretold(model: Model, n: int, length: int = 8) -> list[tuple[int, ...]]:
    """Texts whose tokens are those that the model expects, so that it has a loss to lose."""
    tokens = torch.arange(1, n + 1)[:, None] % 63 + 1
    tokens = torch.cat([tokens, torch.arange(n)[:, None] * 7 % 63 + 1], dim=1)
    while tokens.shape[1] < length:
        logits = model.hf(tokens, use_cache=False).logits[:, -1]
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
    return [tuple(text) for text in tokens.tolist()]


def test_all_or_nothing_recovered():
    model = tiny_model("llama")
    texts = foretold(model, 20)
    baseline = Baseline.of(activations(model, "resid1", texts))
    everything = spliced_losses(model, "resid1", Identity(model.d_model), texts, baseline)
    assert everything["loss_recovered"] == pytest.approx(1.0, abs=1e-6)
    nothing = spliced_losses(model, "resid1", constant(baseline.median), texts, baseline)
    assert nothing["loss_recovered"] == pytest.approx(0.0, abs=1e-6)
    no_next = spliced_losses(model, "resid1", Identity(model.d_model), [(4,)], baseline)
    assert no_next["loss_recovered"] is None
    all_sinks = spliced_losses(
        model, "resid1", Identity(model.d_model), texts, replace(baseline, limit=0.0)
    )
    assert all_sinks["loss_median"] == all_sinks["loss_clean"]


# --- from a model to a file ---------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["topk", "relu", "pca"])
@pytest.mark.parametrize("site", ["embed", "resid1", "mlp2"])
def test_a_tiny_model_end_to_end(kind, site, tmp_path):
    model = tiny_model("llama")
    texts = foretold(model, 200)
    x = activations(model, site, texts[:160])
    how = Training(kind, 96, k=8, l1=0.005, steps=400, batch=128, lr=3e-3)
    found = train(x, how)
    held = activations(model, site, texts[160:])
    baseline = Baseline.of(x)
    dictionaries = found, train(x, replace(how, steps=1))
    fit, fit_untrained = (fit_of(d, held, baseline) for d in dictionaries)
    losses = spliced_losses(model, site, found, texts[160:], baseline)
    assert fit.variance_explained > (0.999 if kind == "pca" else 0.6)
    assert kind == "pca" or fit.variance_explained > fit_untrained.variance_explained + 0.1
    assert kind != "topk" or fit.l0 <= 8
    assert losses["loss_recovered"] > 0.5
    save_dictionary(found, tmp_path / "it.safetensors")
    loaded = load_dictionary(str(tmp_path / "it.safetensors"), d_model=model.d_model)
    assert loaded.digest == found.digest
    assert type(loaded) in (TopK, Relu, Linear)
