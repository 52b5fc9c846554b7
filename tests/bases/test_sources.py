"""Random signs over positions: their mean and variance are the formulas', and no batching, padding
or other input changes them."""

from __future__ import annotations

import pytest
import torch

from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.forms import Outlet
from edgesweep.engine.bases.interactions import attributions, interaction_sums
from edgesweep.engine.bases.jacobians import Batch, jacobian_sums
from edgesweep.engine.bases.sources import Sources
from edgesweep.engine.network.base import Inputs
from tests.bases import made

pytestmark = pytest.mark.filterwarnings("ignore:.*vmap.*")

N, T, DRAWS = 2, 6, 10_000


@pytest.fixture(scope="module")
def attention():
    """The section over attention, a batch at its start, and bases of its ends."""
    chain = chain_of(made.language("gpt2"), "split", "all")
    inputs = made.prepared(chain, made.tokens(N, T))
    section = chain.section("embed.normed", "mid0")
    batch = Batch.of(section, made.value_at(chain, "embed.normed", inputs), inputs)
    many = made.prepared(chain, made.tokens(12, T))
    ends = [made.pca(made.moments_at(chain, n, many), made.CUT) for n in (section.start, "mid0")]
    return section, batch, tuple(ends)


def squares(attention, sources):
    section, batch, ends = attention
    sums = interaction_sums(section, batch, ends, made.GRADIENT, sources=sources)
    return sums.mean("square")


@pytest.fixture(scope="module")
def each(attention):
    """A of every output position, `[s, x, i, j]`."""
    section, batch, ends = attention
    f_hat = ends[0].encoded(batch.f)
    weights = torch.cat([torch.ones_like(f_hat[..., :1]), f_hat], -1)
    found = attributions(section, batch, ends, weights, made.GRADIENT)
    return torch.stack([a.clone() for _, _, a in found])


def signed(attention, each, n, seed=0):
    """Ê² of each of some draws by itself: of their signs and of A."""
    _, batch, ends = attention
    signs = torch.stack(list(Sources(n, seed).weights(batch, ends[1].k))) * n**0.5
    return torch.einsum("rixs,sxij->rxij", signs, each).square().sum(1) / batch.n_positions


@pytest.fixture(scope="module")
def drawn(attention, each):
    return signed(attention, each, DRAWS)


@pytest.mark.parametrize(("n", "seed"), [(1, 0), (1, 5), (3, 1)])
def test_an_estimate_is_the_mean_of_signed_sums(attention, each, n, seed):
    wanted = signed(attention, each, n, seed).mean(0)
    torch.testing.assert_close(squares(attention, Sources(n, seed)), wanted, rtol=1e-9, atol=1e-12)


def test_interactions_are_unbiased(attention, drawn):
    exact = squares(attention, Sources())
    error = drawn.std(0) / DRAWS**0.5
    off = (drawn.mean(0) - exact).abs() / error.clamp(min=1e-9 * float(exact.max()))
    assert float(off.max()) < 4


def test_their_variance_is_the_formula_s(attention, each, drawn):
    """Var[Ê²] = (2/(R N²)) Σ_x [(Σ_s A_s²)² − Σ_s A_s⁴], within 15% at every edge. 400 draws cannot
    tell so much: a variance of n has a relative standard error of ((κ − 1)/n)^½ at a kurtosis κ,
    which of 400 is 6 to 10% here, so that of 32 edges one is off by 19% on average. Of 10,000 it is
    a fifth of that."""
    n = attention[1].n_positions
    wanted = 2 / n**2 * (each.square().sum(0).square() - each.pow(4).sum(0)).sum(0)
    assert float((drawn.var(0) / wanted - 1).abs().max()) < 0.15
    of_400 = drawn.unflatten(0, (-1, 400)).var(1)
    assert float((of_400 / wanted - 1).abs().amax((1, 2)).mean()) > 0.15


def test_more_draws_vary_less(drawn):
    """As 1/R: of R = 2T."""
    several = drawn[: DRAWS // (2 * T) * 2 * T].unflatten(0, (-1, 2 * T)).mean(1)
    assert float(several.var(0).sum() / drawn.var(0).sum()) == pytest.approx(1 / (2 * T), rel=0.1)


def test_second_moments_are_unbiased(attention):
    section, batch, ends = attention
    outlet, mean = Outlet.of(ends[1].mean, ends[1].encode), ends[0].mean

    def moment(seed, n):
        weights = Sources(n, seed).weights(batch, ends[1].k)
        return jacobian_sums(section, batch, outlet, mean, weights).mean("jacobian")

    exact = moment(0, 0)
    found = torch.stack([moment(seed, 1) for seed in range(150)])
    error = found.std(0) / len(found) ** 0.5
    assert float(((found.mean(0) - exact).abs() / error.clamp(min=1e-9)).max()) < 4.5


def test_where_positions_do_not_mix_one_draw_is_exact():
    chain = chain_of(made.plain())
    inputs = made.prepared(chain, made.tokens(5))
    section = chain.section("mid0", "resid0")
    batch = Batch.of(section, made.value_at(chain, "mid0", inputs), inputs)
    outlet = Outlet.of(torch.zeros(6).double(), made.arrays(6, 3))

    def moment(sources):
        mean = torch.zeros(6).double()
        weights = sources.weights(batch, 3)
        return jacobian_sums(section, batch, outlet, mean, weights).mean("jacobian")

    torch.testing.assert_close(moment(Sources(1, 3)), moment(Sources()), rtol=1e-12, atol=1e-12)


def test_signs_are_of_the_input_and_of_nothing_beside_it(attention):
    """The same in other batches, and beside longer inputs."""
    _, batch, _ = attention

    def signs(first, rows, positions):
        real = torch.ones(len(rows), positions, dtype=torch.bool)
        f = batch.f.new_zeros(len(rows), positions, 1)
        some = Batch(f, Inputs(f, (), real, real), real, real, torch.tensor(rows))
        return next(Sources(1, 7, "resid3", first).weights(some, 5))

    together = signs(10, [0, 1, 2], 6)
    alone = signs(12, [0], 4)
    assert torch.equal(together[:, 2:, :4], alone)
    assert not torch.equal(together[:, :1, :4], alone)
