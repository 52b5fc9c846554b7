"""What loading knows of each kind of network: how its files are read, how large it is, its sites.

`KINDS` has a row for every `model_type` that may stand in a config.json; `kind_of` finds it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import AutoModel, AutoModelForCausalLM

from edgesweep.engine.graph import GraphSpec
from edgesweep.engine.model.errors import ModelError
from edgesweep.engine.model.placement import Part
from edgesweep.engine.network.architectures import ARCHITECTURES
from edgesweep.engine.network.base import Network, Sites
from edgesweep.engine.network.feedforward import FeedForward, FeedForwardSites
from edgesweep.engine.network.transformer import Model, graph_spec, mlp_width, transformer_sites


@dataclass(frozen=True)
class ModelSizes:
    """What the memory and pass estimates need; `n_params` counts numbers, not bytes.

    A network without attention has no heads; its last layer but one stands for `d_model`, and its
    outputs for `n_vocab`.
    """

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    n_vocab: int
    n_params: int


class Kind(Protocol):
    """A kind of network; every method is of a configuration.

    Attributes:
        auto: what of transformers reads its folder.
    """

    auto: Any

    def how(self, config: Any) -> Mapping[str, Any]:
        """What else it is read with."""

    def spec(self, config: Any) -> GraphSpec:
        """Its graph over heads. Raises ModelError where it has none."""

    def sites(self, config: Any) -> Sites:
        """Its sites."""

    def sizes(self, config: Any) -> ModelSizes:
        """Its sizes."""

    def shape(self, config: Any) -> tuple[int, ...] | None:
        """Of the arrays that it reads; None: it reads tokens."""

    def parts(self, config: Any) -> list[Part]:
        """In forward order, what may lie on devices of its own."""

    def network(self, hf: Any, name: str, tokenizer: Any) -> Network:
        """The loaded weights as a network."""


class TransformerKind:
    """Causal language models."""

    auto = AutoModelForCausalLM

    def how(self, config: Any) -> Mapping[str, Any]:
        return {"attn_implementation": ARCHITECTURES[config.model_type].attention_kind}

    def spec(self, config: Any) -> GraphSpec:
        return graph_spec(config)

    def sites(self, config: Any) -> Sites:
        return transformer_sites(config)

    def sizes(self, config: Any) -> ModelSizes:
        heads = config.num_attention_heads
        return ModelSizes(
            n_layers=config.num_hidden_layers,
            d_model=config.hidden_size,
            n_heads=heads,
            n_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            d_head=getattr(config, "head_dim", None) or config.hidden_size // heads,
            d_mlp=mlp_width(config),
            n_vocab=config.vocab_size,
            n_params=count_parameters(self.auto, config),
        )

    def shape(self, config: Any) -> tuple[int, ...] | None:
        return None

    def parts(self, config: Any) -> list[Part]:
        """What embeds, each layer, what unembeds; the first and the last are one where they share
        their weights."""
        arch = ARCHITECTURES[config.model_type]
        hf = skeleton_of(self.auto, config)
        stack, unembed = hf.get_submodule(arch.stack), hf.get_output_embeddings()
        layers = [
            Part(f"layer {i}", (f"{arch.stack}.{arch.layers}.{i}",), _count(layer))
            for i, layer in enumerate(getattr(stack, arch.layers))
        ]
        norm = stack.get_submodule(arch.final_norm)
        rest = _count(hf) - sum(part.n_params for part in layers)
        if unembed.weight is hf.get_input_embeddings().weight:
            return [Part("embed (and unembed)", ("",), rest), *layers]
        (name,) = (name for name, module in hf.named_modules() if module is unembed)
        last = _count(norm) + _count(unembed)
        unembeds = Part("unembed", (f"{arch.stack}.{arch.final_norm}", name), last)
        return [Part("embed", ("",), rest - last), *layers, unembeds]

    def network(self, hf: Any, name: str, tokenizer: Any) -> Network:
        return Model(hf, name, tokenizer)


class FeedForwardKind:
    """MLPs and small convolutional networks."""

    auto = AutoModel

    def how(self, config: Any) -> Mapping[str, Any]:
        return {}

    def spec(self, config: Any) -> GraphSpec:
        raise ModelError("it has no attention heads; use nodes 'features'")

    def sites(self, config: Any) -> Sites:
        return FeedForwardSites(config.widths())

    def sizes(self, config: Any) -> ModelSizes:
        widths = list(config.widths().values())
        return ModelSizes(
            n_layers=config.num_hidden_layers,
            d_model=widths[-1],
            n_heads=0,
            n_kv_heads=0,
            d_head=0,
            d_mlp=max(widths),
            n_vocab=config.n_output,
            n_params=count_parameters(self.auto, config),
        )

    def shape(self, config: Any) -> tuple[int, ...] | None:
        return tuple(config.input_shape)

    def parts(self, config: Any) -> list[Part]:
        return [Part("the network", ("",), count_parameters(self.auto, config))]

    def network(self, hf: Any, name: str, tokenizer: Any) -> Network:
        return FeedForward(hf, name)


def count_parameters(auto: Any, config: Any) -> int:
    """Of the network that a configuration describes."""
    return _count(skeleton_of(auto, config))


def skeleton_of(auto: Any, config: Any) -> Any:
    """The network that a configuration describes, without its numbers."""
    with torch.device("meta"):
        return auto.from_config(config, trust_remote_code=False)


def _count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


#: config.model_type -> its kind
KINDS: dict[str, Kind] = {
    **dict.fromkeys(ARCHITECTURES, TransformerKind()),
    "feedforward": FeedForwardKind(),
}


def kind_of(config: Any) -> Kind:
    """Raises ModelError for a model type that is not supported."""
    if config.model_type not in KINDS:
        allowed = ", ".join(sorted(KINDS))
        raise ModelError(f"model_type {config.model_type!r} is not supported; one of {allowed}")
    return KINDS[config.model_type]
