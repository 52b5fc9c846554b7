"""Cotangents pulled back through attention and segments, against plain autograd."""

import pytest
import torch

from edgesweep.engine.dictionaries.base import Identity
from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.model.tiny import tiny_model
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.attention import AttentionSlopes
from edgesweep.engine.network.pullback import AtPositions
from tests.features.made import CHAIN, MIXED, WITHIN
from tests.tiny import FAMILIES, model_and_batch, prompts

APART = ("attn0", "resid1", "mlp2")
LAST = ("resid0",)
STEPS, WHICH = 2, 1
#: these compute the sums of their norms in float32, whatever the model's precision
FLOAT64 = ("gpt2", "gpt_neox", "plain")


def tolerance(family):
    return 1e-9 if family in FLOAT64 else 2e-5


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def linearised(model, batch, index, scale=1.0):
    """One layer's attention at random streams: differentiable, and its slopes."""
    inputs, layer = model.prepare(batch.clean, batch.real), model.layers[index]
    stream = (scale * normal(STEPS, batch.clean.shape[1], model.d_model)).requires_grad_()

    def context(rows):
        return inputs.context(index, torch.full((rows,), WHICH))

    real = batch.real[WHICH].nonzero().flatten().tolist()
    z = layer.attend(*layer.project(stream), context(STEPS))
    return stream, z, AttentionSlopes(layer, stream.detach(), context, real), real


def check_attention(model, batch, index, rtol, scale=1.0):
    stream, z, slopes, real = linearised(model, batch, index, scale)
    assert (slopes.z - z.detach())[:, real].abs().max() <= rtol
    dz = torch.zeros(3, *z.shape, dtype=z.dtype)
    dz[:, :, real] = normal(3, *z[:, real].shape)
    n = z.shape[1]
    cases = [slice(0, n), *(slice(p, p + 1) for p in real)]
    for queries in cases:
        some = torch.zeros_like(dz)
        some[:, :, queries] = dz[:, :, queries]
        expected = torch.stack(
            [torch.autograd.grad(z, stream, g, retain_graph=True)[0] for g in some]
        )
        most = expected.abs().max()
        found = slopes.pull(dz[:, :, queries], queries, slice(0, n), summed=False)
        assert (found - expected).abs().max() <= rtol * most
        found = slopes.pull(dz[:, :, queries], queries, slice(0, n), summed=True)
        assert (found - expected.sum(1)).abs().max() <= rtol * most
        if slopes.causal:
            keys = slice(queries.start // 2, queries.stop)
            found = slopes.pull(dz[:, :, queries], queries, keys, summed=False)
            assert (found - expected[:, :, keys]).abs().max() <= rtol * most


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_autograds(family, index):
    model, batch = model_and_batch(family, dtype=torch.float64)
    check_attention(model, batch, index, tolerance(family))


@pytest.mark.parametrize("family", ["gpt2", "llama", "plain"])
def test_attention_of_padding_on_the_left(family):
    model, batch = model_and_batch(family, dtype=torch.float64, side="left")
    check_attention(model, batch, 1, tolerance(family))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3_text"])
def test_more_positions_than_a_head_is_wide(family):
    model = tiny_model(family, dtype=torch.float64)
    check_attention(model, PromptBatch.make(prompts(2, (19, 17))), 0, tolerance(family))


def test_attention_that_sees_ahead():
    model, batch = model_and_batch("plain", dtype=torch.float64, causal=False)
    assert not linearised(model, batch, 0)[2].causal
    check_attention(model, batch, 0, 1e-9)


def test_attention_that_has_made_up_its_mind():
    """Weights within rounding of 0 and 1; `plain` has no norm that would undo the scale."""
    model, batch = model_and_batch("plain", dtype=torch.float64)
    *_, slopes, real = linearised(model, batch, 0, 60.0)
    assert slopes._pattern[:, :, real].max(-1).values.median() > 1 - 1e-12
    check_attention(model, batch, 0, 1e-9, 60.0)


def test_only_points_with_a_cotangent_are_pulled_back():
    position = torch.tensor([0, 0, 0, 0, 0, 2, 2, 3])
    g, x = normal(len(position), STEPS, 5), normal(STEPS, 4, 5)
    g[1], g[4, 0], g[7] = 0, 0, 0
    points = []

    def fn(x):
        points.append(len(x))
        return x.sin() * x.sum(-1, keepdim=True)

    found = AtPositions(position, g, 4).vjp(fn, x, g)
    assert points[0] < g[..., 0].numel()
    for i, p in enumerate(position.tolist()):
        for step in range(STEPS):
            at = x[step, p].clone().requires_grad_()
            expected = torch.autograd.grad(fn(at), at, g[i, step])[0]
            assert torch.allclose(found[i, step], expected, atol=1e-12)


def full(pulled, position, n):
    """`at` and `before` as one table."""
    out = torch.zeros(len(position), n, pulled.at.shape[-1], dtype=pulled.at.dtype)
    if pulled.before is not None:
        out += pulled.before
    out[torch.arange(len(position)), position] += pulled.at
    return out


@pytest.mark.parametrize(("rows", "few"), [(1, 4), (1000, 4), (1000, 0)])
@pytest.mark.parametrize("sites", [CHAIN, MIXED, WITHIN, APART, LAST], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_segments_are_autograds(family, sites, rows, few, monkeypatch):
    monkeypatch.setattr("edgesweep.engine.network.pullback.slopes.FEW", few)
    model, batch = model_and_batch(family, dtype=torch.float64)
    width = model.sites.width
    whole = {site: Identity(width(site)).to(dtype=torch.float64) for site in sites}
    features = FeatureModel(model, whole)
    inputs, n = model.prepare(batch.clean, batch.real), batch.clean.shape[1]
    position = torch.tensor([0, 0, 1, 3, 3, 3, 4])
    which = torch.full((STEPS,), WHICH)
    for target in [site.name for site in features.sites[1:]]:
        leaves = {
            p.name: normal(STEPS, n, width(p.name)).mul_(i + 1).requires_grad_()
            for i, p in enumerate(features.parents(target))
        }
        x = features.segment(target, leaves, inputs, which)
        values = {name: leaf.detach() for name, leaf in leaves.items()}
        slopes = features.pull_back(target, values, inputs, WHICH)
        real = batch.real[WHICH]
        assert (slopes.x - x.detach())[:, real].abs().max() <= tolerance(family) * x.abs().max()
        g = normal(len(position), STEPS, width(target))
        g[2] = 0
        found = slopes.pull(g, position, rows)
        assert found.keys() == leaves.keys()
        tables = {name: full(pulled, position, n) for name, pulled in found.items()}
        for i, p in enumerate(position.tolist()):
            scalar = (x[:, p] * g[i]).sum()
            expected = torch.autograd.grad(
                scalar, list(leaves.values()), retain_graph=True, materialize_grads=True
            )
            most = max(float(e.abs().max()) for e in expected) or 1.0
            for name, gradient in zip(leaves, expected, strict=True):
                error = (tables[name][i] - gradient.sum(0)).abs().max()
                assert error <= tolerance(family) * most, (target, name, i)


def test_what_has_not_moved_is_left_out():
    model, batch = model_and_batch("gpt2", dtype=torch.float64)
    whole = Identity(model.d_model).to(dtype=torch.float64)
    features = FeatureModel(model, {"resid1": whole})
    inputs, n = model.prepare(batch.clean, batch.real), batch.clean.shape[1]
    values = {"embed": normal(STEPS, n, model.d_model)}
    position, g = torch.tensor([2, 3, 3]), normal(3, STEPS, model.d_model)
    whole, late = (
        features.pull_back("resid1", values, inputs, WHICH, first).pull(g, position, 100)
        for first in (0, 2)
    )
    tables = [full(pulled["embed"], position, n) for pulled in (whole, late)]
    assert torch.allclose(tables[0][:, 2:], tables[1][:, 2:], atol=1e-12)
    assert not tables[1][:, :2].any()
