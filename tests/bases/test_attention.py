"""The Jacobian of attention in closed form, against vector-Jacobian products through the layer,
which tests/bases/test_bases.py pins to one autograd call for each direction and position."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edgesweep.engine.bases.chain import Chain, Section
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.forms import Outlet
from edgesweep.engine.bases.interactions import interaction_sums
from edgesweep.engine.bases.jacobians import (
    Batch,
    exact_sums,
    folded_tail,
    jacobian_sums,
    one_by_one,
)
from edgesweep.engine.bases.moments import Moments
from edgesweep.engine.methods.quadrature import points
from tests.bases import made

pytestmark = pytest.mark.filterwarnings("ignore:.*vmap.*")


def plain(everywhere: bool) -> tuple[Chain, str, str]:
    return replace(made.transformer(), everywhere=everywhere), "embed", "mid0"


def split(family: str) -> tuple[Chain, str, str]:
    return chain_of(made.language(family), "split", "all"), "embed.normed", "mid0"


SECTIONS = {
    "read": lambda: plain(False),
    "everywhere": lambda: plain(True),
    "gpt2": lambda: split("gpt2"),
    "gpt_neo": lambda: split("gpt_neo"),
    "llama": lambda: split("llama"),
}
sections = pytest.mark.parametrize("name", SECTIONS)
#: GPT-Neo's own scores are in single precision, whatever the dtype
TOLERANCE = dict.fromkeys(SECTIONS, 1e-10) | {"gpt_neo": 1e-6}


def loaded(name, padded=True):
    """(section, batch, bases of its ends); the first inputs are padded."""
    chain, start, end = SECTIONS[name]()
    given = made.tokens(7, 4)
    real = torch.ones_like(given, dtype=torch.bool)
    if padded and chain.everywhere:
        real[:2, :2] = False
    inputs = chain.prepare(given, real)
    section = chain.section(start, end)
    values = [made.value_at(chain, layer, inputs) for layer in (start, end)]
    vectors = [
        v[chain.real(layer, inputs).expand(v.shape[:2])]
        for v, layer in zip(values, (start, end), strict=True)
    ]
    bases = tuple(made.pca(Moments.of(v), made.CUT) for v in vectors)
    return section, Batch.of(section, values[0], inputs), bases


def by_products(section: Section) -> Section:
    """The same without what is known of attention."""
    return replace(section, pieces=tuple(replace(p, attention=None) for p in section.pieces))


def same(mine, theirs, tolerance=1e-10):
    for name, value in theirs.sums.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(mine.sums[name], value, rtol=0, atol=tolerance * scale)


@sections
def test_second_moments_are_those_of_products(name):
    section, batch, (start, end) = loaded(name)
    assert section.attention is not None
    outlet = Outlet.of(end.mean, end.encode)
    theirs = jacobian_sums(section, batch, outlet, start.mean, one_by_one(batch, end.k))
    same(exact_sums(section, batch, outlet, start.mean), theirs, TOLERANCE[name])


@sections
def test_interactions_are_those_of_products(name):
    section, batch, bases = loaded(name)
    for nodes in (made.GRADIENT, points("midpoint", 3)):
        theirs = interaction_sums(by_products(section), batch, bases, nodes)
        same(interaction_sums(section, batch, bases, nodes), theirs, TOLERANCE[name])


@pytest.mark.parametrize("everywhere", [False, True])
def test_with_an_mlp_after_it(everywhere):
    """As where GIB's section goes on to the end, and its last maps are folded."""
    chain, _, _ = plain(everywhere)
    inputs = made.prepared(chain, made.tokens(7, 4))
    last = made.identity(chain.widths["logits"])
    tail = folded_tail(chain.section("embed", "logits"), last)
    assert [piece.end for piece in tail.section.pieces] == ["mid0", "resid0"]
    batch = Batch.of(tail.section, chain.start(inputs), inputs)
    mean = made.moments_at(chain, "embed", inputs).mean
    weights = one_by_one(batch, tail.outlet.encode.shape[1])
    theirs = jacobian_sums(tail.section, batch, tail.outlet, mean, weights)
    same(exact_sums(tail.section, batch, tail.outlet, mean), theirs)


def test_a_head_that_sees_one_key_alone_is_no_trouble():
    """Its largest weight is 1, and no score moves it."""
    section, batch, (start, end) = loaded("everywhere", padded=False)
    layer = section.attention.layer
    with torch.no_grad():
        layer._projections[0].weight.mul_(300.0)
    layer.__dict__.pop("ports", None)
    outlet = Outlet.of(end.mean, end.encode)
    theirs = jacobian_sums(section, batch, outlet, start.mean, one_by_one(batch, end.k))
    same(exact_sums(section, batch, outlet, start.mean), theirs)
