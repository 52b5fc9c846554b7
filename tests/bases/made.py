"""Tiny networks in float64, and what the tests of bases make of them."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoConfig, GPTNeoXConfig
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaMLP

from edgesweep.engine.bases.chain import Chain, Piece, Section
from edgesweep.engine.bases.closed.modules import form_of_mlp
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.interactions import Interactions, interaction_sums
from edgesweep.engine.bases.jacobians import (
    Batch,
    exact_sums,
    folded_tail,
    jacobian_sums,
    one_by_one,
)
from edgesweep.engine.bases.moments import Moments, Sums, fold
from edgesweep.engine.bases.rotation import Basis, Cut, identity, interaction_basis, pca
from edgesweep.engine.network import Model
from edgesweep.engine.network.architectures import ARCHITECTURES
from edgesweep.engine.network.base import Inputs, Value
from edgesweep.engine.network.feedforward import FeedForward
from edgesweep.engine.network.feedforward_net import FeedForwardConfig, FeedForwardNet
from edgesweep.engine.network.plain import PlainConfig, PlainForCausalLM

GRADIENT = [(1.0, 1.0)]
CUT = Cut(1e-12, 1e-12)


def mlp(hidden: tuple[int, ...] = (6, 5), activation: str = "relu", seed: int = 0) -> Chain:
    return chain_of(feedforward(hidden, activation, seed))


def feedforward(
    hidden: tuple[int, ...] = (6, 5), activation: str = "relu", seed: int = 0
) -> FeedForward:
    torch.manual_seed(seed)
    config = FeedForwardConfig(input_shape=(5,), hidden=hidden, n_output=4, activation=activation)
    return FeedForward(FeedForwardNet(config).double(), "mlp")


def halves() -> tuple[Chain, Inputs]:
    """An MLP of two networks that have nothing to do with each other, inputs 3 and 2, hidden 3 and
    3, then 2 and 2, and outputs 2 and 2, on all pairs of some of their inputs."""
    chain = mlp((6, 4))
    first, second, last = chain.hf.hidden[0].map, chain.hf.hidden[1].map, chain.hf.output
    with torch.no_grad():
        first.weight[:3, 3:], first.weight[3:, :3] = 0.0, 0.0
        second.weight[:2, 3:], second.weight[2:, :3] = 0.0, 0.0
        last.weight[:2, 2:], last.weight[2:, :2] = 0.0, 0.0
    one, other = arrays(12, 3), arrays(12, 2)
    grid = torch.cat([one.repeat_interleave(12, 0), other.repeat(12, 1)], 1)
    return chain, prepared(chain, grid)


def transformer(seed: int = 0, **changes) -> Chain:
    """A plain transformer of one layer whose biases are not zero."""
    return chain_of(plain(seed, **changes))


def plain(seed: int = 0, **changes) -> Model:
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 9,
        "hidden_size": 6,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 3,
        "intermediate_size": 8,
        "max_position_embeddings": 4,
        "output_bias": True,
    }
    hf = PlainForCausalLM(PlainConfig(**{**sizes, **changes})).double()
    for parameter in hf.parameters():
        nn.init.normal_(parameter, std=0.5)
    return Model(hf, "plain")


def gated(seed: int = 0) -> Chain:
    """A Llama's MLP beside its stream, with biases and no norm before it, and a map after it."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 6, "intermediate_size": 7, "num_attention_heads": 1}
    config = LlamaConfig(**sizes, mlp_bias=True)
    hf = nn.ModuleList([LlamaMLP(config), nn.Linear(6, 4)]).double().requires_grad_(False)
    for parameter in hf.parameters():
        nn.init.normal_(parameter, std=0.5)
    mlp, output = hf
    pieces = (
        Piece("resid0", 6, lambda f, inputs, rows: f + mlp(f), form=form_of_mlp(mlp)),
        Piece("logits", 4, lambda f, inputs, rows: output(f)),
    )

    def prepare(given: Tensor, real: Tensor) -> Inputs:
        return Inputs(given[:, None], (), torch.zeros(len(given), dtype=torch.long), real)

    return Chain(hf, prepare, "mid0", 6, pieces)


LANGUAGE = {
    "gpt2": lambda: GPT2Config(
        n_embd=4, n_layer=1, n_head=2, n_inner=6, vocab_size=9, n_positions=6,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ),
    "gpt_neo": lambda: GPTNeoConfig(
        hidden_size=4, num_layers=1, num_heads=2, intermediate_size=6, vocab_size=9,
        max_position_embeddings=4, window_size=2, attention_types=[[["local"], 1]],
        resid_dropout=0.0, embed_dropout=0.0, attention_dropout=0.0,
    ),
    "gpt_neox": lambda: GPTNeoXConfig(
        hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=1,
        vocab_size=9, max_position_embeddings=4, rotary_pct=0.5,
    ),
    "llama": lambda: LlamaConfig(
        hidden_size=4, intermediate_size=5, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=2, vocab_size=9, attention_bias=True, mlp_bias=True,
    ),
}  # fmt: skip


@lru_cache
def language(family: str) -> Model:
    """A language model of one layer, nothing in which is zero."""
    torch.manual_seed(0)
    kind = ARCHITECTURES[family].attention_kind
    hf = AutoModelForCausalLM.from_config(LANGUAGE[family](), attn_implementation=kind).double()
    for parameter in hf.parameters():
        nn.init.normal_(parameter, std=0.5)
    return Model(hf, family)


def arrays(n: int = 12, width: int = 5) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def tokens(n: int = 12, length: int = 3) -> Tensor:
    return torch.randint(9, (n, length), generator=torch.Generator().manual_seed(2))


def prepared(chain: Chain, given: Tensor) -> Inputs:
    positions = 1 if given.is_floating_point() else given.shape[1]
    return chain.prepare(given, torch.ones(len(given), positions, dtype=torch.bool))


def value_at(chain: Chain, name: str, inputs: Inputs) -> Value:
    first = chain.start(inputs)
    return first if name == chain.first else chain.section(chain.first, name)(first, inputs)


def moments_at(chain: Chain, name: str, inputs: Inputs) -> Moments:
    return Moments.of(value_at(chain, name, inputs).flatten(0, 1))


def bases(
    chain: Chain,
    inputs: Inputs,
    kind: str = "lib",
    cut: Cut = CUT,
    closed: bool = True,
    isolate: bool = False,
) -> dict[str, Basis]:
    """Of all layers; `closed`: by closed forms where there are some."""
    names = list(chain.widths)
    found = {names[-1]: identity(chain.widths[names[-1]])}
    for name, following in reversed(list(pairwise(names))):
        moments = moments_at(chain, name, inputs)
        apart = 0 if isolate and name in chain.variances else None
        if kind == "pca":
            found[name] = pca(moments, cut, apart)
            continue
        end = names[-1] if kind == "gib" else following
        section = chain.section(name, end)
        sums = second_moments(section, inputs, found[end], moments, closed)
        constant = float(sums.mean("constant")) + float(found[end].constant)
        found[name] = interaction_basis(moments, sums.mean("jacobian"), constant, cut, apart)
    return found


def second_moments(
    section: Section, inputs: Inputs, end: Basis, moments: Moments, closed: bool = True
) -> Sums:
    """M′ and Λ_0, of one vector."""
    f = value_at(section.chain, section.start, inputs)
    tail = folded_tail(section, end)
    if closed and tail.form is not None:
        data = Sums(f.flatten(0, 1).shape[0], tail.form.statistics(f.flatten(0, 1)))
        q = tail.outlet.encode @ tail.outlet.encode.T
        constant = tail.form.constant(tail.outlet, moments.mean, data)
        return Sums(
            1,
            {
                "jacobian": tail.form.pulled(q, data),
                "constant": torch.tensor(constant, dtype=torch.float64),
            },
        )
    batch = Batch.of(tail.section, f, inputs)
    if closed:
        sums = exact_sums(tail.section, batch, tail.outlet, moments.mean)
    else:
        weights = one_by_one(batch, tail.outlet.encode.shape[1])
        sums = jacobian_sums(tail.section, batch, tail.outlet, moments.mean, weights)
    return Sums(1, {name: sums.mean(name) for name in sums.sums})


def interactions(
    chain: Chain, inputs: Inputs, found: dict[str, Basis], start: str, nodes=GRADIENT
) -> Interactions:
    names = list(chain.widths)
    end = names[names.index(start) + 1]
    section = chain.section(start, end)
    batch = Batch.of(section, value_at(chain, start, inputs), inputs)
    return Interactions.of(
        fold([interaction_sums(section, batch, (found[start], found[end]), nodes)])
    )


def from_cut(chain: Chain, name: str) -> Chain:
    """What lies after a cut, as a chain of its own."""
    place = list(chain.widths).index(name)
    return Chain(chain.hf, chain.prepare, name, chain.widths[name], chain.pieces[place:])


def at_cut(chain: Chain, name: str, inputs: Inputs) -> Inputs:
    """Inputs to a chain that begins at a cut which is read at one position."""
    value = value_at(chain, name, inputs)
    read = torch.zeros(len(value), dtype=torch.long)
    return Inputs(value, (), read, inputs.real[:, :1])
