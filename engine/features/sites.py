"""Sites: the places of a transformer whose values are taken apart into features.

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

#: kinds, in their order within a layer
KINDS = ("attn", "mlp", "resid")
LOGITS = "logits"


class SiteError(ValueError):
    """A site that the model does not have; one line."""


@dataclass(frozen=True)
class Site:
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


def parse_site(name: str, n_layers: int) -> Site:
    """The site of that name.

    Raises:
        SiteError: no such site in a model of so many layers.
    """
    if name == "embed":
        return Site("embed")
    match = re.fullmatch(r"(attn|mlp|resid)(\d+)", name)
    if match is None or int(match[2]) >= n_layers:
        raise SiteError(
            f"{name!r} is no site; sites are embed, and attn0, mlp0, resid0 to "
            f"attn{n_layers - 1}, mlp{n_layers - 1}, resid{n_layers - 1}"
        )
    return Site(match[1], int(match[2]))


def chosen_sites(names: Iterable[str], n_layers: int) -> tuple[Site, ...]:
    """The named sites in forward order; `embed` is always one of them."""
    sites = {parse_site(name, n_layers) for name in names} | {Site("embed")}
    return tuple(sorted(sites, key=lambda site: site.place))


def parents_of(sites: Sequence[Site], target: Site | None, spec: GraphSpec) -> tuple[Site, ...]:
    """The chosen sites that a site (None: the logits) is computed from, in forward order."""
    before = [s for s in sites if target is None or s.place < target.place]
    cut = max(i for i, s in enumerate(before) if s.is_cut)
    parents = before[cut:]
    if target is not None and target.kind == "mlp" and spec.parallel:
        parents = [s for s in parents if s != Site("attn", target.layer)]
    return tuple(parents)
