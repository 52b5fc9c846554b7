"""The published modular-addition networks across attention: Λ, E² and the edges that they need."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
from safetensors.torch import load_file

from edgesweep.engine.bases.forms import Outlet
from edgesweep.engine.bases.interactions import Interactions, interaction_sums
from edgesweep.engine.bases.jacobians import Batch, exact_sums, folded_tail
from edgesweep.engine.bases.moments import fold
from edgesweep.engine.bases.rotation import Basis, interaction_basis
from edgesweep.engine.network import PromptBatch
from edgesweep.tasks import build_task
from tests.bases import made
from tests.bases.golden import (
    ALIAS,
    PUBLISHED_CUT,
    check_directions,
    check_labels,
    check_search,
    folder,
    found,
    loaded,
    published_basis,
    search,
    seeds,
)

#: a proof takes minutes where others run beside it
pytestmark = pytest.mark.timeout(1800)
#: why LIB of the first layer is another
OWN_LIB = (
    "{} of the largest: LIB of the first layer hangs on which of the next's directions of rounding "
    "noise are kept, which differs between machines"
)


@cache
def first(seed: int, kind: str) -> Basis:
    """Of the first layer, whose section is sampled."""
    chain, inputs, _ = loaded(seed, "float64", "build")
    moments = made.moments_at(chain, "embed", inputs)
    if kind == "pca":
        return made.pca(moments, PUBLISHED_CUT)
    end = "logits" if kind == "gib" else "mid0"
    last = found(seed, kind)[end]
    tail = folded_tail(chain.section("embed", end), last)

    def sums():
        for some in chunks(chain):
            batch = Batch.of(tail.section, chain.start(some), some)
            yield exact_sums(tail.section, batch, tail.outlet, moments.mean)

    jacobian = fold(sums()).mean("jacobian")
    return interaction_basis(moments, jacobian, float(last.constant), PUBLISHED_CUT)


def chunks(chain, size=383):
    """The build prompts, some at a time."""
    data = build_task("modadd", None, 3830, 1, 0, n_vocab=114).build
    for place in range(0, len(data), size):
        batch = PromptBatch.make(data[place : place + size])
        yield chain.prepare(batch.clean, batch.real)


@cache
def across_attention(seed: int, kind: str):
    """E² from the first layer."""
    return across(seed, (first(seed, kind), found(seed, kind)["mid0"]))


def across(seed, bases):
    chain, _, _ = loaded(seed, "float64", "build")
    section = chain.section("embed", "mid0")
    sums = (
        interaction_sums(section, Batch.of(section, chain.start(some), some), bases, made.GRADIENT)
        for some in chunks(chain)
    )
    return Interactions.of(fold(sums)).mean_square[:, 1:]


@pytest.mark.proof
@pytest.mark.parametrize(
    ("seed", "kind"),
    [
        (0, "lib"),
        (1, "lib"),
        pytest.param(
            0,
            "pca",
            marks=pytest.mark.xfail(
                strict=True,
                reason="166 edges, not 167, and 4 errors more at 166: some of the strongest end in "
                "directions of rounding noise; with the published arrays every point is exact",
            ),
        ),
        (1, "pca"),
    ],
)
def test_edges_needed_across_attention_are_the_published_ones(seed, kind):
    bases = first(seed, kind), found(seed, kind)["mid0"]
    check_search(seed, kind, "embed", "mid0", bases, across_attention(seed, kind))


@pytest.mark.proof
@pytest.mark.parametrize(("seed", "start", "end"), [(0, "embed", "mid0")])
def test_edges_needed_are_the_published_ones_for_the_published_directions(seed, start, end):
    """Of PCA, whose C⁺ is Cᵀ: no number of errors differs at any point of the search."""
    published = load_file(folder(seed) / "published.safetensors")
    square = published[f"pca.E_hat.{ALIAS[start]}->{ALIAS[end]}"].double()[1:, 1:]
    bases = [published_basis(seed, "pca", layer) for layer in (start, end)]
    check_search(seed, "pca", start, end, bases, square, errors=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "kind"),
    [
        (0, "pca"),
        (1, "pca"),
        *(
            pytest.param(
                seed,
                "lib",
                marks=pytest.mark.xfail(strict=True, reason=OWN_LIB.format(error)),
            )
            for seed, error in ((0, "8.8e-05"), (1, "7.2e-05"))
        ),
    ],
)
def test_interactions_across_attention_are_the_published_ones(seed, kind):
    """Between directions whose eigenvalues are no rounding noise."""
    columns, rows = (
        int((b.importance > 1e-10 * b.importance[0]).sum())
        for b in (first(seed, kind), found(seed, kind)["mid0"])
    )
    check_across_attention(seed, kind, across_attention(seed, kind)[:rows, :columns])


@pytest.mark.slow
@seeds
def test_interactions_across_attention_are_the_published_ones_for_the_published_bases(seed):
    """Of LIB, to all later directions, those of rounding noise too."""
    bases = [published_basis(seed, "lib", layer) for layer in ("embed", "mid0")]
    columns = int((bases[0].importance > 1e-10 * bases[0].importance[0]).sum())
    check_across_attention(seed, "lib", across(seed, bases)[:, :columns])


def check_across_attention(seed, kind, mine):
    published = load_file(folder(seed) / "published.safetensors")
    theirs = published[f"{kind}.E_hat.ln1.0->ln2.0"].double()[1:, 1:]
    error = (mine - theirs[: len(mine), : mine.shape[1]]).abs().max() / theirs.max()
    print(f"seed {seed} {kind}: {float(error):.2g} of the largest")
    assert float(error) <= 1e-6


@pytest.mark.proof
def test_gib_needs_as_many_edges_as_is_published():
    """LIB section 5; no arrays are published."""
    chain, inputs, _ = loaded(0, "float64", "build")
    bases = found(0, "gib")
    wanted = {"embed": (131, 3), "mid0": (82, 2)}
    squares = {
        "embed": across_attention(0, "gib"),
        "mid0": made.interactions(chain, inputs, bases, "mid0").mean_square[:, 1:],
    }
    for (start, end), layers in zip(
        (("embed", "mid0"), ("mid0", "resid0")),
        ((first(0, "gib"), bases["mid0"]), (bases["mid0"], bases["resid0"])),
        strict=True,
    ):
        needed, _, _ = search(0, start, end, layers, squares[start])
        print(f"seed 0 gib {start}: {needed}")
        assert abs(needed - wanted[start][0]) <= wanted[start][1]


@pytest.mark.proof
@seeds
@pytest.mark.parametrize("kind", ["lib", "pca"])
def test_the_same_at_the_first_layer(seed, kind):
    check_directions(seed, kind, "embed", first(seed, kind))
    check_labels(seed, kind, "embed", first(seed, kind))


@pytest.mark.proof
@seeds
def test_importance_across_attention_is_the_published_one_for_the_published_basis(seed):
    """Which of the later layer's directions of rounding noise are kept differs between machines,
    and what is left of them acts on the first direction of this layer; so theirs are taken."""
    chain, inputs, _ = loaded(seed, "float64", "build")
    published = load_file(folder(seed) / "published.safetensors")
    encode = published["lib.C.ln2.0"][:128, 1:]
    moments, mean = (made.moments_at(chain, layer, inputs) for layer in ("embed", "mid0"))
    section = chain.section("embed", "mid0")

    def sums():
        for some in chunks(chain):
            rows = Batch.of(section, chain.start(some), some)
            outlet = Outlet.of(mean.mean, encode)
            yield exact_sums(section, rows, outlet, moments.mean)

    jacobian = fold(sums()).mean("jacobian")
    mine = interaction_basis(moments, jacobian, 0.0, PUBLISHED_CUT).spectrum
    theirs = published["lib.Lambda.ln1.0"][1:]
    n = min(len(mine), len(theirs))
    assert float((mine[:n] - theirs[:n]).abs().max()) <= 1e-11 * float(theirs.max())
    assert [a for a, _ in pairwise(chain.widths)] == ["embed", "mid0", "resid0"]
