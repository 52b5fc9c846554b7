"""`FeedForward` against the plain forward of its weights, and plain autograd; the pull-back of any
network against the transformer's own."""

import pytest
import torch

from edgesweep.engine.dictionaries import Identity
from edgesweep.engine.features import FeatureModel
from edgesweep.engine.model import ModelError, load_model, resolve_model
from edgesweep.engine.network.base import SectionSlopes, SiteError
from edgesweep.engine.network.feedforward_net import FeedForwardConfig, FeedForwardNet
from tests.network.made import KINDS, batch, network
from tests.oracles.slow_feedforward import SlowNet
from tests.tiny import model_and_batch

every_kind = pytest.mark.parametrize("kind", KINDS)


def slow(net, chosen):
    return SlowNet(net.hf.config, net.hf.state_dict(), chosen)


@every_kind
@torch.no_grad()
def test_runs_and_sections_are_the_plain_forward(kind):
    net, given = network(kind), batch()
    inputs = net.prepare(given.clean, given.real)
    run = net.run(inputs)
    for chosen in (net.sites.names, net.sites.names[:2], net.sites.names[:1]):
        features = FeatureModel(
            net, {s: Identity(net.sites.width(s)).to(None, net.dtype) for s in chosen}
        )
        values = features.site_values(run)
        assert list(values) == list(chosen)
        for i, x in enumerate(given.clean):
            expected = slow(net, chosen).values(x.flatten())
            for target in (*chosen[1:], "logits"):
                found = features.segment(target, values, inputs)[i].flatten()
                assert torch.allclose(found, expected[target], rtol=1e-12, atol=1e-12)
            assert torch.allclose(run.logits[i], expected["logits"], rtol=1e-12, atol=1e-12)


@every_kind
@pytest.mark.parametrize("rows", [1, 100])
def test_pulling_back_is_autograd(kind, rows):
    net, given = network(kind), batch()
    inputs, chosen = net.prepare(given.clean, given.real), net.sites.chosen(net.sites.names[-1:])
    for target in (net.sites.names[-1], "logits"):
        (parent,) = net.sites.parents(chosen, target)
        x = torch.randn(2, 1, net.sites.width(parent.name), dtype=net.dtype)
        slopes = net.pull_back(chosen, target, {parent.name: x}, inputs, 0)
        g = torch.randn(5, 2, slopes.x.shape[-1], dtype=net.dtype)
        pulled = slopes.pull(g, torch.zeros(5, dtype=torch.long), rows)[parent.name]
        leaf = x.clone().requires_grad_()
        out = net.section(chosen, target, {parent.name: leaf}, inputs)
        assert torch.equal(out.detach(), slopes.x)
        for i in range(len(g)):
            expected = torch.autograd.grad((out[:, 0] * g[i]).sum(), leaf, retain_graph=True)[0]
            assert torch.allclose(pulled.before[i] + pulled.at[i], expected.sum(0), atol=1e-12)


@pytest.mark.parametrize("target", ["mlp1", "attn2", "logits"])
def test_any_networks_pull_back_is_the_transformers_own(target):
    model, given = model_and_batch("gpt2", dtype=torch.float64)
    sites = {s: Identity(model.d_model).to(None, model.dtype) for s in ("resid0", "mlp1", "attn2")}
    features, inputs = FeatureModel(model, sites), model.prepare(given.clean, given.real)
    values = {p.name: torch.randn(2, 7, model.d_model).double() for p in features.parents(target)}
    which, position = torch.tensor([0, 0]), torch.tensor([1, 4, 4])
    g = torch.randn(3, 2, model.d_model).double()
    own = features.pull_back(target, values, inputs, 0).pull(g, position, 100)

    def section(given):
        return model.section(features.sites, target, given, inputs, which)

    found = SectionSlopes(section, values).pull(g, position, 4)
    for name, pulled in own.items():
        table = torch.zeros_like(found[name].before)
        table[torch.arange(3), position] = pulled.at
        table += 0 if pulled.before is None else pulled.before
        assert torch.allclose(found[name].before, table, atol=1e-10), name


def test_names_of_sites():
    sites = network("cnn").sites
    assert sites.names == ("input", "conv0", "hidden0")
    assert [sites.width(s) for s in sites.names] == [16, 8, 5]
    assert sites.named("hidden*") == ["hidden0"]
    with pytest.raises(SiteError, match="'resid0' is no site; sites are input, conv0, hidden0"):
        sites.chosen(["resid0"])


@every_kind
def test_a_folder_gives_the_same_network(kind, tmp_path):
    net, given = network(kind, torch.float32), batch()
    net.hf.save_pretrained(tmp_path)
    source = resolve_model(str(tmp_path))
    loaded = load_model(source)
    assert source.shape == (4, 4)
    assert source.tokenizer() is None
    assert source.sites.names == net.sites.names
    assert source.sizes.n_params == sum(p.numel() for p in net.hf.parameters())
    inputs = net.prepare(given.clean, given.real)
    assert torch.equal(loaded.run(inputs).logits, net.run(inputs).logits)
    with pytest.raises(ModelError, match="has no attention heads; use nodes 'features'"):
        _ = source.spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "tanh"}, "activation is 'tanh'; allowed: relu, gelu, linear"),
        ({"hidden": [0]}, "a size is below 1"),
        ({"channels": [2, 2, 2]}, "a convolution of 2 channels leaves nothing of 1×1"),
        ({"channels": [2], "input_shape": [4]}, "input_shape is .4.; convolutions read images"),
        ({"hidden": [7]}, "hidden.0.map.bias is .*6.*, not .*7"),
        ({"hidden": [6, 5, 5]}, "its files lack hidden.2.map.bias, hidden.2.map.weight"),
    ],
)
def test_folders_that_are_no_network_are_refused(change, message, tmp_path):
    network("mlp", torch.float32).hf.save_pretrained(tmp_path)
    config = FeedForwardConfig.from_pretrained(tmp_path).to_dict() | change
    FeedForwardConfig(**config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=message) as caught:
        resolve_model(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_network_without_hidden_layers_is_linear():
    net = FeedForwardNet(FeedForwardConfig(input_shape=(4,), hidden=(), n_output=2))
    x = torch.randn(3, 4)
    assert torch.equal(net(x), net.output(x))
