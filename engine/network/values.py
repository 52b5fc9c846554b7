"""What every source wrote: in a run, or as the values that stand in for it (patch values).

One interface for the three: attribution subtracts them, ablation puts them in place of dropped
edges, and neither needs to know where they came from.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.network.layers import Stream
from edgesweep.engine.network.run import Run
from edgesweep.engine.network.transformer import Model

HeadWrites = Float[Tensor, "heads inputs positions d_model"]


class SourceValues(Protocol):
    """Values of all sources for one batch.

    Attributes:
        embed: value of node `embed`, `[inputs, positions, d_model]`.
        from_one_run: all values come from one forward (so an edge-less circuit equals that run).
    """

    embed: Stream
    from_one_run: bool

    def heads(self, layer: int) -> HeadWrites:
        """What each head of the layer writes."""

    def attention(self, layer: int) -> Stream:
        """The heads' sum and the constant that every run adds (the output bias)."""

    def mlp(self, layer: int) -> Stream:
        """What the MLP of the layer writes."""


class RunValues:
    """Values of a run (clean, counterfactual or resample)."""

    from_one_run = True

    def __init__(self, model: Model, run: Run) -> None:
        self.model, self.run, self.embed = model, run, run.embed

    def heads(self, layer: int) -> HeadWrites:
        return self.model.layers[layer].head_writes(self.run.z[layer], self.run.scales[layer])

    def attention(self, layer: int) -> Stream:
        return self.run.attention[layer]

    def mlp(self, layer: int) -> Stream:
        return self.run.mlps[layer]


class FixedValues:
    """Values given by a table over sources: zero, or means.

    Args:
        table: `[inputs, sources, positions, d_model]`; any leading dimension may be an expanded 1.
    """

    from_one_run = False

    def __init__(self, model: Model, table: Float[Tensor, "inputs sources positions d"]) -> None:
        self._model, self._table = model, table
        self.embed = table[:, 0]

    def heads(self, layer: int) -> HeadWrites:
        graph = self._model.graph
        first, last = graph.head_source(layer, 0), graph.mlp_source(layer)
        return self._table[:, first:last].transpose(0, 1)

    def attention(self, layer: int) -> Stream:
        total = self.heads(layer).sum(0)
        constant = self._model.layers[layer].constant
        return total if constant is None else total + constant

    def mlp(self, layer: int) -> Stream:
        return self._table[:, self._model.graph.mlp_source(layer)]


def stack_sources(model: Model, values: SourceValues) -> Float[Tensor, "sources inputs pos d"]:
    """All sources' values as one tensor, in the order of the graph."""
    parts: list[Tensor] = [values.embed[None]]
    for layer in range(model.spec.n_layers):
        parts += [values.heads(layer), values.mlp(layer)[None]]
    return torch.cat(parts)


@torch.no_grad()
def difference(
    model: Model, clean: RunValues, patch: SourceValues
) -> Float[Tensor, "inputs sources positions d_model"]:
    """u_clean − u_patch for every source.

    Heads of two runs are subtracted before W_O, which halves the work, unless a post-norm scales
    each run by itself.
    """
    n_inputs, n_positions, d_model = clean.embed.shape
    out = clean.embed.new_empty(n_inputs, len(model.graph.sources), n_positions, d_model)
    torch.sub(clean.embed, patch.embed, out=out[:, 0])
    for layer in range(model.spec.n_layers):
        first, last = model.graph.head_source(layer, 0), model.graph.mlp_source(layer)
        out[:, first:last] = _head_difference(model, clean, patch, layer).transpose(0, 1)
        torch.sub(clean.mlp(layer), patch.mlp(layer), out=out[:, last])
    return out


def _head_difference(model: Model, clean: RunValues, patch: SourceValues, layer: int) -> HeadWrites:
    if isinstance(patch, RunValues) and not model.spec.coupled:
        z = clean.run.z[layer] - patch.run.z[layer]
        return model.layers[layer].head_writes(z, None)
    return clean.heads(layer) - patch.heads(layer)


def zero_values(model: Model, like: Stream) -> FixedValues:
    """Every source writes nothing."""
    table = like.new_zeros(1, 1, 1, 1).expand(
        like.shape[0], len(model.graph.sources), like.shape[1], like.shape[2]
    )
    return FixedValues(model, table)


def table_values(model: Model, rows: Sequence[Tensor]) -> FixedValues:
    """One table `[sources, positions, d_model]` an input, already padded alike."""
    return FixedValues(model, torch.stack(list(rows)))
