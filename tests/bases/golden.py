"""The published modular-addition networks (Bushnaq et al. 2024) and what is published of them.
Skipped where their files are not (EDGESWEEP_MODADD names the folder)."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgesweep.engine.bases.ablation import AblatedSection, ablated_nodes, spliced, strongest
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.fourier import label
from edgesweep.engine.bases.needed import Bound, Curve, published
from edgesweep.engine.bases.rotation import NONE, Basis, Cut
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


@cache
def scored(seed: int, start: str):
    """(chain, inputs, the layer's values, whether each input is right for some outputs), as the
    published evaluation ran it."""
    chain, inputs, right = loaded(seed, "float32", "eval")
    f = made.value_at(chain, start, inputs)

    def score(logits):
        return (logits.argmax(-1) == right).double().numpy()

    return chain, inputs, f, score


def search(seed, start, end, bases, mean_square):
    """(edges needed, the published search's numbers, the curve)."""
    chain, inputs, f, score = scored(seed, start)
    section = AblatedSection(chain.section(start, end), tuple(b.to(f) for b in bases), f, inputs)
    base = score(spliced(chain, start, f, inputs))
    n = mean_square.numel()

    def measure(size):
        return base if size > n else score(section.logits(strongest(mean_square, size)))

    curve = Curve(measure, base, Bound(WITHIN, True), n + 1)
    with torch.inference_mode():
        needed, asked = published(curve, 129 * (114 if end == "logits" else 129))
    return needed, asked, curve


def check_search(seed, kind, start, end, bases, mean_square, errors=2):
    """The published answer, and every number that was asked for: so many more or fewer errors."""
    needed, asked, curve = search(seed, start, end, bases, mean_square)
    told = published_ablation(seed, kind)
    print(f"seed {seed} {kind} {start}: {needed}")
    assert abs(needed - told["edges_required"][ALIAS[start]]) <= (2 if end == "logits" else 1)
    theirs = {int(k): v for k, v in told["bisect"][ALIAS[start]].items()}
    shared = [k for k in asked if k in theirs]
    assert len(shared) >= len(theirs) - 3
    for k in shared:
        assert_scores_agree(curve.scores[k].mean(), theirs[k], curve.base.mean(), errors)


def assert_scores_agree(mine, theirs, base, errors=2):
    bound = errors / 8939 if theirs > base - 0.01 else 0.001
    assert abs(mine - theirs) <= bound + 1e-12


def published_ablation(seed, kind):
    return json.loads((folder(seed) / "ablation.json").read_text())[kind]


def published_basis(seed, kind, layer):
    """C⁺ of LIB is not published: Λ⁻¹ Cᵀ G, which is it where C = R V Λ^{1/2}."""
    chain, inputs, _ = loaded(seed, "float64", "build")
    published, moments = (
        load_file(folder(seed) / "published.safetensors"),
        made.moments_at(chain, layer, inputs),
    )
    encode = published[f"{kind}.C.{ALIAS[layer]}"][:128, 1:].contiguous()
    importance, decode = torch.ones(encode.shape[1]).double(), encode.T.contiguous()
    if kind == "lib":
        importance = published[f"lib.Lambda.{ALIAS[layer]}"][1 : 1 + encode.shape[1]]
        decode = decode @ moments.gram / importance[:, None]
    told = importance, importance, importance, torch.zeros(()).double(), NONE
    return Basis(moments.mean, encode, decode, *told)


def check_directions(seed, kind, layer, basis):
    """Every published number of directions but 0, which there leaves out the mean. Theirs is ours
    and the constant."""
    chain, inputs, f, score = scored(seed, layer)
    told = published_ablation(seed, kind)["node_ablation"][ALIAS[layer]]
    base = score(spliced(chain, layer, f, inputs)).mean()
    mine = {}
    with torch.inference_mode():
        for k in (int(k) for k in told if int(k) > 0):
            logits = ablated_nodes(chain, layer, basis.to(f), f, k - 1, inputs)
            mine[k] = float(score(logits).mean())
            assert_scores_agree(mine[k], told[str(k)], base)
    for scores in (mine, {int(k): v for k, v in told.items() if int(k) > 0}):
        print(seed, kind, layer, min(k for k, v in scores.items() if v >= base - WITHIN))


def check_labels(seed, kind, layer, basis):
    told = published_ablation(seed, kind)["labels"][ALIAS[layer]][1:26]
    chain, _, _ = loaded(seed, "float64", "build")
    xy = torch.cartesian_prod(torch.arange(113), torch.arange(113))
    inputs = made.prepared(chain, torch.cat([xy, torch.full((len(xy), 1), 113)], 1))
    f_hat = basis.encoded(made.value_at(chain, layer, inputs)).sum(1)
    theirs = [text.split("|")[0].split("% ")[1] for text in told]
    grids = f_hat[:, : len(theirs)].T.reshape(-1, 113, 113).numpy()
    same = [label(grid)[0].name == name for grid, name in zip(grids, theirs, strict=True)]
    print(f"seed {seed} {kind} {layer}: {sum(same)} of {len(same)} first terms")
    assert sum(same) >= len(same) - 1
