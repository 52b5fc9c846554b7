"""What every source wrote: in a run, or as the values that stand in for it (patch values).

One interface for the three: attribution subtracts them, ablation puts them in place of dropped
edges, and neither needs to know where they came from.

A model may lie on several devices. What a layer wrote is where its weights are, and so are its rows
of a large table over nodes (`Spread`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from edgesweep.engine.network.architectures import Heads
from edgesweep.engine.network.layers import HeadIndex, Layer, Stream
from edgesweep.engine.network.run import Run
from edgesweep.engine.network.transformer import Model

HeadWrites = Float[Tensor, "heads inputs positions d_model"]


class SourceValues(Protocol):
    """Values of all sources for one batch; those of a layer are where its weights are.

    Attributes:
        embed: value of node `embed`, `[inputs, positions, d_model]`, on the model's device.
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

    def changes_into(
        self, out: Float[Tensor, "heads numbers"], layer: int, z: Heads, heads: HeadIndex
    ) -> None:
        """Write how some heads of a run differ from this; `z` is of the inputs once or several
        times."""


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

    def changes_into(
        self, out: Float[Tensor, "heads numbers"], layer: int, z: Heads, heads: HeadIndex
    ) -> None:
        if self.model.spec.coupled:  # each run has a scale of its own
            _write_less(out, self.model.layers[layer], z, heads, self.heads(layer))
            return
        was = self.run.z[layer]
        moved = (z.unflatten(0, (-1, len(was))) - was).flatten(0, 1)
        self.model.layers[layer].head_writes_into(out, moved, heads)


class FixedValues:
    """Values given by a table over sources: zero, or means.

    Args:
        table: `[inputs, sources, positions, d_model]`, on the model's device; any leading dimension
            may be an expanded 1.
    """

    from_one_run = False

    def __init__(self, model: Model, table: Float[Tensor, "inputs sources positions d"]) -> None:
        self._model, self._table = model, table
        self.embed = table[:, 0]

    def heads(self, layer: int) -> HeadWrites:
        graph = self._model.graph
        first, last = graph.head_source(layer, 0), graph.mlp_source(layer)
        return self._model.layers[layer].here(self._table[:, first:last].transpose(0, 1))

    def attention(self, layer: int) -> Stream:
        total = self.heads(layer).sum(0)
        constant = self._model.layers[layer].constant
        return total if constant is None else total + constant

    def mlp(self, layer: int) -> Stream:
        written = self._table[:, self._model.graph.mlp_source(layer)]
        return self._model.layers[layer].here(written)

    def changes_into(
        self, out: Float[Tensor, "heads numbers"], layer: int, z: Heads, heads: HeadIndex
    ) -> None:
        _write_less(out, self._model.layers[layer], z, heads, self.heads(layer))


def _write_less(
    out: Float[Tensor, "heads numbers"], layer: Layer, z: Heads, heads: HeadIndex, was: HeadWrites
) -> None:
    """What some heads write, less what all wrote otherwise."""
    written = layer.head_writes(z, layer.write(z)[1] if layer.spec.coupled else None, heads)
    written = written.unflatten(1, (-1, was.shape[1])) - was[heads][:, None]
    out.copy_(written.flatten(1))


# --- tables over nodes -------------------------------------------------------------------------
@dataclass(frozen=True)
class Span:
    """Consecutive layers on one device.

    Attributes:
        sources, targets: their nodes among the graph's.
    """

    device: torch.device
    sources: slice
    targets: slice


def spans_of(model: Model) -> list[Span]:
    """The spans of a model in forward order."""
    graph, n = model.graph, model.spec.n_layers
    spans = []
    for device, group in groupby(range(n), lambda layer: model.layers[layer].device):
        first, *others = group
        last = others[-1] if others else first
        sources = slice(graph.head_source(first, 0) if first else 0, graph.mlp_source(last) + 1)
        after = graph.blocks[2 * last + 2].first_target if last < n - 1 else len(graph.targets)
        spans.append(Span(device, sources, slice(graph.blocks[2 * first].first_target, after)))
    return spans


@dataclass(frozen=True)
class Spread:
    """A table with a row for each node: the rows of consecutive layers on one device are a tensor
    there (`embed` with the first layer, `logits` with the last), so that it is one tensor for a
    model on one device.

    Attributes:
        parts: each part's nodes, and its rows.
        dim: of the rows.
    """

    parts: tuple[tuple[slice, Tensor], ...]
    dim: int = 0

    @classmethod
    def over_sources(cls, model: Model, make: Callable[[int, torch.device], Tensor]) -> "Spread":
        """Of all sources, rows in dimension 1; `make` a part of so many rows there."""
        return cls(tuple(_part(s.sources, s.device, make) for s in spans_of(model)), dim=1)

    @classmethod
    def over_targets(cls, model: Model, make: Callable[[int, torch.device], Tensor]) -> "Spread":
        """Of all targets, rows first."""
        return cls(tuple(_part(s.targets, s.device, make) for s in spans_of(model)))

    def of(self, nodes: slice) -> Tensor:
        """A view of the rows of some nodes, all of one layer."""
        for mine, rows in self:
            if mine.start <= nodes.start < mine.stop:
                return rows.narrow(self.dim, nodes.start - mine.start, nodes.stop - nodes.start)
        raise IndexError(f"no rows of nodes {nodes.start} to {nodes.stop}")

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        return iter(self.parts)

    def div_(self, by: float) -> "Spread":
        for _, rows in self:
            rows.div_(by)
        return self


def _part(
    nodes: slice, device: torch.device, make: Callable[[int, torch.device], Tensor]
) -> tuple[slice, Tensor]:
    return nodes, make(nodes.stop - nodes.start, device)


# --- of all sources at once ----------------------------------------------------------------------
def stack_sources(model: Model, values: SourceValues) -> Float[Tensor, "sources inputs pos d"]:
    """All sources' values as one tensor on the model's device, in the order of the graph."""
    parts: list[Tensor] = [values.embed[None]]
    for layer in range(model.spec.n_layers):
        parts += [model.here(values.heads(layer)), model.here(values.mlp(layer))[None]]
    return torch.cat(parts)


@torch.no_grad()
def difference(model: Model, clean: RunValues, patch: SourceValues) -> Spread:
    """u_clean − u_patch for every source, `[inputs, sources, positions, d_model]`.

    Heads of two runs are subtracted before W_O, which halves the work, unless a post-norm scales
    each run by itself.
    """
    n_inputs, n_positions, d_model = clean.embed.shape
    out = Spread.over_sources(
        model,
        lambda n, device: clean.embed.new_empty(n_inputs, n, n_positions, d_model, device=device),
    )
    out.of(slice(0, 1))[:, 0] = clean.embed - patch.embed
    for layer in range(model.spec.n_layers):
        first, last = model.graph.head_source(layer, 0), model.graph.mlp_source(layer)
        nodes = out.of(slice(first, last + 1))
        nodes[:, :-1] = _head_difference(model, clean, patch, layer).transpose(0, 1)
        torch.sub(clean.mlp(layer), patch.mlp(layer), out=nodes[:, -1])
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
