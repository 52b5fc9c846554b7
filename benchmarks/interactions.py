"""Interactions of an MLP section at the sizes of the published modular-addition networks, beside
one autograd call for each later direction, and beside the bare matrix products.

    .venv/bin/python -m benchmarks.interactions

One JSON line; CPU seconds of one thread, both sides in one process, the least of three.
"""

import json
import time
from collections.abc import Callable

import torch

from edgesweep.engine.bases.chain import Section
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.forms import Directions
from edgesweep.engine.bases.interactions import interaction_sums
from edgesweep.engine.bases.jacobians import Batch
from edgesweep.engine.bases.moments import Moments
from edgesweep.engine.bases.rotation import Basis, Cut, pca
from edgesweep.engine.network import Model
from edgesweep.engine.network.plain import PlainConfig, PlainForCausalLM

N, WIDTH, UNITS = 256, 128, 512


def least(run: Callable[[], object]) -> float:
    """CPU seconds."""
    times = []
    for _ in range(3):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return min(times)


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


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"vocab_size": 114, "hidden_size": WIDTH, "num_hidden_layers": 1, "head_dim": 32}
    more = {"intermediate_size": UNITS, "max_position_embeddings": 3}
    hf = PlainForCausalLM(PlainConfig(**sizes, **more)).double()
    chain = chain_of(Model(hf, "plain"))
    inputs = chain.prepare(torch.randint(114, (N, 3)), torch.ones(N, 3, dtype=torch.bool))
    section = chain.section("mid0", "resid0")
    values = chain.section("embed", "mid0")(chain.start(inputs), inputs)
    batch = Batch.of(section, values, inputs)
    cut = Cut(1e-12, 1e-12)
    start = pca(Moments.of(values[:, 0]), cut)
    end = pca(Moments.of(section(values, inputs)[:, 0]), cut)
    left, right = torch.ones(N * end.k, UNITS).double(), torch.ones(UNITS, 1 + start.k).double()
    ours = least(lambda: interaction_sums(section, batch, (start, end), [(1.0, 1.0)]))
    told = {
        "seconds": round(ours, 3),
        "ratio_to_products": round(ours / least(lambda: left @ right), 2),
        "times_faster_than_a_call_a_direction": round(
            least(lambda: loop(section, batch, start, end)) / ours, 2
        ),
        "inputs": N,
        "k": [start.k, end.k],
    }
    print(json.dumps({"interactions of an MLP": told}))


if __name__ == "__main__":
    main()
