"""The published modular-addition networks: accuracies, Λ, E², and the edges that they need, step by
step, from the layer after the attention on."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from edgesweep.engine.bases.ablation import spliced
from tests.bases import made
from tests.bases.golden import (
    ALIAS,
    check_directions,
    check_labels,
    check_search,
    folder,
    found,
    loaded,
    seeds,
)

#: a proof takes minutes where others run beside it
pytestmark = pytest.mark.timeout(1800)


@seeds
def test_accuracies_are_the_published_ones(seed):
    chain, inputs, right = loaded(seed, "float64", "eval")
    wrong = spliced(chain, "embed", chain.start(inputs), inputs).argmax(-1) != right
    assert (int(wrong.sum()), len(right)) == ({0: 4, 1: 10}[seed], 8939)


@seeds
def test_importance_is_the_published_one(seed):
    published = load_file(folder(seed) / "published.safetensors")
    for layer in ("mid0", "resid0"):
        theirs = published[f"lib.Lambda.{ALIAS[layer]}"]
        mine = found(seed, "lib")[layer]
        n = min(len(theirs) - 1, len(mine.spectrum))
        error = (mine.spectrum[:n] - theirs[1 : 1 + n]).abs().max()
        assert float(error) <= 1e-11 * float(theirs[1:].max())
        assert float(mine.constant) == pytest.approx(float(theirs[0]), rel=1e-9)


@pytest.mark.slow
@seeds
@pytest.mark.parametrize("kind", ["lib", "pca"])
def test_interactions_are_the_published_ones(seed, kind):
    chain, inputs, _ = loaded(seed, "float64", "build")
    published = load_file(folder(seed) / "published.safetensors")
    for start, end in (("mid0", "resid0"), ("resid0", "logits")):
        theirs = published[f"{kind}.E_hat.{ALIAS[start]}->{ALIAS[end]}"].double()
        theirs = theirs[int(end != "logits") :, 1:]
        mine = made.interactions(chain, inputs, found(seed, kind), start).mean_square[:, 1:]
        rows, columns = (min(a, b) for a, b in zip(mine.shape, theirs.shape, strict=True))
        error = (mine[:rows, :columns] - theirs[:rows, :columns]).abs().max()
        assert float(error) <= 1e-6 * float(theirs.max())


@pytest.mark.parametrize(
    ("seed", "kind"),
    [
        pytest.param(0, "lib", marks=pytest.mark.slow),
        pytest.param(1, "lib", marks=pytest.mark.proof),
        pytest.param(0, "pca", marks=pytest.mark.proof),
        pytest.param(1, "pca", marks=pytest.mark.proof),
    ],
)
def test_edges_needed_are_the_published_ones(seed, kind):
    chain, inputs, _ = loaded(seed, "float64", "build")
    for start, end in (("mid0", "resid0"), ("resid0", "logits")):
        square = made.interactions(chain, inputs, found(seed, kind), start).mean_square[:, 1:]
        check_search(
            seed, kind, start, end, (found(seed, kind)[start], found(seed, kind)[end]), square
        )


@pytest.mark.slow
@seeds
@pytest.mark.parametrize("kind", ["lib", "pca"])
def test_scores_with_the_first_directions_are_the_published_ones(seed, kind):
    for layer in ("mid0", "resid0"):
        check_directions(seed, kind, layer, found(seed, kind)[layer])


@pytest.mark.slow
@seeds
@pytest.mark.parametrize("kind", ["lib", "pca"])
def test_first_terms_are_the_published_ones(seed, kind):
    for layer in ("mid0", "resid0"):
        check_labels(seed, kind, layer, found(seed, kind)[layer])
