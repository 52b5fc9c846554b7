"""Where the nodes of a graph are drawn, and how each kind of node looks.

A graph whose nodes all stand at places of their own is drawn by layer: heads on both sides of a
column of MLPs, embeddings below, logits above. Any other is drawn a row a site, of which there may
be thousands: of each site the drawn nodes, the strongest to the left.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from edgesweep.storage.graphs import GraphTables

#: width that the nodes of a site are spread over
WIDTH = 20.0
#: nodes of a site that are named in a drawing; more would be a smear, on a phone above all
MAX_NAMED = 8

Place = tuple[float, float]


class Node(NamedTuple):
    """A row of a graph's table of nodes."""

    site: str
    kind: str
    layer: int
    number: int


@dataclass(frozen=True)
class Look:
    """How nodes of a kind are drawn.

    Attributes:
        text: what is written at one; `{number}` is its own.
        side: where that stands; in the middle it is on the node, and the page colours it so.
        stands: whether each has a place of its own within its layer: in the middle, or in the
            column of its number.
        lift: how far above its layer.
    """

    symbol: str = "circle"
    size: int = 9
    text: str = "{number}"
    side: str = "middle right"
    font: int = 9
    stands: str = ""
    lift: float = 0.0


LOOKS = {
    "embed": Look("square", 12, "embed", "bottom center", 13, "middle"),
    "head": Look("circle", 16, "{number}", "middle center", 9, "column"),
    "mlp": Look("square", 16, "m", "middle center", 9, "middle", 0.5),
    "feature": Look(text="f{number}"),
    "region": Look(text="r{number}"),
    "error": Look("diamond", text="err"),
    "logits": Look("square", 12, "logits", "top center", 13, "middle", 0.5),
}


@dataclass(frozen=True)
class Drawing:
    """The nodes of a graph as they are drawn."""

    graph: GraphTables = field(repr=False)

    @cached_property
    def nodes(self) -> dict[str, Node]:
        """By name, in forward order."""
        rows = self.graph.node_table[list(Node._fields)].itertuples(index=False, name=None)
        return {n: Node(*row) for n, row in zip(self.graph.nodes, rows, strict=True)}

    @cached_property
    def sites(self) -> list[str]:
        """In forward order."""
        return list(dict.fromkeys(node.site for node in self.nodes.values()))

    @cached_property
    def by_layer(self) -> bool:
        """Whether it is drawn by layer, else by site."""
        return all(self.look(name).stands for name in self.nodes)

    def look(self, name: str) -> Look:
        return LOOKS.get(self.nodes[name].kind, Look())

    def places(self, strength: Mapping[str, float]) -> dict[str, Place]:
        """Column and row of the nodes that are drawn: of a drawing by layer all, else those that
        have a strength."""
        return self._in_layers() if self.by_layer else self._in_sites(strength)

    def _in_layers(self) -> dict[str, Place]:
        """The MLP stands in the middle, half a layer above its heads, which it reads; half of the
        heads stand on either side."""
        columns = [n.number for name, n in self.nodes.items() if self._has_column(name)]
        n_columns = 1 + max(columns, default=0)
        middle = n_columns // 2 if n_columns > 1 else 1
        found: dict[str, Place] = {}
        for name, node in self.nodes.items():
            column = node.number + (node.number >= middle) if self._has_column(name) else middle
            found[name] = (column, node.layer + self.look(name).lift)
        return found

    def _has_column(self, name: str) -> bool:
        return self.look(name).stands == "column"

    def _in_sites(self, strength: Mapping[str, float]) -> dict[str, Place]:
        row = {site: float(i) for i, site in enumerate(self.sites)}
        mine: dict[str, list[str]] = {}
        for name in sorted(strength, key=lambda n: (-strength[n], n)):
            mine.setdefault(self.nodes[name].site, []).append(name)
        return {
            name: (WIDTH * (i + 0.5) / len(of_site), row[site])
            for site, of_site in mine.items()
            for i, name in enumerate(of_site)
        }

    def texts(self, names: Iterable[str]) -> dict[str, str]:
        """What is written at drawn nodes: of a site of many nothing, for they tell their names
        when pointed at."""
        drawn = list(names)
        count = Counter(self.nodes[n].site for n in drawn)
        found = {}
        for name in drawn:
            node, look = self.nodes[name], self.look(name)
            few = bool(look.stands) or count[node.site] <= MAX_NAMED
            found[name] = look.text.format(number=node.number) if few else ""
        return found

    def axes(self, columns: float) -> dict[str, Any]:
        """Layout of the figure; `columns`: the rightmost place."""
        rows = self._layer_rows() if self.by_layer else self._site_rows()
        return {
            "xaxis": {"visible": False, "range": [-0.7, columns + 0.7], "fixedrange": True},
            **rows,
        }

    def _layer_rows(self) -> dict[str, Any]:
        n_layers = max(node.layer for node in self.nodes.values())  # that of the logits
        return {
            "height": int(min(1000, max(420, 27 * n_layers + 130))),
            "yaxis": {
                "title": {"text": "layer"},
                "tickvals": list(range(0, n_layers, 1 if n_layers <= 16 else 5)),
                "range": [-1.9, n_layers + 1.4],
                "gridwidth": 1,
            },
            "margin": {"l": 44, "r": 6, "t": 4, "b": 8},
        }

    def _site_rows(self) -> dict[str, Any]:
        n = len(self.sites)
        return {
            "height": int(min(1000, max(420, 96 * n + 60))),
            "yaxis": {
                "tickvals": list(range(n)),
                "ticktext": self.sites,
                "range": [-0.5, n - 0.5],
                "gridwidth": 1,
            },
            "margin": {"l": 58, "r": 6, "t": 4, "b": 8},
        }
