"""A causal language model, taken apart into the nodes and ports of its graph.

`Model.prepare` asks the model's own stack for embeddings, masks and positions; `Model.run` is the
plain forward over our layers, keeping what every node wrote; both are pinned to the model's own
forward and to nnsight's values by tests/model.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from edgesweep.engine.graph import EdgeGraph, GraphSpec
from edgesweep.engine.network.architectures import ARCHITECTURES, LayerRecorder, skeleton
from edgesweep.engine.network.base import Inputs, Values, moved
from edgesweep.engine.network.layers import Layer, Norm, Stream, norm_of
from edgesweep.engine.network.pullback import SegmentSlopes
from edgesweep.engine.network.relevance import Relevance
from edgesweep.engine.network.run import Run
from edgesweep.engine.network.sections import AfterSite, Sections
from edgesweep.engine.network.sites import Place, TransformerSites


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
        self.shape: tuple[int, ...] | None = None
        self.tokenizer = tokenizer
        self.spec = graph_spec(config)
        self.graph = EdgeGraph(self.spec)
        stack = hf.get_submodule(arch.stack)
        self.layers = [Layer(m, arch, self.spec) for m in getattr(stack, arch.layers)]
        self._shell, self._recorders = skeleton(stack, arch)
        self._entry = next(self._shell.parameters())
        self._final_norm = norm_of(stack.get_submodule(arch.final_norm), arch.unit_offset)
        self.sites = transformer_sites(config)
        self._sections = Sections(self.layers, self.spec, self.sites)
        self._unembed: nn.Module = hf.get_output_embeddings()  # type: ignore[operator]
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)

    @property
    def device(self) -> torch.device:
        """Where inputs are embedded, and where logits, sums over all layers and scores are."""
        return self._entry.device

    def here(self, value: Tensor) -> Tensor:
        """A value on the model's own device; itself if it is there."""
        return value.to(self.device)

    @property
    def dtype(self) -> torch.dtype:
        return self.layers[0].w_out.dtype

    @property
    def d_model(self) -> int:
        return int(self.layers[0].w_out.shape[-1])

    def under(self, rules: Relevance | None) -> "Model":
        """The same values, other derivatives of `run`; None: the gradient's. Between sites they
        stay as they are.

        Raises:
            RelevanceError: rules that do not fit the model.
        """
        if rules is None:
            return self
        found = copy.copy(self)
        found.layers = [layer.under(rules) for layer in self.layers]
        found._final_norm = rules.norm(self._final_norm)
        return found

    def reader(self, layer: int) -> Layer:
        """The layer whose device a block of the graph is on; that of the logits is the last."""
        return self.layers[min(layer, self.spec.n_layers - 1)]

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
        given = zip(self.layers, self._recorders, strict=True)
        contexts = [moved(recorder.context, layer.device) for layer, recorder in given]
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
            stream = layer.here(stream)
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

    @property
    def final_norm(self) -> Norm:
        """The norm before the unembedding."""
        return self._final_norm

    @property
    def unembedding(self) -> Float[Tensor, "d_model vocab"]:
        """The unembedding's matrix, the final norm's weight in it."""
        weight: Tensor = self._unembed.weight  # type: ignore[assignment]
        return self._final_norm.weight.to(weight)[..., None] * weight.T

    @property
    def soft_caps(self) -> bool:
        """Whether logits are bounded after the unembedding's map."""
        return self._softcap is not None

    def unembed(self, stream: Stream) -> Float[Tensor, "*rows vocab"]:
        """Logits from the final stream: final norm, unembedding, soft-capping where present."""
        weight: Tensor = self._unembed.weight  # type: ignore[assignment]
        return self.unembed_normed(self._final_norm(stream.to(weight.device)))

    def unembed_normed(self, normed: Stream) -> Float[Tensor, "*rows vocab"]:
        """The same from what the final norm gives."""
        logits = self.here(self._unembed(normed))
        if self._softcap is None:
            return logits
        return torch.tanh(logits / self._softcap) * self._softcap

    # --- between sites -----------------------------------------------------------------------
    def site_values(self, run: Run) -> dict[str, Stream]:
        return self._sections.site_values(run)

    def section(
        self,
        chosen: Sequence[Place],
        target: str,
        values: Values,
        inputs: Inputs,
        rows: Int[Tensor, " rows"] | None = None,
    ) -> Stream:
        return self._sections.section(chosen, target, values, inputs, rows)

    def joined(self, chosen: Sequence[Place], target: str) -> tuple[Place, ...] | None:
        return self._sections.joined(chosen, target)

    def written(self, site: Place, value: Stream) -> Stream:
        return self._sections.written(site, value)

    def logits(
        self, final: Stream, inputs: Inputs, rows: Int[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "rows vocab"]:
        return self.unembed(inputs.at_read(final, rows))

    def after(self, inputs: Inputs, run: Run) -> AfterSite:
        return AfterSite(self._sections, inputs, run)

    def pull_back(
        self,
        chosen: Sequence[Place],
        target: str,
        values: Values,
        inputs: Inputs,
        number: int,
        first: int = 0,
    ) -> SegmentSlopes:
        return SegmentSlopes(self._sections, chosen, target, values, inputs, number, first)

    def row_bytes(self, n_positions: int) -> int:
        """Of one layer: streams, ports and the MLP."""
        wide = mlp_width(self.hf.config)
        numbers = 12 * self.d_model + 3 * wide + 2 * self.spec.n_heads * n_positions
        return int(n_positions * numbers * self.layers[0].w_out.element_size())


def transformer_sites(config: Any) -> TransformerSites:
    """The sites of a model by its configuration alone."""
    spec, width = graph_spec(config), config.hidden_size
    d_head = getattr(config, "head_dim", None) or width // spec.n_heads
    has_mlp = getattr(config, "use_mlp", True)
    return TransformerSites(spec, width, spec.n_heads * d_head, mlp_width(config) if has_mlp else 0)


def mlp_width(config: Any) -> int:
    """Neurons of an MLP."""
    width = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    return int(width or 4 * config.hidden_size)


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
