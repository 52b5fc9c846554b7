"""Bases and interactions against their definitions, and what must hold of them without any."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.interactions import interaction_sums
from edgesweep.engine.bases.jacobians import Batch, is_closed
from edgesweep.engine.bases.moments import Moments, fold
from edgesweep.engine.methods.quadrature import points
from edgesweep.engine.network.feedforward import FeedForward
from tests.bases import made
from tests.oracles import slow_interactions as slow

pytestmark = pytest.mark.filterwarnings("ignore:.*vmap.*")

NETWORKS = {
    "relu": lambda: (made.mlp(), made.arrays()),
    "gelu": lambda: (made.mlp(activation="gelu"), made.arrays()),
    "plain": lambda: (made.transformer(), made.tokens()),
    "gated": lambda: (made.gated(), made.arrays(width=6)),
}
networks = pytest.mark.parametrize("name", NETWORKS)


def network(name):
    chain, given = NETWORKS[name]()
    return chain, made.prepared(chain, given)


def one_input(chain, start, end, inputs, row):
    """A section of one input, as the oracle takes it."""
    section = chain.section(start, end)

    def run(f, c):
        return section(f[None], inputs, torch.tensor([row]), c[None, :, None])[0]

    return run


def close(found, wanted, tolerance=1e-9):
    assert float((found - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


@networks
@pytest.mark.parametrize("closed", [True, False])
def test_second_moments_are_the_oracles(name, closed):
    chain, inputs = network(name)
    found = made.bases(chain, inputs)
    names = list(chain.widths)
    for start, end in pairwise(names):
        basis, moments = found[end], made.moments_at(chain, start, inputs)
        values = made.value_at(chain, start, inputs)
        total, constant, n = 0.0, 0.0, 0
        for row, x in enumerate(values):
            section = one_input(chain, start, end, inputs, row)
            told = slow.jacobian_moment(section, [x], moments.mean, basis.encode, basis.mean)
            total, constant, n = total + told[0], constant + told[1], n + told[2]
        mine = made.second_moments(chain.section(start, end), inputs, basis, moments, closed)
        close(mine.mean("jacobian"), total / n)
        assert float(mine.mean("constant")) == pytest.approx(constant / n, rel=1e-9)


@networks
@pytest.mark.parametrize("nodes", [made.GRADIENT, points("midpoint", 3)], ids=["1", "3"])
def test_interactions_are_the_oracles(name, nodes):
    chain, inputs = network(name)
    found = made.bases(chain, inputs)
    names = list(chain.widths)
    for start, end in pairwise(names):
        a, b = found[start], found[end]
        values = made.value_at(chain, start, inputs)
        squares, missed = [], []
        for row, x in enumerate(values):
            section = one_input(chain, start, end, inputs, row)
            told = slow.mean_squares(
                section, [x], (a.mean, a.encode, a.decode), (b.encode, b.mean), nodes
            )
            squares.append(told[0])
            missed.append(told[1])
        mine = made.interactions(chain, inputs, found, start, nodes)
        squares = torch.stack(squares)
        close(mine.mean_square, squares.mean(0))
        error = squares.std(0) / len(squares) ** 0.5
        close(mine.standard_error[:, 1:], error[:, 1:], 1e-6)  # from a fourth moment
        assert (max(missed) < 1e-9) == (float(mine.residual) < 1e-9)


@networks
def test_what_is_kept_of_an_input_is_the_oracles(name):
    """Its sum over output positions, which E² is the mean of over inputs and positions."""
    chain, inputs = network(name)
    found = made.bases(chain, inputs)
    for start, end in pairwise(list(chain.widths)):
        a, b, section = found[start], found[end], chain.section(start, end)
        values, kept = made.value_at(chain, start, inputs), []
        batch = Batch.of(section, values, inputs)
        sums = interaction_sums(section, batch, (a, b), made.GRADIENT, kept.append)
        (rows,) = kept
        for row, x in enumerate(values):
            given = (a.mean, a.encode, a.decode), (b.encode, b.mean)
            alone = one_input(chain, start, end, inputs, row)
            close(rows[row], len(x) * slow.mean_squares(alone, [x], *given, made.GRADIENT)[0])
        plain = interaction_sums(section, batch, (a, b), made.GRADIENT)
        for key, value in plain.sums.items():
            torch.testing.assert_close(sums.sums[key], value, rtol=1e-12, atol=1e-12)


@networks
def test_enough_points_make_attributions_complete(name):
    chain, inputs = network(name)
    found = made.bases(chain, inputs)
    for start in list(chain.widths)[:-1]:
        told = made.interactions(chain, inputs, found, start, points("gauss_legendre", 64))
        assert float(told.residual) < 1e-6


def test_one_gradient_is_no_integral_of_attention_and_gelu():
    """What the residual is stored for: it is not zero where the shortcut is none."""
    for name, start in (("gelu", "input"), ("plain", "embed")):
        chain, inputs = network(name)
        told = made.interactions(chain, inputs, made.bases(chain, inputs), start)
        assert float(told.residual) > 1e-3


@networks
@pytest.mark.parametrize("kind", ["lib", "gib"])
def test_directions_have_the_covariance_of_their_importance(name, kind):
    chain, inputs = network(name)
    for layer, basis in list(made.bases(chain, inputs, kind).items())[1:]:
        f_hat = basis.encoded(made.value_at(chain, layer, inputs).flatten(0, 1))
        close(f_hat.T @ f_hat / len(f_hat), basis.importance.diag(), 1e-8)


@networks
def test_the_second_moment_of_the_jacobian_between_directions_is_one(name):
    chain, inputs = network(name)
    found = made.bases(chain, inputs)
    names = list(chain.widths)
    for start, end in pairwise(names):
        moments = made.moments_at(chain, start, inputs)
        sums = made.second_moments(chain.section(start, end), inputs, found[end], moments)
        decode = found[start].decode
        close(decode @ sums.mean("jacobian") @ decode.T, torch.eye(len(decode)).double(), 1e-7)


@networks
def test_of_a_linear_section_interactions_sum_to_importance(name):
    chain, inputs = network(name)
    found = made.bases(chain, inputs)
    start = list(chain.widths)[-2]
    told = made.interactions(chain, inputs, found, start)
    close(told.mean_square[:, 1:].sum(0), found[start].importance, 1e-8)


def test_a_hidden_layer_in_other_coordinates_has_the_same_directions():
    """Parameterisation invariance, the point of the method: W → W A, W′ → A⁻¹ W′."""
    plain, other = made.mlp((6,), "linear"), made.mlp((6,), "linear")
    inputs = made.prepared(plain, made.arrays())
    a = torch.randn(6, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    hidden, output = other.hf.hidden[0].map, other.hf.output
    with torch.no_grad():
        hidden.weight.copy_(a.T @ hidden.weight)
        hidden.bias.copy_(hidden.bias @ a)
        output.weight.copy_(output.weight @ torch.linalg.inv(a).T)
    other = chain_of(FeedForward(other.hf, "other"))
    mine, theirs = (made.bases(chain, inputs) for chain in (plain, other))
    values = [made.value_at(chain, "hidden0", inputs)[:, 0] for chain in (plain, other)]
    for name in ("input", "hidden0"):
        close(theirs[name].importance, mine[name].importance, 1e-8)
    f_hat = [b["hidden0"].encoded(v) for b, v in zip((mine, theirs), values, strict=True)]
    close(f_hat[1].abs(), f_hat[0].abs(), 1e-7)
    squares = [
        made.interactions(chain, inputs, found, "input").mean_square[:, 1:]
        for chain, found in ((plain, mine), (other, theirs))
    ]
    close(squares[1], squares[0], 1e-7)


def test_independent_halves_do_not_interact():
    chain, inputs = made.halves()
    found = made.bases(chain, inputs)
    told = made.interactions(chain, inputs, found, "hidden0").mean_square[:, 1:]
    # every direction is of one half, and the halves' directions do not interact
    halves = [
        found[layer].decode[:, :n].square().sum(1) / found[layer].decode.square().sum(1)
        for layer, n in (("hidden0", 3), ("hidden1", 2))
    ]
    assert all(float((h * (1 - h)).max()) < 1e-8 for h in halves)
    across = (halves[1][:, None] > 0.5) != (halves[0][None] > 0.5)
    assert across.any()
    assert float(told[across].max()) < 1e-12 * float(told.max())


def test_pca_is_the_data_s_and_keeps_what_is_above_the_cut():
    vectors = made.arrays(30, 5)
    vectors[:, 4] = vectors[:, 0]
    found = made.pca(Moments.of(vectors), made.CUT)
    assert found.k == 4
    close(found.decoded(found.encoded(vectors)), vectors, 1e-10)


def test_moments_fold_to_the_same_bits_whenever_they_come():
    vectors = made.arrays(37, 4) + 1e6
    parts = [Moments.of(part) for part in vectors.split(5)]
    whole, again = fold(parts), fold(iter(parts))
    assert torch.equal(whole.m2, again.m2)
    close(whole.m2, Moments.of(vectors).m2, 1e-9)
    close(whole.mean, vectors.mean(0), 1e-15)


def test_which_sections_are_closed():
    chain = made.transformer()
    assert [
        is_closed(chain.section(*pair)) for pair in (("embed", "mid0"), ("mid0", "resid0"))
    ] == [
        False,
        True,
    ]
    assert is_closed(chain.section("mid0", "logits"))
    assert not is_closed(chain.section("embed", "resid0"))
