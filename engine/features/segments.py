"""The network between chosen sites: a site's value from those of its parents.

1. The stream starts as the value of the last cut before the target.
2. Layer by layer, what attention and MLP add is computed from the stream, or taken as given where
   that block is a chosen site itself.
3. The target is what its block adds, the stream after its layer, or the logits at the end.

With the values of one run it gives that run's values; tests/features/test_segments.py pins it to
the model's own forward.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.dictionaries.base import Dictionary, NoDictionary
from edgesweep.engine.features.sites import LOGITS, Site, chosen_sites, parents_of
from edgesweep.engine.network import Inputs, Model, Run
from edgesweep.engine.network.layers import Stream

Values = dict[str, Stream]


class FeatureModel:
    """A model whose sites are read in the features of dictionaries.

    Args:
        dictionaries: site -> dictionary. `embed` is a site in any case; without a dictionary it is
            one node, its error.

    Attributes:
        sites: in forward order.

    Raises:
        SiteError: a name that is no site of the model.
        ValueError: a dictionary of another width than the model's.
    """

    def __init__(self, model: Model, dictionaries: Mapping[str, Dictionary]) -> None:
        self.model = model
        self.sites: tuple[Site, ...] = chosen_sites(dictionaries, model.spec.n_layers)
        whole = NoDictionary(model.d_model).to(model.device, model.layers[0].w_out.dtype)
        self._dictionaries = {"embed": whole, **dictionaries}
        for name, dictionary in self._dictionaries.items():
            if dictionary.d_model != model.d_model:
                raise ValueError(
                    f"the dictionary of site {name} is {dictionary.d_model} wide; "
                    f"{model.name} is {model.d_model}"
                )

    def dictionary(self, site: str) -> Dictionary:
        return self._dictionaries[site]

    def parents(self, target: str) -> tuple[Site, ...]:
        """Chosen sites that a target (a site's name, or `logits`) is computed from."""
        return parents_of(self.sites, self._site(target), self.model.spec)

    def _site(self, name: str) -> Site | None:
        return None if name == LOGITS else next(s for s in self.sites if s.name == name)

    def site_values(self, run: Run) -> Values:
        """The value of every site in a run, `[inputs, positions, d_model]`."""
        wanted = {site.name for site in self.sites}
        found, stream = {"embed": run.embed}, run.embed
        for layer, (attention, mlp) in enumerate(zip(run.attention, run.mlps, strict=True)):
            stream = stream + attention + mlp
            found |= {f"attn{layer}": attention, f"mlp{layer}": mlp, f"resid{layer}": stream}
        return {name: value for name, value in found.items() if name in wanted}

    def segment(
        self,
        target: str,
        values: Mapping[str, Stream],
        inputs: Inputs,
        rows: Int[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, "rows positions d_model"] | Float[Tensor, "rows vocab"]:
        """The value of a target from its parents'; of `logits`, at the read positions.

        Args:
            values: of at least the target's parents, `[rows, positions, d_model]`.
            rows: the input that each row belongs to; None: row i is input i.
        """
        site = self._site(target)
        parents = [p.name for p in self.parents(target)]
        given = {name: values[name] for name in parents[1:]}
        stream = values[parents[0]]
        start = self.parents(target)[0].layer + 1
        for index in range(start, self.model.spec.n_layers if site is None else site.layer + 1):
            stream, written = self._layer(index, stream, given, site, inputs, rows)
            if written is not None:
                return written
        if site is not None:
            return stream
        read = inputs.read if rows is None else inputs.read[rows]
        return self.model.unembed(stream[torch.arange(len(stream), device=stream.device), read])

    def _layer(
        self,
        index: int,
        stream: Stream,
        given: Mapping[str, Stream],
        target: Site | None,
        inputs: Inputs,
        rows: Int[Tensor, " rows"] | None,
    ) -> tuple[Stream, Stream | None]:
        """The stream after a layer; and the target's value where it is one of its blocks."""
        layer = self.model.layers[index]
        attention = given.get(f"attn{index}")
        if attention is None and not (target == Site("mlp", index) and self.model.spec.parallel):
            z = layer.attend(*layer.project(stream), inputs.context(index, rows))
            attention = layer.write(z)[0]
        if target == Site("attn", index):
            return stream, attention
        after = stream if attention is None else stream + attention
        mlp = given.get(f"mlp{index}")
        if mlp is None:
            mlp = layer.mlp(stream if self.model.spec.parallel else after)
        return after + mlp, mlp if target == Site("mlp", index) else None
