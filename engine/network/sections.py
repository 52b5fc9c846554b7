"""The transformer between chosen sites: a site's value from those of its parents.

1. The stream starts as the value of the last cut before the target.
2. Layer by layer, what attention and MLP add is computed from the stream, or taken as given where
   that block is a chosen site itself, or from the heads or neurons within it where these are.
3. The target is what its block adds or holds, the stream after its layer, or the last stream.

With the values of one run it gives that run's values; tests/features/test_segments.py pins it to
the model's own forward.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from edgesweep.engine.graph import GraphSpec
from edgesweep.engine.network.base import LOGITS, Inputs
from edgesweep.engine.network.layers import Layer, Stream
from edgesweep.engine.network.run import Run
from edgesweep.engine.network.sites import Place, TransformerSites

#: of a layer, both of which write
BLOCKS = ("attn", "mlp")


class _SiteValues(dict[str, Stream]):
    """Values by site; what is within a block is had where it is asked for."""

    def __init__(self, sections: "Sections", run: Run) -> None:
        super().__init__()
        self._sections, self._run = sections, run

    def __missing__(self, name: str) -> Stream:
        place, run = self._sections.sites.place(name), self._run
        if place.kind == "z":
            return run.z[place.layer].flatten(-2).to(run.embed.device)
        before = self[f"resid{place.layer - 1}" if place.layer else "embed"]
        after = before if self._sections.spec.parallel else before + self[f"attn{place.layer}"]
        return self._sections.layers[place.layer].hidden(after).to(run.embed.device)


class Sections:
    """The layers of a transformer, to be run between sites."""

    def __init__(self, layers: Sequence[Layer], spec: GraphSpec, sites: TransformerSites) -> None:
        self.layers, self.spec, self.sites = layers, spec, sites

    def site_values(self, run: Run) -> dict[str, Stream]:
        """The value of every site in a run, `[inputs, positions, width]`."""
        found, stream = _SiteValues(self, run), run.embed
        found["embed"] = run.embed
        for layer, written in enumerate(zip(run.attention, run.mlps, strict=True)):
            attention, mlp = (value.to(stream.device) for value in written)
            stream = stream + attention + mlp
            found.update({f"attn{layer}": attention, f"mlp{layer}": mlp, f"resid{layer}": stream})
        return found

    def section(
        self,
        chosen: Sequence[Place],
        target: str,
        values: Mapping[str, Stream],
        inputs: Inputs,
        rows: Int[Tensor, " rows"] | None,
    ) -> Stream:
        """See `engine.network.base.Network`."""
        place = None if target == LOGITS else self.sites.place(target)
        first, *writers = self.sites.parents(chosen, target)
        given = {p.name: values[p.name] for p in writers}
        stream = values[first.name]
        last = self.spec.n_layers - 1 if place is None else place.layer
        home = stream.device
        for index in range(first.layer + 1, last + 1):
            stream, written = self._layer(index, stream, given, place, inputs, rows)
            if written is not None:
                return written.to(home)
        return stream.to(home)

    def joined(self, chosen: Sequence[Place], target: str) -> tuple[Place, ...] | None:
        """The parents of a target with the cut before its layer in place of those that write there:
        the target sees their sum alone. None where there is no such cut: between them something is
        computed, a norm follows a block, or none of them is below that."""
        layer = self.spec.n_layers if target == LOGITS else self.sites.place(target).layer
        first, *writers = self.sites.parents(chosen, target)
        between = range(first.layer + 1, layer)
        missing = {(i, block) for i in between for block in BLOCKS} - {
            (p.layer, p.block) for p in writers
        }
        layers = [self.layers[i] for i in between]
        normed = any(not of.adds_what_it_writes or of.plain_mlp is None for of in layers)
        if not layers or missing or normed:
            return None
        return Place("resid", layer - 1), *(p for p in writers if p.layer == layer)

    def written(self, place: Place, value: Stream) -> Stream:
        """What a difference of a site's value adds to the stream, where no norm follows it."""
        layer = self.layers[max(place.layer, 0)]
        writes = {"z": layer.attention_of, "hidden": layer.mlp_of}.get(place.kind)
        if writes is None:
            return value
        return (writes(value) - writes(torch.zeros_like(value[..., :1, :]))).to(value.device)

    def _layer(
        self,
        index: int,
        stream: Stream,
        given: Mapping[str, Stream],
        target: Place | None,
        inputs: Inputs,
        rows: Int[Tensor, " rows"] | None,
    ) -> tuple[Stream, Stream | None]:
        """The stream after a layer; and the target's value where it is one of its blocks."""
        layer, kind = self.layers[index], ""
        if target is not None and target.layer == index:
            kind = target.kind
        stream = layer.here(stream)
        attention, mlp = written(layer, index, given)
        if attention is None and not (kind in ("mlp", "hidden") and self.spec.parallel):
            z = layer.attend(*layer.project(stream), inputs.context(index, rows))
            if kind == "z":
                return stream, z.flatten(-2)
            attention = layer.write(z)[0]
        if kind == "attn":
            return stream, attention
        after = stream if attention is None else stream + attention
        read = stream if self.spec.parallel else after
        if kind == "hidden":
            return stream, layer.hidden(read)
        mlp = layer.mlp(read) if mlp is None else mlp
        return after + mlp, mlp if kind == "mlp" else None


def written(
    layer: Layer, index: int, given: Mapping[str, Stream]
) -> tuple[Stream | None, Stream | None]:
    """What attention and MLP of a layer add to the stream, where they or what is within them is
    given."""
    attn, mlp = f"attn{index}", f"mlp{index}"
    z, hidden = given.get(f"{attn}.z"), given.get(f"{mlp}.hidden")
    found = [layer.here(given[name]) if name in given else None for name in (attn, mlp)]
    return (
        found[0] if z is None else layer.attention_of(z),
        found[1] if hidden is None else layer.mlp_of(hidden),
    )


class AfterSite:
    """The transformer after a site, in one run otherwise."""

    def __init__(self, sections: Sections, inputs: Inputs, run: Run) -> None:
        self._layers, self._parallel = sections.layers, sections.spec.parallel
        self._inputs = inputs
        self._values = sections.site_values(run)

    def final(self, site: Place, value: Stream, rows: Int[Tensor, " rows"]) -> Stream:
        """The last stream, at all positions."""
        stream = value if site.is_cut else self._after_block(site, value, rows).to(value.device)
        for index in range(site.layer + 1, len(self._layers)):
            layer = self._layers[index]
            stream = layer.here(stream)
            z = layer.attend(*layer.project(stream), self._inputs.context(index, rows))
            after = stream + layer.write(z)[0]
            stream = after + layer.mlp(stream if self._parallel else after)
        return stream.to(value.device)

    def _after_block(self, site: Place, value: Stream, rows: Tensor) -> Stream:
        """The stream after the layer of a block with another value."""
        before = self._values[f"resid{site.layer - 1}" if site.layer else "embed"][rows]
        layer, names = self._layers[site.layer], (f"attn{site.layer}", f"mlp{site.layer}")
        home = before.device
        attention, mlp = (
            self._values[name][rows] if new is None else new.to(home)
            for name, new in zip(names, written(layer, site.layer, {site.name: value}), strict=True)
        )
        after = before + attention
        if site.block == "attn" and not self._parallel:
            mlp = layer.mlp(after).to(home)
        return after + mlp
