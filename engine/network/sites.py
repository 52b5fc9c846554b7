"""The sites of a transformer.

In forward order: `embed`; then, layer by layer, `attn3` and `mlp3` (what the blocks add to the
stream) and `resid3` (the stream after the layer). Within a block are `attn3.z`, the heads before
W_O side by side, and `mlp3.hidden`, the neurons after their activation; each stands in for its
block, and writes what that would. `embed` and `resid` sites are *cuts*: every path of the network
runs through them. The parents of a site are the last cut before it and the sites of blocks in
between, which write into the stream on their own: u -> v is an edge if a path joins them through no
other chosen site.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgesweep.engine.graph import GraphSpec
from edgesweep.engine.network.base import LOGITS, SiteError

#: kinds, in their order within a layer
KINDS = ("z", "attn", "hidden", "mlp", "resid")
#: the block that a kind is within
BLOCK = {"z": "attn", "hidden": "mlp"}


@dataclass(frozen=True)
class Place:
    """A chosen place.

    Attributes:
        kind: "embed", or one of `KINDS`.
        layer: of the model; -1 for `embed`.
    """

    kind: str
    layer: int = -1

    @property
    def name(self) -> str:
        if self.kind == "embed":
            return self.kind
        inside = f".{self.kind}" if self.kind in BLOCK else ""
        return f"{self.block}{self.layer}{inside}"

    @property
    def block(self) -> str:
        """The block that it is, or is within; `resid` and `embed` are themselves."""
        return BLOCK.get(self.kind, self.kind)

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
        d_model: the width of the stream and of what blocks write.
        d_heads, d_hidden: of all heads side by side, and of an MLP's neurons, 0 where it has none.
    """

    spec: GraphSpec
    d_model: int
    d_heads: int
    d_hidden: int
    first = "embed"

    def named(self, pattern: str) -> list[str]:
        """See `engine.network.base.Sites`."""
        starred = re.fullmatch(r"(attn\*(?:\.z)?|mlp\*(?:\.hidden)?|resid\*)", pattern)
        if starred is None:
            return [self.place(pattern).name]
        return [pattern.replace("*", str(layer)) for layer in range(self.spec.n_layers)]

    def place(self, name: str) -> Place:
        """The site of that name.

        Raises:
            SiteError: no such site in a model of so many layers.
        """
        if name == self.first:
            return Place(name)
        match = re.fullmatch(r"(attn|mlp|resid)(\d+)(\.z|\.hidden)?", name)
        kind = "" if match is None else (match[3] or match[1]).strip(".")
        if match and BLOCK.get(kind, kind) != match[1]:  # attn3.hidden
            kind = ""
        found = Place(kind, int(match[2]) if match else 0)
        if not kind or found.layer >= self.spec.n_layers or not self._width(kind):
            last = self.spec.n_layers - 1
            inside = ".z and .hidden within" if self.d_hidden else ".z within"
            raise SiteError(
                f"{name!r} is no site; sites are embed, and attn0, mlp0, resid0 to "
                f"attn{last}, mlp{last}, resid{last}, with {inside} attn and mlp"
            )
        return found

    def _width(self, kind: str) -> int:
        return {"z": self.d_heads, "hidden": self.d_hidden}.get(kind, self.d_model)

    def chosen(self, names: Iterable[str]) -> tuple[Place, ...]:
        """See `engine.network.base.Sites`."""
        places = {self.place(name) for name in names} | {Place(self.first)}
        for site in sorted(places, key=lambda site: site.place):
            whole = Place(site.block, site.layer)
            if whole != site and whole in places:
                raise SiteError(f"{whole.name} and {site.name} are one block; choose one of them")
        return tuple(sorted(places, key=lambda site: site.place))

    def parents(self, chosen: Sequence[Place], target: str) -> tuple[Place, ...]:
        """See `engine.network.base.Sites`."""
        place = None if target == LOGITS else self.place(target)
        before = [s for s in chosen if place is None or s.place < place.place]
        cut = max(i for i, s in enumerate(before) if s.is_cut)
        parents = before[cut:]
        if place is not None and place.block == "mlp" and self.spec.parallel:
            parents = [s for s in parents if (s.block, s.layer) != ("attn", place.layer)]
        return tuple(parents)

    @property
    def cuts(self) -> tuple[str, ...]:
        """See `engine.network.base.Sites`."""
        return tuple(f"resid{layer}" for layer in range(self.spec.n_layers))

    def width(self, site: str) -> int:
        """See `engine.network.base.Sites`."""
        return self._width(self.place(site).kind)

    def layer(self, site: str) -> int:
        """See `engine.network.base.Sites`."""
        return self.place(site).layer
