"""Segments, linearised (the package says how)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.network.attention import AttentionSlopes
from edgesweep.engine.network.base import LOGITS, Inputs, Pulled
from edgesweep.engine.network.layers import Stream
from edgesweep.engine.network.pullback.places import AtPositions, AtSpan, Cotangents, Places
from edgesweep.engine.network.sections import Sections
from edgesweep.engine.network.sites import Place

#: targets at most that are pulled back together from several positions
FEW = 32


class LayerSlopes:
    """The part of one layer that a segment runs, linearised at several steps of one input. Values
    and cotangents are where `stream` is, wherever the layer is.

    Args:
        stream: before the layer.
        given: values of those of its blocks that are parents.
        target: the site that is computed.

    Attributes:
        out: the target's value, or the stream after the layer.
        attention: None where it is not computed.
    """

    def __init__(
        self,
        sections: Sections,
        index: int,
        stream: Stream,
        given: Mapping[str, Stream],
        target: Place | None,
        context: Callable[[int], dict[str, Any]],
        positions: Sequence[int],
    ) -> None:
        self.index, self._layer = index, sections.layers[index]
        self._parallel = sections.spec.parallel
        self._sites = _within(index, given, "attn", "z"), _within(index, given, "mlp", "hidden")
        self._inside = [given[name] if "." in name else None for name in self._sites]
        self._given = [name in given for name in self._sites]
        self._target = target.kind if target is not None and target.layer == index else "resid"
        self.attention: AttentionSlopes | None = None
        if not self._given[0] and not (self._target in ("mlp", "hidden") and self._parallel):
            self.attention = AttentionSlopes(self._layer, stream, context, positions)
        with torch.no_grad():
            self.out = self._forward(stream, given)

    def _forward(self, stream: Stream, given: Mapping[str, Stream]) -> Stream:
        after = stream
        if self.attention is not None:
            if self._target == "z":
                return self.attention.z.flatten(-2)
            attention = self._write(self.attention.z)
            if self._target == "attn":
                return attention
            after = stream + attention
        elif self._given[0]:
            z = self._inside[0]
            after = stream + (given[self._sites[0]] if z is None else self._attention_of(z))
        self._read = stream if self._parallel else after
        if self._target == "hidden":
            return self._hidden(self._read)
        if not self._given[1]:
            mlp = self._mlp(self._read)
        else:
            hidden = self._inside[1]
            mlp = given[self._sites[1]] if hidden is None else self._mlp_of(hidden)
        return mlp if self._target == "mlp" else after + mlp

    def blocks(
        self, g: Tensor, places: Places
    ) -> tuple[Tensor | None, Tensor | None, dict[str, Tensor]]:
        """The cotangent of the stream before the layer by all ways but attention, that of z, and
        those of its blocks that are parents; all where `g` is, None where there is none."""
        if self._target == "z":
            return None, g.unflatten(-1, (self._layer.spec.n_heads, -1)), {}
        parents: dict[str, Tensor] = {}
        stream = None if self._target in ("attn", "mlp", "hidden") else g
        after = g if self._target in ("attn", "resid") else None
        if self._target != "attn":
            mlp = None
            if self._given[1]:
                hidden = self._inside[1]
                parents[self._sites[1]] = (
                    g if hidden is None else places.vjp(self._mlp_of, hidden, g)
                )
            else:
                fn = self._hidden if self._target == "hidden" else self._mlp
                mlp = places.vjp(fn, self._read, g)
            if self._parallel:
                stream = _sum(stream, mlp)
            else:
                stream = after = _sum(after, mlp)
        if after is None:
            return stream, None, parents
        if self._given[0]:
            z = self._inside[0]
            own = after if z is None else places.vjp(self._attention_of, z, after)
            return stream, None, parents | {self._sites[0]: own}
        assert self.attention is not None
        return stream, places.vjp(self._write, self.attention.z, after), parents

    def _write(self, z: Tensor) -> Stream:
        return self._layer.write(z)[0].to(z.device)

    def _mlp(self, stream: Stream) -> Stream:
        return self._layer.mlp(stream).to(stream.device)

    def _hidden(self, stream: Stream) -> Tensor:
        return self._layer.hidden(stream).to(stream.device)

    def _attention_of(self, z: Tensor) -> Stream:
        return self._layer.attention_of(z).to(z.device)

    def _mlp_of(self, hidden: Tensor) -> Stream:
        return self._layer.mlp_of(hidden).to(hidden.device)


def _within(index: int, given: Mapping[str, Stream], block: str, inside: str) -> str:
    """The name of a block's site: of what is within it where that is given."""
    name = f"{block}{index}"
    return f"{name}.{inside}" if f"{name}.{inside}" in given else name


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


class SegmentSlopes:
    """The network between a target and its parents, linearised at several steps of one input.

    Args:
        target: a site's name, or `logits`; then the final stream is what cotangents are of.
        values: `[steps, positions, d_model]` of every parent.
        number: of the input.
        first: the first position where a parent moves; cotangents before it are not wanted if the
            segment is causal.

    Attributes:
        x: the target's value (the final stream) at every step.
        causal: no position sees a later one.
    """

    def __init__(
        self,
        sections: Sections,
        chosen: Sequence[Place],
        target: str,
        values: Mapping[str, Stream],
        inputs: Inputs,
        number: int,
        first: int = 0,
    ) -> None:
        self._parents = sections.sites.parents(chosen, target)
        site = None if target == LOGITS else sections.sites.place(target)
        given = {p.name: values[p.name] for p in self._parents[1:]}
        positions = inputs.real[number].nonzero().flatten().tolist()
        self.x = values[self._parents[0].name]
        self._shapes = {p.name: values[p.name].shape[1:] for p in self._parents}
        self._layers: list[LayerSlopes] = []
        last = sections.spec.n_layers - 1 if site is None else site.layer
        for index in range(self._parents[0].layer + 1, last + 1):

            def context(rows: int, index: int = index) -> dict[str, Any]:
                return inputs.context(index, inputs.read.new_full((rows,), number))

            layer = LayerSlopes(sections, index, self.x, given, site, context, positions)
            self._layers.insert(0, layer)
            self.x = layer.out
        attention = [layer.attention for layer in self._layers if layer.attention]
        self.causal = all(a.causal for a in attention)
        self._first, self._mixes = first if self.causal else 0, bool(attention)

    def _span(self, at: slice) -> slice:
        """Positions that cotangents at some can reach and that are wanted."""
        last = at.stop if self.causal else self.x.shape[1]
        return slice(self._first if self._mixes else at.start, last)

    def pull(
        self, g: Cotangents, position: Int[Tensor, " targets"], rows: int
    ) -> dict[str, Pulled]:
        """Cotangents of every parent from those of the target.

        Args:
            g: at each target's position, weighted by the quadrature.
            position: of each target, ascending.
            rows: (target, step) rows that may be dense over positions at once.
        """
        if not self._layers:
            return {self._parents[0].name: Pulled(g.sum(1))}
        top = self._layers[0]
        stream, dz, parents = top.blocks(g, AtPositions(position, g, self.x.shape[1]))
        found = {name: Pulled(at.sum(1)) for name, at in parents.items()}
        if len(self._layers) == 1:
            before = None if dz is None else self._through_attention(dz, position)
            root = self._parents[0].name
            nowhere = g.new_zeros(len(g), self._shapes[root][-1])
            return found | {root: Pulled(nowhere if stream is None else stream.sum(1), before)}
        below = self._below(stream, dz, position, rows)
        return found | {
            name: Pulled(before.new_zeros(len(g), before.shape[-1]), before)
            for name, before in below.items()
        }

    def _through_attention(
        self, dz: Tensor, position: Tensor
    ) -> Float[Tensor, "targets positions d_model"]:
        attention = self._layers[0].attention
        assert attention is not None
        out = dz.new_zeros(len(dz), *self._shapes[self._parents[0].name])
        for p, rows in groups(position):
            at = slice(p, p + 1)
            span = self._span(at)
            out[rows, span] = attention.pull(dz[rows, :, None], at, span, summed=True)
        return out

    def _below(
        self, stream: Tensor | None, dz: Tensor | None, position: Tensor, rows: int
    ) -> dict[str, Float[Tensor, "targets positions d_model"]]:
        """Through the layers under the top one: where a position has many targets, they alone, a
        step at a time and those that are 0 left out; where it has few, with those of the next
        positions, over all that any of them reaches."""
        names = [p.name for p in self._parents if p.layer < self._layers[0].index]
        out = {name: self.x.new_zeros(len(position), *self._shapes[name]) for name in names}
        given = [g for g in (stream, dz) if g is not None]
        on = torch.stack([g.flatten(2).any(-1) for g in given]).any(0)
        n_steps = len(self.x)
        for at, group in _joined(groups(position)):
            if group.stop - group.start > FEW:
                lots = [(on[group, step], slice(step, step + 1), rows) for step in range(n_steps)]
            else:
                lots = [(on[group].any(1), slice(None), max(1, rows // n_steps))]
            for which, steps, size in lots:
                found = which.nonzero().flatten() + group.start
                for some in found.split(size) if len(found) else ():
                    self._descend(at, steps, position[some], stream, dz, some, out)
        return out

    def _descend(
        self,
        at: slice,
        steps: slice,
        position: Int[Tensor, " some"],
        stream: Tensor | None,
        dz: Tensor | None,
        some: Int[Tensor, " some"],
        out: Mapping[str, Tensor],
    ) -> None:
        """Add to `out` what some targets at positions `at` give at some steps."""
        attention, span, rows = self._layers[0].attention, self._span(at), torch.arange(len(some))
        n, d_model = span.stop - span.start, self._shapes[self._parents[0].name][-1]
        g = self.x.new_zeros(len(some), len(self.x[steps]), n, d_model)
        if dz is not None and attention is not None:
            heads = dz.new_zeros(*g.shape[:2], at.stop - at.start, *dz.shape[2:])
            heads[rows, :, position - at.start] = dz[some, steps]
            g += attention.pull(heads, at, span, steps, summed=False)
        if stream is not None:
            g[rows, :, position - span.start] += stream[some, steps]
        for layer in self._layers[1:]:
            below, z, parents = layer.blocks(g, AtSpan(steps, span))
            assert below is not None
            for name, value in parents.items():
                out[name][some, span] += value.sum(1)
            g = below
            if z is not None and layer.attention is not None:
                g = g + layer.attention.pull(z, span, span, steps, summed=False)
        out[self._parents[0].name][some, span] += g.sum(1)


def groups(position: Int[Tensor, " targets"]) -> list[tuple[int, slice]]:
    """Positions with the targets that they have."""
    found, counts = torch.unique_consecutive(position, return_counts=True)
    ends = counts.cumsum(0).tolist()
    return [
        (p, slice(end - n, end))
        for p, n, end in zip(found.tolist(), counts.tolist(), ends, strict=True)
    ]


def _joined(groups: list[tuple[int, slice]]) -> Iterator[tuple[slice, slice]]:
    """Neighbouring positions, as many as have `FEW` targets together, with these."""
    while groups:
        ends = [group.stop - groups[0][1].start <= FEW for _, group in groups]
        n = max(1, sum(ends))
        (first, start), (last, stop) = groups[0], groups[n - 1]
        yield slice(first, last + 1), slice(start.start, stop.stop)
        groups = groups[n:]
