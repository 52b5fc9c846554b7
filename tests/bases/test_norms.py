"""Split norms: the network that they leave, their closed forms against one autograd call for each
direction and position, and the variance that is a direction by itself."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from edgesweep.engine.bases.chain import Section
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.jacobians import is_closed
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.network.base import SiteError
from tests.bases import made
from tests.bases.test_bases import close, one_input
from tests.oracles import slow_interactions as slow

pytestmark = pytest.mark.filterwarnings("ignore:.*vmap.*")

families = pytest.mark.parametrize("family", made.LANGUAGE)


def network(family, positions="all"):
    chain = chain_of(made.language(family), "split", positions)
    return chain, made.prepared(chain, made.tokens(6))


@families
def test_the_pieces_are_the_network(family):
    split, inputs = network(family)
    whole = chain_of(made.language(family), positions="all")
    # Llama's own norms round to single precision on the way
    tolerance = 1e-6 if family == "llama" else 1e-12
    for name in set(whole.widths) & set(split.widths) - {"mid0"}:
        theirs = made.value_at(whole, name, inputs)
        torch.testing.assert_close(
            made.value_at(split, name, inputs), theirs, rtol=tolerance, atol=tolerance
        )


def test_what_the_cuts_are_called_and_hold():
    for family, of_mid in (("gpt2", 1), ("llama", 1), ("gpt_neox", 2)):
        chain, inputs = network(family)
        d = made.language(family).d_model
        widths = {
            "embed": d, "embed.var": 1 + d, "embed.normed": 2 * d,
            "mid0": of_mid * d, "mid0.var": 1 + of_mid * d, "mid0.normed": 2 * d,
            "resid0": d, "resid0.var": 1 + d, "resid0.normed": d, "logits": 9,
        }  # fmt: skip
        assert chain.widths == widths
        assert list(chain.aliases.values()) == [
            "ln1.0", "ln1_out.0", "attn_in.0", "ln2.0", "ln2_out.0", "mlp_in.0",
            "ln_final", "ln_final_out", "unembed", "output",
        ]  # fmt: skip
        values = made.value_at(chain, "embed.var", inputs)
        r = made.value_at(chain, "embed", inputs)
        v = r.square().mean(-1) if family == "llama" else r.var(-1, unbiased=False)
        torch.testing.assert_close(values[..., 0], v)
        closed = [is_closed(chain.section(*pair)) for pair in pairwise(chain.widths)]
        assert closed == [name != "mid0" for name in list(chain.widths)[1:]]


@families
def test_second_moments_are_the_oracles(family):
    chain, inputs = network(family)
    found = made.bases(chain, inputs)
    for start, end in pairwise(chain.widths):
        basis, moments = found[end], made.moments_at(chain, start, inputs)
        total, constant, n = 0.0, 0.0, 0
        for row, x in enumerate(made.value_at(chain, start, inputs)):
            section = one_input(chain, start, end, inputs, row)
            told = slow.jacobian_moment(section, [x], moments.mean, basis.encode, basis.mean)
            total, constant, n = total + told[0], constant + told[1], n + told[2]
        mine = made.second_moments(chain.section(start, end), inputs, basis, moments)
        close(mine.mean("jacobian"), total / n)
        assert float(mine.mean("constant")) == pytest.approx(constant / n, rel=1e-9)


@families
def test_interactions_are_the_oracles(family):
    """With fewer directions kept, so that values along the path are not the network's own."""
    chain, inputs = network(family)
    nodes = points("midpoint", 3)
    found = {k: first_of(b, 4) for k, b in made.bases(chain, inputs).items()}
    for start, end in pairwise(chain.widths):
        if end == "mid0":
            continue
        a, b = found[start], found[end]
        squares = [
            slow.mean_squares(
                one_input(chain, start, end, inputs, row), [x],
                (a.mean, a.encode, a.decode), (b.encode, b.mean), nodes,
            )[0]
            for row, x in enumerate(made.value_at(chain, start, inputs))
        ]  # fmt: skip
        mine = made.interactions(chain, inputs, found, start, nodes)
        close(mine.mean_square, torch.stack(squares).mean(0))


def first_of(basis, k):
    """A basis with its first directions alone."""
    return replace(
        basis,
        encode=basis.encode[:, :k],
        decode=basis.decode[:k],
        importance=basis.importance[:k],
    )


@families
def test_enough_points_make_attributions_complete(family):
    """Norms bend where the path begins, and the more the smaller ε: here it is large."""
    chain, inputs = network(family)
    pieces = [
        replace(p, form=(form := replace(p.form, eps=1.0)), run=lambda f, i, r, form=form: form(f))
        if p.end.endswith(".normed")
        else p
        for p in chain.pieces
    ]
    chain = replace(chain, pieces=tuple(pieces))
    found = made.bases(chain, inputs)
    for start in list(chain.widths)[:-1]:
        told = made.interactions(chain, inputs, found, start, points("gauss_legendre", 64))
        assert float(told.residual) < 1e-6, start


@families
@pytest.mark.parametrize("kind", ["lib", "pca"])
def test_an_isolated_variance_is_a_direction_of_its_own(family, kind):
    chain, inputs = network(family)
    found = made.bases(chain, inputs, kind, isolate=True)
    assert chain.variances == {"embed.var", "mid0.var", "resid0.var"}
    for layer, basis in found.items():
        if layer not in chain.variances:
            assert int(basis.isolated) == -1
            continue
        v = basis.names().index("var")
        assert not basis.encode[0, [j for j in range(basis.k) if j != v]].any()
        assert not basis.encode[1:, v].any()
        assert not basis.decode[v, 1:].any()
        torch.testing.assert_close(basis.decode @ basis.encode, torch.eye(basis.k).double())
        assert (basis.importance.diff() <= 0).all()
        moments = made.moments_at(chain, layer, inputs)
        rest = made.pca(moments.at(torch.arange(1, basis.width)), made.CUT)
        assert basis.k == 1 + rest.k or kind == "lib"
        if kind == "lib":  # its scale is M_vv
            end = list(chain.widths)[list(chain.widths).index(layer) + 1]
            sums = made.second_moments(chain.section(layer, end), inputs, found[end], moments)
            scale = moments.gram[0, 0] * sums.mean("jacobian")[0, 0]
            assert float(basis.importance[v]) == pytest.approx(float(scale), rel=1e-9)


def test_a_negative_variance_counts_as_none():
    chain, inputs = network("gpt2")
    section: Section = chain.section("mid0.var", "mid0.normed")
    f = made.value_at(chain, "mid0.var", inputs).clone()
    f[..., 0] = 0.0
    nothing = section(f, inputs)
    f[..., 0] = -3.0
    assert torch.equal(section(f, inputs), nothing)


@pytest.mark.parametrize("make", [made.feedforward, made.plain])
def test_what_has_no_norms_is_refused(make):
    with pytest.raises(SiteError, match=r"no norms; allowed: bases\.norms whole"):
        chain_of(make(), "split")


def test_what_has_no_positions_is_not_read_at_all_of_them():
    with pytest.raises(SiteError, match=r"no positions; allowed: bases\.positions read"):
        chain_of(made.feedforward(), positions="all")
