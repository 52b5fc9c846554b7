"""Models wired by hand, whose true edges are known by construction.

Three layers of four heads without norms (`plain`), 262 edges. The stream is cut into blocks of
coordinates, and what a node reads and writes is set block by block:

    tok   one-hot token          written by embed
    pos   one-hot position       written by embed
    prev  the token before       written by a previous-token head
    out   one number a token     read by the logits, and by nothing else
    sign  ±1                     written by a decoy
    junk  anything               written by every idle node, read by idle nodes only

Idle nodes have random weights: they read the whole stream, differ between any two prompts, and
write to junk. Nothing on a way to the logits reads junk, so every edge from or to an idle node has
the effect zero, exactly; one head has no weights at all. Edges between working nodes have it where
the one does not write what the other reads.

`wired-copy`: the token before the last.
    embed->a0.kv1.v   the token that a0.h1 takes from the position before (0.8 of its attention)
    a0.h1->m1         written to prev, which m1 thresholds and hands on to out
    m1->logits        read as the answer's logit
    embed->a1.kv2.v   a1.h2 takes the same token by itself
    a1.h2->logits     and writes it to out
`wired-induction`: A B … A -> B.
    embed->a0.kv1.v   the token before each position, by the previous-token head a0.h1
    a0.h1->a1.kv2.k   what the induction head a1.h2 looks up: B's position holds "after A" in prev
    embed->a1.h2.q    what it looks for: the last token, A
    embed->a1.kv2.v   what it takes from there: the token B
    a1.h2->logits     written to out
    Under the patch, A' and B' stand in the places of A and B.
`wired-decoy`: induction, and three decoys that move with the prompt and cause nothing.
    a1.h0             finds and copies the answer as a1.h2 does, into junk
    a2.h1             adds as much to every logit, depending on the tokens: differences and
                      probabilities stay
    a0.h3, m1         a0.h3 writes the sign of its own token; m1 reads it as relu(s) + relu(−s),
                      1 whichever the token, and writes that to out, in favour of the even tokens.
                      The slope of the two is ±1: a gradient at either end sees an effect where
                      exchanging the values has none
    B is even and B' odd, so that this slope has one direction on all prompts.

In all three the queries and keys of heads that look by position are the same in clean and patch,
so `embed->a0.h1.q` and the like have no effect. All this holds for patches that are runs
(counterfactual, resample). Pinned by tests/model/test_wired.py, edge by edge.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.graph.known import KnownCircuit
from edgesweep.engine.model.own import OwnPrompt, write_folder
from edgesweep.engine.network.plain import PlainAttention, PlainConfig, PlainForCausalLM, PlainMLP

N_TOKENS = 17  # the first is the start of every prompt
N_POSITIONS = 12
N_JUNK = 16
N_PROMPTS = 256
START = 0

_WIDTHS = {
    "tok": N_TOKENS,
    "pos": N_POSITIONS,
    "prev": N_TOKENS,
    "out": N_TOKENS,
    "sign": 1,
    "junk": N_JUNK,
}
#: the largest of what a head compares
_D_HEAD = N_TOKENS

Map = tuple[str, Float[Tensor, "_ _"]]


def _block(name: str) -> slice:
    names = list(_WIDTHS)
    start = sum(_WIDTHS[n] for n in names[: names.index(name)])
    return slice(start, start + _WIDTHS[name])


# --- wiring ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Head:
    """A head's maps: from a block to query, key and value, and from value to a block."""

    query: Map
    key: Map
    value: Map
    out: Map


class _Wiring:
    """A model with embeddings, unembedding and idle nodes, to be given working ones.

    Args:
        seed: of the idle nodes' weights.
    """

    def __init__(self, seed: int) -> None:
        config = PlainConfig(
            vocab_size=N_TOKENS,
            hidden_size=sum(_WIDTHS.values()),
            num_hidden_layers=3,
            num_attention_heads=4,
            head_dim=_D_HEAD,
            intermediate_size=32,
            max_position_embeddings=N_POSITIONS,
        )
        self.hf = PlainForCausalLM(config).eval().requires_grad_(False)
        self._idle(torch.Generator().manual_seed(seed))
        model = self.hf.model
        for table, name in ((model.embed_tokens, "tok"), (model.embed_positions, "pos")):
            table.weight.zero_()
            table.weight[:, _block(name)] = torch.eye(_WIDTHS[name])
        self.hf.lm_head.weight.zero_()
        self.hf.lm_head.weight[:, _block("out")] = torch.eye(N_TOKENS)
        self.blank(2, 3)

    def _idle(self, draw: torch.Generator) -> None:
        """Random weights everywhere, of which only what writes to junk stays."""
        for weight in self.hf.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * weight.shape[-1] ** -0.5)
        for layer in range(self.hf.config.num_hidden_layers):
            for writes in (self._attention(layer).o_proj, self._mlp(layer).down_proj):
                writes.weight[: _block("junk").start] = 0
                writes.bias[: _block("junk").start] = 0

    def blank(self, layer: int, head: int) -> None:
        """Take a head's weights away."""
        attention, span = self._attention(layer), _span(head)
        for reads in (attention.q_proj, attention.k_proj, attention.v_proj):
            reads.weight[span] = 0
            reads.bias[span] = 0
        attention.o_proj.weight[:, span] = 0

    def head(self, layer: int, head: int, maps: _Head) -> None:
        """Make a head a working one."""
        self.blank(layer, head)
        attention, start = self._attention(layer), _span(head).start
        reads = (attention.q_proj, maps.query), (attention.k_proj, maps.key)
        for module, (block, matrix) in (*reads, (attention.v_proj, maps.value)):
            module.weight[start : start + len(matrix), _block(block)] = matrix
        block, matrix = maps.out
        attention.o_proj.weight[_block(block), start : start + matrix.shape[1]] = matrix

    def neurons(
        self, layer: int, read: Map, threshold: float, write: Float[Tensor, "d_out n"]
    ) -> None:
        """Make the first neurons of an MLP write `write` relu(read − threshold) to out."""
        mlp, (block, matrix) = self._mlp(layer), read
        n = len(matrix)
        mlp.up_proj.weight[:n] = 0
        mlp.up_proj.weight[:n, _block(block)] = matrix
        mlp.up_proj.bias[:n] = -threshold
        mlp.down_proj.weight[:, :n] = 0
        mlp.down_proj.weight[_block("out"), :n] = write

    def _attention(self, layer: int) -> PlainAttention:
        module = self.hf.model.layers[layer].self_attn
        assert isinstance(module, PlainAttention)
        return module

    def _mlp(self, layer: int) -> PlainMLP:
        module = self.hf.model.layers[layer].mlp
        assert isinstance(module, PlainMLP)
        return module


def _span(head: int) -> slice:
    return slice(head * _D_HEAD, (head + 1) * _D_HEAD)


def _sharp(matrix: Tensor, gain: float) -> Tensor:
    """A query map whose match scores `gain` after the scale 1/√d_head."""
    return matrix * gain * _D_HEAD**0.5


def _tokens(scale: float = 1.0) -> Float[Tensor, "tokens tokens"]:
    return torch.eye(N_TOKENS) * scale


def _previous(gain: float, out: Map) -> _Head:
    """Looks one position back and takes the token from there."""
    here = torch.eye(N_POSITIONS)
    return _Head(
        query=("pos", _sharp(here, gain)),
        key=("pos", here.roll(1, dims=0)),  # position j is looked for from j + 1
        value=("tok", _tokens()),
        out=out,
    )


def _induction(out: Map) -> _Head:
    """Looks for a position after the last token's like, and takes the token from there."""
    return _Head(
        query=("tok", _sharp(_tokens(), 5.0)),
        key=("prev", _tokens()),
        value=("tok", _tokens()),
        out=out,
    )


def _signs() -> Float[Tensor, "1 tokens"]:
    """+1 for even tokens, −1 for odd ones."""
    return (1.0 - 2.0 * (torch.arange(N_TOKENS) % 2))[None]


def _wire_copy(wiring: _Wiring) -> None:
    wiring.head(0, 1, _previous(4.0, ("prev", _tokens())))
    wiring.neurons(1, ("prev", _tokens()), 0.2, _tokens(3.0))
    wiring.head(1, 2, _previous(3.0, ("out", _tokens(2.0))))


def _wire_induction(wiring: _Wiring) -> None:
    wiring.head(0, 1, _previous(4.0, ("prev", _tokens())))
    wiring.head(1, 2, _induction(("out", _tokens(6.0))))


def _wire_decoy(wiring: _Wiring) -> None:
    _wire_induction(wiring)
    draw = torch.Generator().manual_seed(5)
    wiring.head(1, 0, _induction(("junk", torch.randn(N_JUNK, N_TOKENS, generator=draw))))
    anywhere = torch.zeros(1, N_TOKENS)
    amount = torch.linspace(-1, 1, N_TOKENS)[None]
    everywhere = torch.full((N_TOKENS, 1), 2.0)
    shift = _Head(("tok", anywhere), ("tok", anywhere), ("tok", amount), ("out", everywhere))
    wiring.head(2, 1, shift)
    itself = torch.eye(N_POSITIONS)
    look = ("pos", _sharp(itself, 60.0))  # so sharp that nothing of other positions is left
    wiring.head(0, 3, _Head(look, ("pos", itself), ("tok", _signs()), ("sign", torch.ones(1, 1))))
    both = torch.tensor([[1.0], [-1.0]])
    wiring.neurons(1, ("sign", both), 0.0, _signs().T.expand(-1, 2))


# --- prompts ---------------------------------------------------------------------------------


def _copy_prompt(draw: random.Random, number: int) -> OwnPrompt:
    """Tokens drawn without return; the patch has another token before the last."""
    length = (7, 8, 9, 10, 11, 12)[number % 6]
    tokens = draw.sample(range(1, N_TOKENS), length)
    clean = (START, *tokens[: length - 1])
    patch = (*clean[:-2], tokens[-1], clean[-1])
    labels = {"copied": length - 2, "end": length - 1}
    return OwnPrompt(clean, patch, (clean[-2],), (patch[-2],), f"length{length}", labels)


def _induction_prompt(draw: random.Random, number: int) -> OwnPrompt:
    """… A B … A; the patch has A' and B' in their places, of the other parities; B is even."""
    length, first = (7, 9, 11)[number % 3], (1, 3)[number // 3 % 2]
    even = draw.sample(range(2, N_TOKENS, 2), 2)
    odd = draw.sample(range(1, N_TOKENS, 2), 2)
    b, other_b = even.pop(), odd.pop()
    a, other_a = draw.sample([even.pop(), odd.pop()], 2)
    rest = [token for token in range(1, N_TOKENS) if token not in {a, b, other_a, other_b}]
    middle = draw.sample(rest, length - 4)
    before, after = middle[: first - 1], middle[first - 1 :]

    def prompt(x: int, y: int) -> tuple[int, ...]:
        return (START, *before, x, y, *after, x)

    labels = {"A": first, "B": first + 1, "end": length - 1}
    template = f"length{length}-first{first}"
    return OwnPrompt(prompt(a, b), prompt(other_a, other_b), (b,), (other_b,), template, labels)


# --- the catalogue ---------------------------------------------------------------------------


@dataclass(frozen=True)
class WiredModel:
    """A model of this file.

    Attributes:
        description: for `edgesweep list models`.
        seed: of idle weights and prompts.
        edges: the true ones; the module's docstring has their reasons.
    """

    description: str
    seed: int
    wire: Callable[[_Wiring], None]
    prompt: Callable[[random.Random, int], OwnPrompt]
    edges: tuple[str, ...]

    def write(self, name: str, folder: Path) -> None:
        """Write weights, prompts (no clean prompt twice) and circuit."""
        wiring, draw = _Wiring(self.seed), random.Random(self.seed)
        self.wire(wiring)
        prompts: dict[tuple[int, ...], OwnPrompt] = {}
        while len(prompts) < N_PROMPTS:
            prompt = self.prompt(draw, len(prompts))
            prompts.setdefault(prompt.clean, prompt)
        circuit = KnownCircuit.of_edges(name, "wired by hand (engine/model/wired.py)", self.edges)
        write_folder(folder, wiring.hf, list(prompts.values()), circuit)


_INDUCTION_EDGES = (
    "embed->a0.kv1.v",
    "a0.h1->a1.kv2.k",
    "embed->a1.h2.q",
    "embed->a1.kv2.v",
    "a1.h2->logits",
)

WIRED: dict[str, WiredModel] = {
    "wired-induction": WiredModel(
        "wired by hand: a previous-token head feeds an induction head; 5 true edges of 262",
        1,
        _wire_induction,
        _induction_prompt,
        _INDUCTION_EDGES,
    ),
    "wired-copy": WiredModel(
        "wired by hand: copies the token before the last, on two ways; 5 true edges of 262",
        2,
        _wire_copy,
        _copy_prompt,
        (
            "embed->a0.kv1.v",
            "a0.h1->m1",
            "m1->logits",
            "embed->a1.kv2.v",
            "a1.h2->logits",
        ),
    ),
    "wired-decoy": WiredModel(
        "wired by hand: induction, and decoys that move with the prompt and cause nothing",
        3,
        _wire_decoy,
        _induction_prompt,
        _INDUCTION_EDGES,
    ),
}
