"""Names of nodes over features, `resid3/f120`, and where such nodes are drawn: a row a site."""

import re
from collections.abc import Iterable, Sequence

#: width that the nodes of a site are spread over
WIDTH = 20.0
#: blocks of one layer in forward order
_KINDS = ("a", "attn", "m", "mlp", "resid")


def site_of(node: str) -> str:
    """The site of a feature or error node; `logits` is its own, and over heads every node."""
    return node.partition("/")[0]


def is_error(node: str) -> bool:
    """Whether a node is what a dictionary leaves over."""
    return node.endswith("/err")


def over_features(nodes: Sequence[str]) -> bool:
    """Whether a graph is one over features."""
    return any("/" in node for node in nodes)


def sites_of(nodes: Iterable[str]) -> list[str]:
    """The sites of a graph over features in forward order, the order of its nodes."""
    return list(dict.fromkeys(map(site_of, nodes)))


def site_places(nodes: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Where each node is drawn: spread along the row of its site, which counts from 0."""
    found: dict[str, tuple[float, float]] = {}
    for row, site in enumerate(sites_of(nodes)):
        mine = [n for n in nodes if site_of(n) == site]
        for i, node in enumerate(mine):
            found[node] = (WIDTH * (i + 0.5) / len(mine), float(row))
    return found


def forward_key(node: str) -> tuple[float, int, float]:
    """Sorts nodes, over heads or features, as the model runs them; an error node ends its site."""
    site, _, tail = node.partition("/")
    if site in ("embed", "logits"):
        place = -1.0 if site == "embed" else float("inf")
        return place, 0, _number(tail)
    kind, layer, head = re.fullmatch(r"([a-z]+)(\d+)(?:\.h(\d+))?", site).groups()  # type: ignore[union-attr]
    return float(layer), _KINDS.index(kind), float(head) if head else _number(tail)


def _number(tail: str) -> float:
    """Of a feature, its own; of an error node, beyond all."""
    return float(tail[1:]) if tail.startswith("f") else float("inf")
