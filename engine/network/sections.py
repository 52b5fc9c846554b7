"""The transformer between chosen sites: a site's value from those of its parents.

1. The stream starts as the value of the last cut before the target.
2. Layer by layer, what attention and MLP add is computed from the stream, or taken as given where
   that block is a chosen site itself.
3. The target is what its block adds, the stream after its layer, or the last stream at the end.

With the values of one run it gives that run's values; tests/features/test_segments.py pins it to
the model's own forward.
"""

from collections.abc import Mapping, Sequence

from jaxtyping import Int
from torch import Tensor

from edgesweep.engine.graph import GraphSpec
from edgesweep.engine.network.base import LOGITS, Inputs
from edgesweep.engine.network.layers import Layer, Stream
from edgesweep.engine.network.run import Run
from edgesweep.engine.network.sites import Place, TransformerSites


class Sections:
    """The layers of a transformer, to be run between sites."""

    def __init__(self, layers: Sequence[Layer], spec: GraphSpec, sites: TransformerSites) -> None:
        self.layers, self.spec, self.sites = layers, spec, sites

    def site_values(self, run: Run) -> dict[str, Stream]:
        """The value of every site in a run, `[inputs, positions, d_model]`."""
        found, stream = {"embed": run.embed}, run.embed
        for layer, written in enumerate(zip(run.attention, run.mlps, strict=True)):
            attention, mlp = (value.to(stream.device) for value in written)
            stream = stream + attention + mlp
            found |= {f"attn{layer}": attention, f"mlp{layer}": mlp, f"resid{layer}": stream}
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
        layer = self.layers[index]
        stream = layer.here(stream)
        written = {name: layer.here(given[name]) for name in _blocks(index) if name in given}
        attention = written.get(f"attn{index}")
        if attention is None and not (target == Place("mlp", index) and self.spec.parallel):
            z = layer.attend(*layer.project(stream), inputs.context(index, rows))
            attention = layer.write(z)[0]
        if target == Place("attn", index):
            return stream, attention
        after = stream if attention is None else stream + attention
        mlp = written.get(f"mlp{index}")
        if mlp is None:
            mlp = layer.mlp(stream if self.spec.parallel else after)
        return after + mlp, mlp if target == Place("mlp", index) else None


def _blocks(layer: int) -> tuple[str, str]:
    return f"attn{layer}", f"mlp{layer}"


class AfterSite:
    """The transformer after a site, in one run otherwise."""

    def __init__(self, sections: Sections, inputs: Inputs, run: Run) -> None:
        self._layers, self._parallel = sections.layers, sections.spec.parallel
        self._inputs = inputs
        self._values = sections.site_values(run)

    def final(self, site: Place, value: Stream, rows: Int[Tensor, " rows"]) -> Stream:
        """The last stream, at all positions."""
        stream = value if site.is_cut else self._after_block(site, value, rows)
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
        attention, mlp = _blocks(site.layer)
        if site.kind == "mlp":
            return before + self._values[attention][rows] + value
        if self._parallel:
            return before + value + self._values[mlp][rows]
        after = before + value
        return after + self._layers[site.layer].mlp(after).to(after.device)
