"""Names of nodes over features, `resid3/f120`, and where such nodes are drawn: a row a site."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

#: width that the nodes of a site are spread over
WIDTH = 20.0
#: nodes of a site that are named in a drawing; more would be a smear, on a phone above all
MAX_NAMED = 8
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


def site_places(
    nodes: Sequence[str], strength: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Where nodes are drawn: along the row of their site, which counts from 0, the strongest first.

    Args:
        nodes: of a graph over features, in its order; every site has a row.
        strength: the nodes to draw, and how strong each is.
    """
    row = {site: float(i) for i, site in enumerate(sites_of(nodes))}
    mine: dict[str, list[str]] = {}
    for node in sorted(strength, key=lambda n: (-strength[n], n)):
        mine.setdefault(site_of(node), []).append(node)
    return {
        node: (WIDTH * (i + 0.5) / len(of_site), row[site])
        for site, of_site in mine.items()
        for i, node in enumerate(of_site)
    }


def named_nodes(nodes: Iterable[str]) -> dict[str, str]:
    """What is written beside a drawn feature or error node: its name within its site, where few
    enough are drawn to be read; else it tells its name when pointed at."""
    drawn = [n for n in nodes if "/" in n]
    count = Counter(map(site_of, drawn))
    few = [n for n in drawn if count[site_of(n)] <= MAX_NAMED]
    return {n: n.partition("/")[2] for n in few}


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
