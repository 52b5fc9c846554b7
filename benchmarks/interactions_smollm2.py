"""Bases of SmolLM2's sections, of random weights of its sizes and 2,048 tokens in windows of 64,
beside the arithmetic that they come to, and what they hold beside what is stated.

    .venv/bin/python -m benchmarks.interactions_smollm2

    MLP         means, K and M′ in closed form, beside the products that these are (at most 2)
    attention   M′ by random signs, as the preset has it, of one micro-batch of windows, beside the
                pull-back of 577 cotangents (576 directions and the constant's) through maps and
                scores at all tokens (at most 2.5)
    memory      what bases of both take at their peak, beside weights, moments, 8 (2 d² + 3 d_mlp²)
                a layer, and a micro-batch, all in double precision (at most 1)

JSON lines; CPU seconds of one thread, both sides in one process, the least of some. Products are
timed in the shapes that they have; the pull-back's operations at the rate of a large product.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.interactions import least, rate
from edgesweep.engine.bases.chain import Chain
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.forms import Outlet, Units
from edgesweep.engine.bases.jacobians import Batch, jacobian_sums
from edgesweep.engine.bases.moments import Folding, Moments, Sums
from edgesweep.engine.bases.rotation import Basis, Cut, pca
from edgesweep.engine.bases.sources import Sources
from edgesweep.engine.network import Model
from edgesweep.engine.network.base import Inputs
from edgesweep.sweeps.interactions.cost import WORKING_BYTES

D, D_MLP, HEADS, GROUPS, D_HEAD = 576, 1536, 9, 3, 64
WINDOW, WINDOWS, SHARD, MICRO_BATCH = 64, 32, 8, 4
#: cotangents that memory is measured with; as many are held at once whatever there are
AT_ONCE = 32
TOKENS = WINDOW * WINDOWS
CUT = Cut(1e-9, 1e-12)


def layer_of_smollm2() -> Chain:
    """One layer with split norms, in double precision."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=D, intermediate_size=D_MLP, num_hidden_layers=1,
        num_attention_heads=HEADS, num_key_value_heads=GROUPS, head_dim=D_HEAD,
    )  # fmt: skip
    return chain_of(Model(LlamaForCausalLM(config).double(), "llama"), "split", "all")


def inputs_of(chain: Chain) -> Inputs:
    tokens = torch.randint(512, (WINDOWS, WINDOW), generator=torch.Generator().manual_seed(1))
    return chain.prepare(tokens, torch.ones_like(tokens, dtype=torch.bool))


def orthogonal() -> Basis:
    """Of the stream: as many directions as it has numbers."""
    return pca(Moments.of(torch.randn(2 * D, D, dtype=torch.float64)), CUT)


# --- the MLP -----------------------------------------------------------------------------------


def mlp(chain: Chain, inputs: Inputs) -> dict[str, object]:
    """All of a section's second moment, from values at its start."""
    section = chain.section("mid0.normed", "resid0")
    f = chain.section("embed", "mid0.normed")(chain.start(inputs), inputs).flatten(0, 1)
    form, q = section.pieces[0].form, torch.eye(D, dtype=torch.float64)
    assert isinstance(form, Units)

    def ours() -> torch.Tensor:
        return form.pulled(q, Sums(len(f), form.statistics(f)))

    products = [(TOKENS, D, 2 * D_MLP), (2 * D_MLP, TOKENS, 2 * D_MLP)]  # seen, K
    products += [(2 * D_MLP, D, D), (2 * D_MLP, D, 2 * D_MLP)]  # W_out Q, W_out Q W_outᵀ
    products += [(D, 2 * D_MLP, 2 * D_MLP), (D, 2 * D_MLP, D), (D, 2 * D_MLP, D)]  # to f; A
    return beside(ours, lambda: sum(least(bare(*sizes)) for sizes in products), 2.0)


def bare(n: int, inner: int, m: int) -> Callable[[], object]:
    a, b = torch.ones(n, inner).double(), torch.ones(inner, m).double()
    return lambda: a @ b


# --- attention ---------------------------------------------------------------------------------


def attention(chain: Chain, inputs: Inputs) -> dict[str, object]:
    section, basis = chain.section("embed.normed", "mid0"), orthogonal()
    f = chain.section("embed", "embed.normed")(chain.start(inputs), inputs)
    mean, outlet = f.flatten(0, 1).mean(0), Outlet.of(basis.mean, basis.encode)
    some = Batch.of(section, f, inputs).part(slice(MICRO_BATCH))
    tokens = MICRO_BATCH * WINDOW

    def ours() -> None:
        jacobian_sums(section, some, outlet, mean, Sources(1, 0, "a").weights(some, basis.k))

    maps = 2 * (2 * D * HEADS * D_HEAD + 2 * D * GROUPS * D_HEAD)
    scores = 2 * 4 * WINDOW * HEADS * D_HEAD  # of values, weights, queries and keys
    return beside(ours, lambda: (basis.k + 1) * tokens * (maps + scores) / rate(), 2.5, times=1)


def beside(
    ours: Callable[[], object], floor: Callable[[], float], goal: float, times: int = 3
) -> dict[str, object]:
    with torch.no_grad():
        cost, unit = least(ours, times), floor()
    told = {"ratio": round(cost / unit, 2), "goal": goal, "seconds": round(cost, 2)}
    return told | {"floor_seconds": round(unit, 2)}


# --- memory ------------------------------------------------------------------------------------


def held(of: str) -> int:
    """Bytes of this process, now (VmRSS) or at its peak (VmHWM)."""
    found = re.search(rf"{of}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@torch.no_grad()
def memory(chain: Chain, inputs: Inputs) -> dict[str, object]:
    """Both second moments, of a shard as the preset has it, micro-batch by micro-batch."""
    before, basis, slopes = held("VmRSS"), orthogonal(), Folding[Sums]()
    weights = 8 * sum(p.numel() for p in chain.hf.parameters())
    into, form = chain.section("embed.normed", "mid0"), chain.section("mid0.normed", "resid0")
    units = form.pieces[0].form
    assert isinstance(units, Units)
    f = chain.section("embed", "mid0.normed")(chain.start(inputs), inputs)
    for first in range(0, SHARD, MICRO_BATCH):
        vectors = f[first : first + MICRO_BATCH].flatten(0, 1)
        slopes.add(Sums(len(vectors), units.statistics(vectors)))
    units.pulled(basis.encode @ basis.encode.T, slopes.whole())
    f = chain.section("embed", "embed.normed")(chain.start(inputs), inputs)
    some = Batch.of(into, f, inputs).part(slice(MICRO_BATCH))
    outlet = Outlet.of(basis.mean, basis.encode[:, :AT_ONCE])
    jacobian_sums(into, some, outlet, f[0, 0], Sources(1, 0, "a").weights(some, AT_ONCE))
    stated = weights + 8 * (2 * D**2 + 3 * D_MLP**2) + WORKING_BYTES
    peak = held("VmHWM") - before + weights
    told = {"ratio": round(peak / stated, 2), "goal": 1.0, "peak_mb": round(peak / 1e6)}
    return told | {"stated_mb": round(stated / 1e6)}


def main() -> None:
    torch.set_num_threads(1)
    chain = layer_of_smollm2()
    inputs = inputs_of(chain)
    for name, row in (("memory", memory), ("mlp", mlp), ("attention", attention)):
        print(json.dumps({name: row(chain, inputs)}), flush=True)


if __name__ == "__main__":
    main()
