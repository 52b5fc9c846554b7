"""The table of architectures: where every node of a transformer reads and writes.

One row a family, and no other file knows a family's module names. A row names the modules; the two
projection layouts below say how queries, keys and values come out of them. Everything else (rotary
positions, masks, query/key norms, soft-capping, sliding windows) stays inside the family's own
attention module, which `AttentionCore` runs with its projections fed from outside.
"""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

Heads = Float[Tensor, "*rows heads d_head"]
KeyValues = Float[Tensor, "*rows kv_heads d_head"]


class Projection(Protocol):
    """How one family lays out its query, key and value projections."""

    def modules(self) -> tuple[str, ...]:
        """Names of the projection modules inside the attention module."""

    def split(
        self, outputs: list[Tensor], heads: int, kv_heads: int
    ) -> tuple[Heads, KeyValues, KeyValues]:
        """Queries `[..., heads, d_head]`, keys and values `[..., kv_heads, d_head]`."""

    def join(self, query: Heads, key: KeyValues, value: KeyValues) -> list[Tensor]:
        """The inverse of `split`: what each projection module would have put out."""


@dataclass(frozen=True)
class Separate:
    """Three modules, heads one after the other (Llama and its relatives)."""

    query: str = "q_proj"
    key: str = "k_proj"
    value: str = "v_proj"

    def modules(self) -> tuple[str, ...]:
        return self.query, self.key, self.value

    def split(
        self, outputs: list[Tensor], heads: int, kv_heads: int
    ) -> tuple[Heads, KeyValues, KeyValues]:
        counts = (heads, kv_heads, kv_heads)
        query, key, value = (
            out.unflatten(-1, (n, -1)) for out, n in zip(outputs, counts, strict=True)
        )
        return query, key, value

    def join(self, query: Heads, key: KeyValues, value: KeyValues) -> list[Tensor]:
        return [query.flatten(-2), key.flatten(-2), value.flatten(-2)]


@dataclass(frozen=True)
class Fused:
    """One module: all queries, all keys, all values (GPT-2), or per head in turn (GPT-NeoX)."""

    module: str
    per_head: bool

    def modules(self) -> tuple[str, ...]:
        return (self.module,)

    def split(
        self, outputs: list[Tensor], heads: int, kv_heads: int
    ) -> tuple[Heads, KeyValues, KeyValues]:
        shape = (heads, 3, -1) if self.per_head else (3, heads, -1)
        query, key, value = outputs[0].unflatten(-1, shape).unbind(-2 if self.per_head else -3)
        return query, key, value

    def join(self, query: Heads, key: KeyValues, value: KeyValues) -> list[Tensor]:
        dim = -2 if self.per_head else -3
        return [torch.stack((query, key, value), dim=dim).flatten(-3)]


@dataclass(frozen=True)
class Architecture:
    """Module names of one family; paths are relative to the causal language model.

    Attributes:
        stack: the module that embeds tokens and runs the layers.
        layers, final_norm: inside the stack.
        attention, norm_attention, mlp, norm_mlp: inside a layer; each norm feeds its module.
        post_attention, post_mlp: norms after the module, before the residual stream (Gemma).
        projection: the layout of queries, keys and values; `output` maps heads to the stream,
            `mlp_output`, inside the MLP, its neurons.
        activation, gated: inside the MLP: its activation, and the module that reads the product of
            gate and input; None where there is no gate.
        unit_offset: the RMS norms multiply by 1 + weight.
        attention_kind: the attention kernel to ask for; soft-capping needs "eager".
        gives_tuple: layers give a tuple, the stream first.
    """

    stack: str = "model"
    layers: str = "layers"
    final_norm: str = "norm"
    attention: str = "self_attn"
    projection: Projection = Separate()
    output: str = "o_proj"
    mlp: str = "mlp"
    mlp_output: str = "down_proj"
    activation: str = "act_fn"
    gated: str | None = "down_proj"
    norm_attention: str = "input_layernorm"
    norm_mlp: str = "post_attention_layernorm"
    post_attention: str | None = None
    post_mlp: str | None = None
    unit_offset: bool = False
    attention_kind: str = "sdpa"
    gives_tuple: bool = False


_LLAMA = Architecture()
_GEMMA = Architecture(
    norm_mlp="pre_feedforward_layernorm",
    post_attention="post_attention_layernorm",
    post_mlp="post_feedforward_layernorm",
    unit_offset=True,
    attention_kind="eager",
)

_GPT2 = Architecture(
    stack="transformer",
    layers="h",
    final_norm="ln_f",
    attention="attn",
    projection=Fused("c_attn", per_head=False),
    output="c_proj",
    mlp_output="c_proj",
    activation="act",
    gated=None,
    norm_attention="ln_1",
    norm_mlp="ln_2",
)

#: config.model_type -> row
ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": _GPT2,
    "gpt_neo": replace(
        _GPT2,
        attention="attn.attention",
        projection=Separate(),
        output="out_proj",
        attention_kind="eager",
        gives_tuple=True,
    ),
    "gpt_neox": Architecture(
        stack="gpt_neox",
        final_norm="final_layer_norm",
        attention="attention",
        projection=Fused("query_key_value", per_head=True),
        output="dense",
        mlp_output="dense_4h_to_h",
        activation="act",
        gated=None,
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "plain": Architecture(activation="act", gated=None),
}


#: inside attention, of families that norm queries and keys
INNER_NORMS = ("q_norm", "k_norm")


class Feed(nn.Module):
    """Stands in for a projection and puts out what it was given, whatever it is called with."""

    value: Tensor

    def forward(self, _: Tensor) -> Tensor:
        return self.value


class AttentionCore:
    """A family's own attention with queries, keys and values given: `(q, k, v) -> z`.

    It is a shallow copy of the attention module (weights shared) whose projections are `Feed`s and
    whose output map is the identity, so scores, masks, positions and soft-capping are the family's.
    """

    def __init__(self, attention: nn.Module, arch: Architecture) -> None:
        self._projection = arch.projection
        self._feeds = [Feed() for _ in arch.projection.modules()]
        core = copy.copy(attention)
        core._modules = dict(attention._modules)
        for name, feed in zip(arch.projection.modules(), self._feeds, strict=True):
            setattr(core, name, feed)
        setattr(core, arch.output, nn.Identity())
        self._core = core

    def replaced(self, modules: Mapping[str, nn.Module]) -> "AttentionCore":
        """The same with other modules under these names."""
        found = copy.copy(self)
        found._core = copy.copy(self._core)
        found._core._modules = self._core._modules | dict(modules)
        return found

    def inner_norms(self) -> dict[str, nn.Module]:
        """The norms of queries and keys, where the family has them."""
        return {n: m for n in INNER_NORMS if isinstance(m := self._core._modules.get(n), nn.Module)}

    def __call__(
        self, query: Heads, key: KeyValues, value: KeyValues, context: dict[str, Any]
    ) -> Heads:
        """z `[rows, positions, n_heads, d_head]`: each head's output before W_O."""
        joined = self._projection.join(query, key, value)
        for feed, tensor in zip(self._feeds, joined, strict=True):
            feed.value = tensor
        z = self._core(joined[0], **context)[0]
        for feed in self._feeds:
            del feed.value
        return z.unflatten(-1, (query.shape[-2], -1))


class LayerRecorder(nn.Module):
    """Stands in for a layer: notes what the stack calls it with and passes the stream through."""

    #: what attention modules take from their layer; caches and the like are not ours.
    WANTED = ("attention_mask", "position_embeddings", "position_ids")

    def __init__(self, layer: nn.Module, gives_tuple: bool) -> None:
        super().__init__()
        self._signature, self._gives_tuple = inspect.signature(layer.forward), gives_tuple
        self.hidden: Tensor
        self.context: dict[str, Any] = {}

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor]:
        given = self._signature.bind(hidden, *args, **kwargs).arguments
        given |= given.pop("kwargs", {})
        self.hidden = hidden
        self.context = {name: given[name] for name in self.WANTED if name in given}
        return (hidden,) if self._gives_tuple else hidden


def skeleton(stack: nn.Module, arch: Architecture) -> tuple[nn.Module, list[LayerRecorder]]:
    """The stack without its layers: embeds tokens, makes masks and positions, and records them."""
    recorders = [LayerRecorder(layer, arch.gives_tuple) for layer in getattr(stack, arch.layers)]
    shell = copy.copy(stack)
    shell._modules = dict(stack._modules)
    setattr(shell, arch.layers, nn.ModuleList(recorders))
    setattr(shell, arch.final_norm, nn.Identity())
    return shell, recorders
