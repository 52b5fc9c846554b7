"""The edge-ablated run of one circuit with everything kept that its variants start from.

Every port reads x_p = x_patch + Σ_{kept u} δ_u with δ_u = u_base − u_patch (see `engine.ablation`,
which runs many circuits and keeps nothing; here one circuit is run and all of it is kept).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edgesweep.engine.graph import PortBlock, prune
from edgesweep.engine.network import Inputs, Model, SourceValues
from edgesweep.engine.network.layers import Layer

Mask = Bool[np.ndarray, " edges"]
Streams = Float[Tensor, "rows inputs positions d_model"]


class BaseRun:
    """The edge-ablated run of a circuit, with all that its variants start from. Differences and
    streams are on the model's device, what a layer computes is on the layer's.

    Args:
        inputs: the clean batch.
        patch: values of dropped edges.
        mask: kept edges.

    Attributes:
        delta: `[sources, inputs, positions, d_model]`, u_base − u_patch.
        logits: `[inputs, vocab]` at the read positions.
    """

    @torch.no_grad()
    def __init__(self, model: Model, inputs: Inputs, patch: SourceValues, mask: Mask) -> None:
        self.model, self.graph, self.inputs, self.patch = model, model.graph, inputs, patch
        self.delta = inputs.embed.new_zeros(len(self.graph.sources), *inputs.embed.shape)
        self.delta[0] = inputs.embed - patch.embed
        self.patched = list(_patch_streams(model, patch))
        n_layers = model.spec.n_layers
        nothing = inputs.embed.new_empty(0)
        self.streams = [nothing] * len(self.graph.blocks)
        self.which = [np.zeros(0, dtype=np.int64)] * len(self.graph.blocks)
        self.ports: list[tuple[Tensor, Tensor, Tensor]] = [(nothing,) * 3] * n_layers
        self.z, self.attention, self.mlps = ([nothing] * n_layers for _ in range(3))
        self.logits = nothing
        self.refresh(mask)

    @torch.no_grad()
    def refresh(self, mask: Mask, block: int = 0) -> None:
        """Run again from a block on, for a mask that is the same before it."""
        self.note(mask)
        for index in range(block, len(self.graph.blocks)):
            self.streams[index], self.which[index] = self._streams_of(index)
            self._compute(index, self.graph.blocks[index])

    def note(self, mask: Mask) -> None:
        """Another mask that gives the same run (what it lacks led nowhere)."""
        self.mask = mask
        used = prune(self.graph, mask, both_sides=False)
        fed = prune(self.graph, mask, both_sides=self.patch.from_one_run)
        sources, n = self.graph.edge_source, len(self.graph.sources)
        readers = np.bincount(sources, minlength=n)
        self.live = np.append(np.bincount(sources[used], minlength=n) > 0, True)
        self._moved = np.bincount(sources[fed], minlength=n) > 0
        self.is_dense = np.bincount(sources[mask], minlength=n) == readers

    def kept(self, block: PortBlock) -> Bool[np.ndarray, "targets sources"]:
        """Which sources each port of a block keeps."""
        return self.mask[block.edges].reshape(block.n_targets, block.n_sources)

    def live_ports(self, block: PortBlock) -> Bool[np.ndarray, " targets"]:
        """Ports of nodes that are read on a kept path to the logits."""
        rows = slice(block.first_target, block.first_target + block.n_targets)
        live = self.graph.target_nodes[rows] & self.live
        if self.model.spec.coupled and block.kind == "attention":
            return np.full(block.n_targets, live.any())
        return np.asarray(live.any(1))

    def _streams_of(self, index: int) -> tuple[Streams, Int[np.ndarray, " targets"]]:
        """What the ports read, each distinct stream once, and which of them each port reads."""
        distinct, which = np.unique(
            self.kept(self.graph.blocks[index]), axis=0, return_inverse=True
        )
        columns = np.flatnonzero(distinct.any(0))
        out = self.patched[index].repeat(len(distinct), 1, 1, 1)
        if len(columns):
            weights = torch.as_tensor(distinct[:, columns]).to(out)
            whole = len(columns) == columns[-1] + 1
            table = self.delta[: len(columns)] if whole else self.delta[torch.as_tensor(columns)]
            out.flatten(1).addmm_(weights, table.flatten(1))
        return out, which.reshape(-1)

    def _compute(self, index: int, block: PortBlock) -> None:
        if block.kind == "logits":
            self.logits = self.model.unembed(self.inputs.at_read(self.streams[index][0]))
            return
        layer, number = self.model.layers[block.layer], block.layer
        if block.kind == "mlp":
            self.mlps[number] = layer.mlp(self.streams[index][0])
            written = self.mlps[number] - self.patch.mlp(number)
            self._note_delta(self.graph.mlp_source(number), written[None])
            return
        self.ports[number] = self._project(layer, index)
        z = layer.attend(*self.ports[number], self.inputs.context(number))
        self.z[number], (self.attention[number], scale) = z, layer.write(z)
        writes = layer.head_writes(z, scale) - self.patch.heads(number)
        self._note_delta(self.graph.head_source(number, 0), writes)

    def _note_delta(self, first: int, deltas: Streams) -> None:
        """δ of sources from `first` on: exactly zero where a run's patch value is met again, for
        what rounding leaves would be taken for an effect."""
        moved = torch.as_tensor(self._moved[first : first + len(deltas)], device=deltas.device)
        self.delta[first : first + len(deltas)] = deltas * moved[:, None, None, None]

    def _project(self, layer: Layer, index: int) -> tuple[Tensor, Tensor, Tensor]:
        streams, which = self.streams[index], self.which[index]
        if len(streams) == 1:
            return layer.project(streams[0])
        normed = layer.normed(streams)
        values = torch.stack(
            [layer.project_port(p, normed[i]) for p, i in enumerate(which)], dim=-2
        )
        n_heads, n_kv = self.model.spec.n_heads, self.model.spec.n_kv_heads
        query, key, value = values.split([n_heads, n_kv, n_kv], dim=-2)
        return query, key, value


@dataclass(frozen=True)
class Window:
    """The positions at which variants of a run may differ from it.

    Attributes:
        inputs: the batch.
        first: they are those from here on, for every input.
        at_end: they are the read position alone, for nothing after the last attention mixes them.
    """

    inputs: Inputs
    first: int
    at_end: bool = False

    def of(self, stream: Float[Tensor, "*lead inputs positions d"]) -> Tensor:
        """These positions of something at all positions: `[*lead, inputs, window, d]`."""
        if self.at_end:
            return self.inputs.at_read(stream)[..., None, :]
        return stream[..., self.first :, :]

    def of_heads(self, heads: Float[Tensor, "*lead inputs positions heads d_head"]) -> Tensor:
        """The same of what is kept by head."""
        return self.of(heads.flatten(-2)).unflatten(-1, heads.shape[-2:])

    def of_rows(self, ports: Float[Tensor, "variants inputs positions ports d_head"]) -> Tensor:
        """These positions of variants' ports, to be written to; not for the end."""
        return ports[:, :, self.first :]

    def read(self, change: Float[Tensor, "*lead inputs window d"]) -> Tensor:
        """The read position of something at these positions: `[*lead, inputs, 1, d]`."""
        inputs = torch.arange(len(self.inputs.read), device=change.device)
        read = self.inputs.read.to(change.device) - self.first
        return change[..., inputs, read, :][..., None, :]


def first_window(base: BaseRun, changes: Streams) -> Window:
    """Where variants can differ that begin to by `changes`: under a causal mask nothing before the
    first of them does."""
    places = changes.any(-1).flatten(0, -2).any(0).nonzero()
    config: Any = base.model.hf.config
    causal = getattr(config, "causal", True)
    ahead = not causal or getattr(config, "use_bidirectional_attention", False)
    if ahead or not len(places):
        return Window(base.inputs, 0)
    return Window(base.inputs, min(int(places[0]), int(base.inputs.read.min())))


def _patch_streams(model: Model, patch: SourceValues) -> Iterator[Tensor]:
    """What a port of each block reads if it keeps nothing."""
    stream = patch.embed
    for layer in range(model.spec.n_layers):
        yield stream
        after = stream + model.here(patch.attention(layer))
        yield stream if model.spec.parallel else after
        stream = after + model.here(patch.mlp(layer))
    yield stream
