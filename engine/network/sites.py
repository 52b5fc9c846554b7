"""The sites of a transformer.

In forward order: `embed`; then, layer by layer, `attn3` and `mlp3` (what the blocks add to the
stream) and `resid3` (the stream after the layer). `embed` and `resid` sites are *cuts*: every path
of the network runs through them. The parents of a site are the last cut before it and the `attn`
and `mlp` sites in between, which write into the stream on their own: u -> v is an edge if a path
joins them through no other chosen site.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgesweep.engine.graph import GraphSpec
from edgesweep.engine.network.base import LOGITS, SiteError

#: kinds, in their order within a layer
KINDS = ("attn", "mlp", "resid")


@dataclass(frozen=True)
class Place:
    """A chosen place.

    Attributes:
        kind: "embed", "attn", "mlp" or "resid".
        layer: of the model; -1 for `embed`.
    """

    kind: str
    layer: int = -1

    @property
    def name(self) -> str:
        return self.kind if self.kind == "embed" else f"{self.kind}{self.layer}"

    @property
    def is_cut(self) -> bool:
        return self.kind in ("embed", "resid")

    @property
    def place(self) -> tuple[int, int]:
        """Its place in forward order."""
        return self.layer, KINDS.index(self.kind) if self.kind in KINDS else 0


@dataclass(frozen=True)
class TransformerSites:
    """The sites of a transformer.

    Attributes:
        spec: its graph.
        d_model: the width of every site.
    """

    spec: GraphSpec
    d_model: int
    first = "embed"

    def named(self, pattern: str) -> list[str]:
        """See `engine.network.base.Sites`."""
        starred = re.fullmatch(r"(attn|mlp|resid)\*", pattern)
        if starred is None:
            return [self.place(pattern).name]
        return [f"{starred[1]}{layer}" for layer in range(self.spec.n_layers)]

    def place(self, name: str) -> Place:
        """The site of that name.

        Raises:
            SiteError: no such site in a model of so many layers.
        """
        if name == self.first:
            return Place(name)
        match = re.fullmatch(r"(attn|mlp|resid)(\d+)", name)
        if match is None or int(match[2]) >= self.spec.n_layers:
            last = self.spec.n_layers - 1
            raise SiteError(
                f"{name!r} is no site; sites are embed, and attn0, mlp0, resid0 to "
                f"attn{last}, mlp{last}, resid{last}"
            )
        return Place(match[1], int(match[2]))

    def chosen(self, names: Iterable[str]) -> tuple[Place, ...]:
        """See `engine.network.base.Sites`."""
        places = {self.place(name) for name in names} | {Place(self.first)}
        return tuple(sorted(places, key=lambda site: site.place))

    def parents(self, chosen: Sequence[Place], target: str) -> tuple[Place, ...]:
        """See `engine.network.base.Sites`."""
        place = None if target == LOGITS else self.place(target)
        before = [s for s in chosen if place is None or s.place < place.place]
        cut = max(i for i, s in enumerate(before) if s.is_cut)
        parents = before[cut:]
        if place is not None and place.kind == "mlp" and self.spec.parallel:
            parents = [s for s in parents if s != Place("attn", place.layer)]
        return tuple(parents)

    def width(self, site: str) -> int:
        """See `engine.network.base.Sites`."""
        return self.d_model

    def layer(self, site: str) -> int:
        """See `engine.network.base.Sites`."""
        return self.place(site).layer
