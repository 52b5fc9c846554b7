"""Interaction graphs at the sizes of the published modular-addition networks, beside what they cost
by vector-Jacobian products, by one autograd call for each later direction, and beside bare matrix
products.

    .venv/bin/python -m benchmarks.interactions                   of random weights
    .venv/bin/python -m benchmarks.interactions ./modadd/seed0    of published ones; searches too

JSON lines; CPU seconds of one thread, both sides in one process, the least of some. Floors are
floating-point operations at the rate of a large product that is measured beside them.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch

from edgesweep.engine.bases.ablation import AblatedSection, spliced, strongest, top1
from edgesweep.engine.bases.chain import Chain, Section
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.forms import Directions, Outlet
from edgesweep.engine.bases.interactions import Interactions, interaction_sums
from edgesweep.engine.bases.jacobians import (
    Batch,
    exact_sums,
    folded_tail,
    jacobian_sums,
    one_by_one,
)
from edgesweep.engine.bases.moments import Moments, Sums, fold
from edgesweep.engine.bases.needed import Bound, Curve, published
from edgesweep.engine.bases.rotation import Basis, Cut, identity, interaction_basis, pca
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.network import Model, PromptBatch
from edgesweep.engine.network.base import Inputs, Value
from edgesweep.engine.network.plain import PlainConfig, PlainForCausalLM
from edgesweep.tasks import build_task

WIDTH, UNITS, POSITIONS = 128, 512, 3
#: inputs of a batch, as the preset has it, and of all that bases are made of
BATCH, N = 384, 3830
GRADIENT = [(1.0, 1.0)]
CUT = Cut(1e-15, 1e-15, relative=False)
LAYERS = "embed", "mid0", "resid0", "logits"
Bases = dict[str, Basis]


def least(run: Callable[[], object], times: int = 3) -> float:
    """CPU seconds."""
    found = []
    for _ in range(times):
        began = time.process_time()
        run()
        found.append(time.process_time() - began)
    return min(found)


def rate() -> float:
    """Floating-point operations a second of a large product in double precision."""
    a = torch.ones(1024, 1024, dtype=torch.float64)
    return 2 * 1024**3 / least(lambda: a @ a, 5)


def random_network() -> Chain:
    torch.manual_seed(0)
    sizes = {"vocab_size": 114, "hidden_size": WIDTH, "num_hidden_layers": 1, "head_dim": 32}
    more = {"intermediate_size": UNITS, "max_position_embeddings": POSITIONS}
    return chain_of(Model(PlainForCausalLM(PlainConfig(**sizes, **more)).double(), "plain"))


def value_at(chain: Chain, layer: str, inputs: Inputs) -> Value:
    first = chain.start(inputs)
    return first if layer == chain.first else chain.section(chain.first, layer)(first, inputs)


def batches(chain: Chain, split: str = "build") -> list[tuple[PromptBatch, Inputs]]:
    data = build_task("modadd", None, N, 8939, 0, n_vocab=114)
    prompts = data.build if split == "build" else data.evaluation
    parts = (PromptBatch.make(prompts[i : i + BATCH]) for i in range(0, len(prompts), BATCH))
    return [(part, chain.prepare(part.clean, part.real)) for part in parts]


# --- bases -------------------------------------------------------------------------------------


def all_bases(chain: Chain, given: list[tuple[PromptBatch, Inputs]]) -> dict[str, Bases]:
    """Grams, gates and the three bases of every layer, as a run makes them."""
    layers: dict[str, list[Moments]] = {}
    gates: list[Sums] = []
    form = chain.section("mid0", "resid0").pieces[0].form
    assert form is not None
    for _, inputs in given:
        value = chain.start(inputs)
        for place, layer in enumerate(LAYERS[:3]):
            if place:
                value = chain.section(LAYERS[place - 1], layer)(value, inputs)
            layers.setdefault(layer, []).append(Moments.of(value.flatten(0, 1)))
            if layer == "mid0":
                gates.append(Sums(len(value), form.statistics(value[:, 0])))
    moments = {layer: fold(parts) for layer, parts in layers.items()}
    slopes = fold(gates)
    return {kind: _bases(chain, given, kind, moments, slopes) for kind in ("pca", "lib", "gib")}


def _bases(
    chain: Chain,
    given: list[tuple[PromptBatch, Inputs]],
    kind: str,
    moments: dict[str, Moments],
    slopes: Sums,
) -> Bases:
    if kind == "pca":
        return {layer: pca(moments[layer], CUT) for layer in LAYERS[:3]}
    found = {"logits": identity(114)}
    for place in (2, 1, 0):
        layer, end = LAYERS[place], LAYERS[3] if kind == "gib" else LAYERS[place + 1]
        tail, last = folded_tail(chain.section(layer, end), found[end]), found[end].constant
        if tail.form is not None:
            q = tail.outlet.encode @ tail.outlet.encode.T
            jacobian = tail.form.pulled(q, slopes)
            constant = tail.form.constant(tail.outlet, moments[layer].mean, slopes)
        else:
            parts = (
                exact_sums(tail.section, at(tail.section, inputs), tail.outlet, moments[layer].mean)
                for _, inputs in given
            )
            sums = fold(parts)
            jacobian, constant = sums.mean("jacobian"), float(sums.mean("constant"))
        found[layer] = interaction_basis(moments[layer], jacobian, constant + float(last), CUT)
    return found


def at(section: Section, inputs: Inputs) -> Batch:
    return Batch.of(section, value_at(section.chain, section.start, inputs), inputs)


def floor_of_bases(k: int, k_last: int) -> float:
    """Operations: gates, and vector-Jacobian products of the attention (LIB), of it and the MLP
    (GIB), with their second moments."""
    maps, moment = 2 * 8 * WIDTH**2, 2 * POSITIONS * WIDTH**2
    lib = k * (maps + moment)
    gib = k_last * (maps + moment + 2 * 2 * WIDTH * UNITS)
    return N * (2.0 * UNITS**2 + lib + gib)


# --- interactions ------------------------------------------------------------------------------


def loop(section: Section, batch: Batch, start: Basis, end: Basis) -> torch.Tensor:
    """One autograd call for each later direction, over the batch."""
    into = Directions.of(start.mean, start.decode)
    weights = torch.cat([torch.ones_like(batch.f[..., :1]), start.encoded(batch.f)], -1)
    f, rows = batch.f.clone().requires_grad_(), []
    with torch.enable_grad():
        out = end.encoded(section(f, batch.inputs, batch.row))
    for i in range(end.k):
        g = torch.autograd.grad(out[..., i].sum(), f, retain_graph=True)[0]
        a = ((g @ into.vectors.T) * weights).sum(1)
        rows.append(a.square().mean(0))
    return torch.stack(rows)


def interactions(section: Section, inputs: Inputs) -> dict[str, object]:
    """A section's interactions in PCA, beside a call a direction and bare products."""
    batch = at(section, inputs)
    start = pca(Moments.of(batch.f.flatten(0, 1)), CUT)
    end = pca(Moments.of(section(batch.f, inputs).flatten(0, 1)), CUT)
    ours = least(lambda: interaction_sums(section, batch, (start, end), GRADIENT))
    told = {
        "seconds": round(ours, 3),
        "times_faster_than_a_call_a_direction": round(
            least(lambda: loop(section, batch, start, end)) / ours, 2
        ),
        "inputs": len(batch.f),
        "k": [start.k, end.k],
    }
    if section.attention is None:
        left = torch.ones(len(batch.f) * end.k, UNITS).double()
        right = torch.ones(UNITS, 1 + start.k).double()
        return told | {"ratio_to_products": round(ours / least(lambda: left @ right), 2)}
    by_products = replace(section, pieces=(replace(section.pieces[0], attention=None),))
    outlet = Outlet.of(end.mean, end.encode)

    def moments() -> Sums:
        weights = one_by_one(batch, end.k)
        return jacobian_sums(section, batch, outlet, start.mean, weights)

    slow = least(lambda: interaction_sums(by_products, batch, (start, end), GRADIENT), 1)
    exact = least(lambda: exact_sums(section, batch, outlet, start.mean))
    return told | {
        "times_faster_than_batched_products": round(slow / ours, 2),
        "second_moments_times_faster_than_batched_products": round(least(moments, 1) / exact, 2),
    }


# --- searches ----------------------------------------------------------------------------------


def searches(chain: Chain, single: Chain, bases: Bases) -> list[dict[str, object]]:
    """The published search of each section, beside its evaluations one by one."""
    found: list[dict[str, object]] = []
    given, evaluated = batches(chain), batches(single, "eval")
    for start, end in pairwise(LAYERS):
        section, pair = chain.section(start, end), (bases[start], bases[end])
        parts = (interaction_sums(section, at(section, i), pair, GRADIENT) for _, i in given)
        square = Interactions.of(fold(parts)).mean_square[:, 1:]
        total = 129 * (114 if end == "logits" else 129)
        found.append(search(single.section(start, end), pair, square, total, evaluated))
    return found


def search(
    section: Section,
    pair: tuple[Basis, Basis],
    square: torch.Tensor,
    total: int,
    given: list[tuple[PromptBatch, Inputs]],
) -> dict[str, object]:
    chain, start = section.chain, section.start
    loaded = [(batch, inputs, value_at(chain, start, inputs)) for batch, inputs in given]
    to = [b.to(loaded[0][2]) for b in pair]

    def sections() -> list[AblatedSection]:
        return [AblatedSection(section, (to[0], to[1]), f, inputs) for _, inputs, f in loaded]

    def scored(ablated: list[AblatedSection], size: int) -> torch.Tensor:
        if size > square.numel():
            parts = [top1(spliced(chain, start, f, i), batch) for batch, i, f in loaded]
        else:
            mask = strongest(square, size)
            pairs = zip(ablated, loaded, strict=True)
            parts = [top1(one.logits(mask), batch) for one, (batch, _, _) in pairs]
        return torch.cat(parts)

    base = scored([], square.numel() + 1).numpy()
    answer: list[tuple[int, list[int]]] = []

    def run() -> None:
        ablated = sections()
        curve = Curve(
            lambda size: scored(ablated, size).numpy(), base, Bound(0.001, True), square.numel() + 1
        )
        answer.append(published(curve, total))

    with torch.inference_mode():
        ours = least(run, 2)
        needed, asked = answer[0]
        alone = sum(least(lambda k=k: scored(sections(), k), 1) for k in asked)
    ends = f"{start} -> {section.end}"
    told = {"section": ends, "needed": needed, "seconds": round(ours, 3)}
    return told | {"ratio_to_single_evaluations": round(ours / alone, 2)}


def main() -> None:
    torch.set_num_threads(1)
    folder = sys.argv[1] if len(sys.argv) > 1 else ""
    source = resolve_model(folder) if folder else None
    chain = chain_of(load_model(source, "cpu", "float64")) if source else random_network()
    given = batches(chain)
    for start, end in (("embed", "mid0"), ("mid0", "resid0")):
        told = interactions(chain.section(start, end), given[0][1])
        print(json.dumps({f"interactions {start} -> {end}": told}), flush=True)
    bases: list[dict[str, Bases]] = []
    with torch.no_grad():
        seconds = least(lambda: bases.append(all_bases(chain, given)), 1)
    k = bases[0]["lib"]["mid0"].k
    floor = floor_of_bases(k, 114) / rate()
    told = {"seconds": round(seconds, 2), "ratio_to_floor": round(seconds / floor, 2)}
    print(json.dumps({"grams and three bases": told}), flush=True)
    if source:
        single = chain_of(load_model(source, "cpu", "float32"))
        found = searches(chain, single, bases[0]["lib"])
        for one in found:
            print(json.dumps({"search": one}), flush=True)
        print(json.dumps({"three searches, seconds": sum(float(one["seconds"]) for one in found)}))


if __name__ == "__main__":
    main()
