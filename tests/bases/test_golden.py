"""The published modular-addition networks (Bushnaq et al. 2024): accuracies, Λ, E², and the edges
that they need, step by step. Skipped where their files are not (EDGESWEEP_MODADD names the
folder)."""

from __future__ import annotations

import json
import os
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgesweep.engine.bases.ablation import AblatedSection, spliced, strongest
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.forms import Outlet
from edgesweep.engine.bases.fourier import label
from edgesweep.engine.bases.jacobians import Batch, jacobian_sums, one_by_one
from edgesweep.engine.bases.moments import fold
from edgesweep.engine.bases.rotation import Basis, Cut, interaction_basis
from edgesweep.engine.bases.search import bisected
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.network import PromptBatch
from edgesweep.tasks import build_task
from tests.bases import made

FOLDER = Path(os.environ.get("EDGESWEEP_MODADD", Path(__file__).parents[3] / "shared/data/modadd"))
ALIAS = {"embed": "ln1.0", "mid0": "ln2.0", "resid0": "unembed", "logits": "output"}
PUBLISHED_CUT = Cut(1e-15, 1e-15, relative=False)
#: what the published bisection lets accuracy lose
WITHIN = 0.001
seeds = pytest.mark.parametrize("seed", [0, 1])


@cache
def folder(seed: int) -> Path:
    path = FOLDER / f"seed{seed}"
    if not (path / "published.safetensors").exists():
        pytest.skip(f"the published networks are not in {FOLDER}")
    return path


@cache
def loaded(seed: int, dtype: str, split: str):
    """(chain, inputs, right answers) of all prompts of a split."""
    source = resolve_model(str(folder(seed)))
    chain = chain_of(load_model(source, "cpu", dtype))
    data = build_task("modadd", None, 3830, 8939, 0, n_vocab=114)
    batch = PromptBatch.make(data.build if split == "build" else data.evaluation)
    return chain, chain.prepare(batch.clean, batch.real), batch.good[:, 0]


@cache
def found(seed: int, kind: str) -> dict[str, Basis]:
    """Bases of all layers but the first, whose section is sampled."""
    chain, inputs, _ = loaded(seed, "float64", "build")
    tail = made.from_cut(chain, "mid0")
    return made.bases(tail, made.at_cut(chain, "mid0", inputs), kind, PUBLISHED_CUT)


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
    ],
)
def test_edges_needed_are_the_published_ones(seed, kind):
    told = json.loads((folder(seed) / "ablation.json").read_text())[kind]
    exact, inputs64, _ = loaded(seed, "float64", "build")
    chain, inputs, right = loaded(seed, "float32", "eval")
    for start, end in (("mid0", "resid0"), ("resid0", "logits")):
        mine = made.interactions(exact, inputs64, found(seed, kind), start).mean_square[:, 1:]
        f = made.value_at(chain, start, inputs)
        bases = tuple(found(seed, kind)[layer].to(f) for layer in (start, end))
        section = AblatedSection(chain.section(start, end), bases, f, inputs)
        base, points = accuracy(spliced(chain, start, f, inputs), right), {}

        def passes(sizes, mine=mine, section=section, base=base, points=points):
            for k in sizes:
                whole = k > mine.numel()
                kept = None if whole else section.logits(strongest(mine, k))
                points[k] = base if kept is None else accuracy(kept, right)
            return {k: points[k] >= base - WITHIN for k in sizes}

        with torch.inference_mode():
            needed, asked = bisected(129 * (114 if end == "logits" else 129), passes)
        theirs = {int(k): v for k, v in told["bisect"][ALIAS[start]].items()}
        assert abs(needed - told["edges_required"][ALIAS[start]]) <= (2 if end == "logits" else 1)
        shared = [k for k in asked if k in theirs]
        assert len(shared) >= len(theirs) - 3
        for k in shared:
            bound = 2 / 8939 if theirs[k] > base - 0.01 else 0.001
            assert abs(points[k] - theirs[k]) <= bound + 1e-12


def accuracy(logits, right) -> float:
    return float((logits.argmax(-1) == right).double().mean())


@pytest.mark.slow
@seeds
@pytest.mark.parametrize("kind", ["lib", "pca"])
def test_first_terms_are_the_published_ones(seed, kind):
    told = json.loads((folder(seed) / "ablation.json").read_text())[kind]["labels"]
    chain, _, _ = loaded(seed, "float64", "build")
    xy = torch.cartesian_prod(torch.arange(113), torch.arange(113))
    given = torch.cat([xy, torch.full((len(xy), 1), 113)], 1)
    inputs = made.prepared(chain, given)
    for layer in ("mid0", "resid0"):
        f_hat = found(seed, kind)[layer].encoded(made.value_at(chain, layer, inputs)).sum(1)
        theirs = [text.split("|")[0].split("% ")[1] for text in told[ALIAS[layer]][1:26]]
        grids = f_hat[:, : len(theirs)].T.reshape(-1, 113, 113).numpy()
        same = [label(grid)[0].name == name for grid, name in zip(grids, theirs, strict=True)]
        assert sum(same) >= len(same) - 1


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
        data = build_task("modadd", None, 3830, 1, 0, n_vocab=114).build
        for first in range(0, len(data), 383):
            batch = PromptBatch.make(data[first : first + 383])
            some = chain.prepare(batch.clean, batch.real)
            rows = Batch.of(section, chain.start(some), some)
            outlet = Outlet.of(mean.mean, encode)
            weights = one_by_one(rows, encode.shape[1])
            yield jacobian_sums(section, rows, outlet, moments.mean, weights)

    jacobian = fold(sums()).mean("jacobian")
    mine = interaction_basis(moments, jacobian, 0.0, PUBLISHED_CUT).spectrum
    theirs = published["lib.Lambda.ln1.0"][1:]
    n = min(len(mine), len(theirs))
    assert float((mine[:n] - theirs[:n]).abs().max()) <= 1e-11 * float(theirs.max())
    assert [a for a, _ in pairwise(chain.widths)] == ["embed", "mid0", "resid0"]
