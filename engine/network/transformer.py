"""A causal language model, taken apart into the nodes and ports of its graph.

`Model.prepare` asks the model's own stack for embeddings, masks and positions; `Model.run` is the
plain forward over our layers, keeping what every node wrote; both are pinned to the model's own
forward and to nnsight's values by tests/model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from edgesweep.engine.graph import EdgeGraph, GraphSpec
from edgesweep.engine.network.architectures import ARCHITECTURES, Heads, LayerRecorder, skeleton
from edgesweep.engine.network.layers import Layer, Stream, norm_of

Logits = Float[Tensor, "inputs vocab"]


@dataclass(frozen=True)
class Inputs:
    """A batch, ready for the layers.

    Attributes:
        embed: `[inputs, positions, d_model]`, the value of node `embed`.
        contexts: per layer, the keyword arguments its attention takes (mask, positions).
        read: position of each input whose logits the metric reads.
        real: `[inputs, positions]`, False at padding.
    """

    embed: Stream
    contexts: Sequence[dict[str, Any]]
    read: Int[Tensor, " inputs"]
    real: Bool[Tensor, "inputs positions"]

    def context(self, layer: int, rows: Int[Tensor, " rows"] | None = None) -> dict[str, Any]:
        """The attention arguments of a layer, for the given inputs in the given order."""
        context = self.contexts[layer]
        if rows is None:
            return context
        return {name: _take(value, rows) for name, value in context.items()}

    def at_read(self, stream: Float[Tensor, "*lead inputs positions d"]) -> Tensor:
        """The stream at each input's read position: `[*lead, inputs, d]`."""
        return stream[..., torch.arange(len(self.read), device=stream.device), self.read, :]


def _take(value: Any, rows: Tensor) -> Any:
    if isinstance(value, tuple):
        return tuple(_take(v, rows) for v in value)
    if isinstance(value, Tensor) and value.shape[0] > 1:
        return value.index_select(0, rows)
    return value


@dataclass
class Run:
    """What one forward computed. Every list has one entry a layer.

    `z` (heads before W_O), `scales` (post-norm scale of the heads, or None), `attention` and `mlps`
    (what the blocks added to the stream) are always kept; `ports` and `streams` only on request:
    queries, keys, values; the stream before attention; the stream read by the MLP.
    """

    embed: Stream
    z: list[Heads] = field(default_factory=list)
    scales: list[Stream | None] = field(default_factory=list)
    attention: list[Stream] = field(default_factory=list)
    mlps: list[Stream] = field(default_factory=list)
    ports: list[tuple[Heads, Heads, Heads]] = field(default_factory=list)
    streams: list[tuple[Stream, Stream]] = field(default_factory=list)
    final: Stream | None = None
    logits: Logits | None = None


class Model:
    """A Hugging Face causal language model with its graph.

    Args:
        hf: the model; its weights are frozen here.
        name: how the user named it.
        tokenizer: its tokenizer, or None for tasks given as token ids.

    Raises:
        KeyError: the architecture has no row in `ARCHITECTURES`.
    """

    def __init__(self, hf: nn.Module, name: str, tokenizer: Any = None) -> None:
        config: Any = hf.config
        arch = ARCHITECTURES[config.model_type]
        self.hf = hf.eval().requires_grad_(False)
        self.name = name
        self.tokenizer = tokenizer
        self.spec = graph_spec(config)
        self.graph = EdgeGraph(self.spec)
        stack = hf.get_submodule(arch.stack)
        self.layers = [Layer(m, arch, self.spec) for m in getattr(stack, arch.layers)]
        self._shell, self._recorders = skeleton(stack, arch)
        self._final_norm = norm_of(stack.get_submodule(arch.final_norm), arch.unit_offset)
        self._unembed: nn.Module = hf.get_output_embeddings()  # type: ignore[operator]
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)

    @property
    def device(self) -> torch.device:
        return self._unembed.weight.device  # type: ignore[return-value]

    @property
    def d_model(self) -> int:
        return int(self.layers[0].w_out.shape[-1])

    @cached_property
    def traced(self) -> Any:
        """The model under nnsight, for tracing by hand: `with model.traced.trace(tokens): …`."""
        from edgesweep.engine.network.tracing import wrap

        return wrap(self.hf)

    @torch.no_grad()
    def prepare(
        self, tokens: Int[Tensor, "inputs positions"], real: Bool[Tensor, "inputs positions"]
    ) -> Inputs:
        """Embed a batch and build its masks and positions with the model's own code.

        Padding may stand on either side: positions count real tokens, and the read position is
        the last real one.
        """
        tokens, real = tokens.to(self.device), real.to(self.device)
        positions = (real.long().cumsum(-1) - 1).clamp(min=0)
        mask = None if bool(real.all()) else real.long()
        self._shell(tokens, attention_mask=mask, position_ids=positions, use_cache=False)
        last = real.shape[1] - 1 - real.flip(-1).long().argmax(-1)
        contexts = [recorder.context for recorder in self._recorders]
        first: LayerRecorder = self._recorders[0]
        return Inputs(first.hidden, contexts, last, real)

    def run(self, inputs: Inputs, embed: Stream | None = None, *, keep_ports: bool = False) -> Run:
        """The plain forward from `embed` (default: the batch's own), logits at the read positions.

        With `keep_ports` the run also keeps queries, keys, values and streams, each MLP reading an
        alias of the stream, so that gradients can be taken at every port by itself.
        """
        stream = inputs.embed if embed is None else embed
        run = Run(stream)
        for index, layer in enumerate(self.layers):
            ports = layer.project(stream)
            z = layer.attend(*ports, inputs.context(index))
            attention, scale = layer.write(z)
            after = stream + attention
            read_by_mlp = stream if self.spec.parallel else after
            if keep_ports:
                read_by_mlp = read_by_mlp.view_as(read_by_mlp)
                run.ports.append(ports)
                run.streams.append((stream, read_by_mlp))
            mlp = layer.mlp(read_by_mlp)
            stream = after + mlp
            run.z.append(z)
            run.scales.append(scale)
            run.attention.append(attention)
            run.mlps.append(mlp)
        run.final = inputs.at_read(stream)
        run.logits = self.unembed(run.final)
        return run

    def unembed(self, stream: Stream) -> Float[Tensor, "*rows vocab"]:
        """Logits from the final stream: final norm, unembedding, soft-capping where present."""
        logits: Tensor = self._unembed(self._final_norm(stream))
        if self._softcap is None:
            return logits
        return torch.tanh(logits / self._softcap) * self._softcap


def graph_spec(config: Any) -> GraphSpec:
    """The graph of a model by its configuration alone."""
    heads = config.num_attention_heads
    return GraphSpec(
        n_layers=config.num_hidden_layers,
        n_heads=heads,
        n_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        parallel=bool(getattr(config, "use_parallel_residual", False)),
        coupled=ARCHITECTURES[config.model_type].post_attention is not None,
    )
