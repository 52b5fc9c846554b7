"""A circuit as a value: its edges by name, their weights, and how it was found.

It stands for itself, without a model or a run; `mask` and `on` place it in a graph, whose names it
then has. What reads other tools' files is `circuit_files`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from edgesweep.engine.graph.base import Graph
from edgesweep.engine.graph.circuits import EdgeMask
from edgesweep.engine.graph.edge_names import CircuitError, edge_places, our_name

if TYPE_CHECKING:
    import networkx

#: says that a file is ours
FORMAT = "edgesweep circuit 1"


@dataclass(frozen=True)
class Circuit:
    """Edges by name.

    Attributes:
        edges: name, `a0.h3->a3.h5.q`, to weight; None where it has none.
        joins: the nodes that each target belongs to, as far as they are known: under grouped-query
            attention `a3.kv1.k` belongs to several heads.
        name, model, task: of what it is, where that is known.
        selected: how it was found: method, aggregation, selection, threshold, …
    """

    edges: Mapping[str, float | None]
    joins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    name: str = ""
    model: str = ""
    task: str = ""
    selected: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_edges(cls, edges: Iterable[str], **about: Any) -> Circuit:
        """A circuit without weights; `about` are further attributes."""
        return cls({our_name(edge): None for edge in edges}, **about)

    @classmethod
    def of_mask(
        cls,
        graph: Graph,
        mask: EdgeMask,
        weights: Float[np.ndarray, " n_edges"] | None = None,
        **about: Any,
    ) -> Circuit:
        """The kept edges of a graph, in its order."""
        kept = np.flatnonzero(mask).tolist()
        given = [None] * len(kept) if weights is None else [_number(weights[e]) for e in kept]
        edges = dict(zip(map(graph.edge_name, kept), given, strict=True))
        return cls(edges, _joins(graph, graph.edge_target[kept].tolist()), **about)

    @property
    def n_edges(self) -> int:
        return len(self.edges)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes at either end of an edge; a head is one if any of its ports is."""
        return tuple(dict.fromkeys(node for _, pair, _ in self._links() for node in pair))

    def mask(self, graph: Graph) -> EdgeMask:
        """Bool `[n_edges]`: the circuit in a graph's order. Raises CircuitError for an edge that
        the graph lacks."""
        mask = np.zeros(graph.n_edges, dtype=bool)
        mask[edge_places(graph, self.edges)] = True
        return mask

    def on(self, graph: Graph) -> Circuit:
        """The same circuit in a graph's names and order. Edges into one key-value port that were
        given for each of its query heads become one, with the sum of their weights. Raises
        CircuitError for an edge that the graph lacks."""
        found: dict[int, list[float | None]] = {}
        for place, weight in zip(edge_places(graph, self.edges), self.edges.values(), strict=True):
            found.setdefault(place, []).append(weight)
        edges = {graph.edge_name(place): _sum(found[place]) for place in sorted(found)}
        joins = _joins(graph, graph.edge_target[list(found)].tolist())
        return replace(self, edges=edges, joins=joins)

    # --- other forms -------------------------------------------------------------------------
    def to_networkx(self) -> networkx.DiGraph:
        """A directed graph over nodes: ports are joined to their heads, an edge into a group's keys
        or values ends at each of its heads. Edges have `ports`, such as `qk` (none: ""), and
        `weight`, the sum over these, where there are weights."""
        import networkx

        found = networkx.DiGraph(name=self.name, model=self.model, task=self.task)
        for port, pair, weight in self._links():
            old = found.get_edge_data(*pair, default={"ports": "", "weight": 0.0})
            total = _sum([old.get("weight"), weight])
            found.add_edge(*pair, ports=old["ports"] + port)
            if total is not None:
                found.edges[pair]["weight"] = total
        return found

    def to_graphml(self, path: Path | str | None = None) -> str:
        """`to_networkx` as GraphML; written to `path` if that is given."""
        import networkx

        return _written("\n".join(networkx.generate_graphml(self.to_networkx())), path)

    def to_json(self, path: Path | str | None = None) -> str:
        """All that it is; `from_json` gives it back. Written to `path` if that is given."""
        edges = [
            {"source": s, "target": t, "nodes": self._ends(t), "weight": w}
            for (s, t), w in zip(self._pairs(), self.edges.values(), strict=True)
        ]
        about = {"name": self.name, "model": self.model, "task": self.task}
        whole = {"format": FORMAT, **about, "selected": dict(self.selected), "edges": edges}
        return _written(json.dumps(whole, indent=1, ensure_ascii=False), path)

    @classmethod
    def from_json(cls, text: str) -> Circuit:
        """What `to_json` gave. Raises CircuitError."""
        try:
            whole = json.loads(text)
            if whole["format"] != FORMAT:
                raise ValueError(f"its format is {whole['format']!r}, not {FORMAT!r}")
            edges = {f"{e['source']}->{e['target']}": _weight(e["weight"]) for e in whole["edges"]}
            joins = {e["target"]: tuple(map(str, e["nodes"])) for e in whole["edges"]}
            about = {key: str(whole[key]) for key in ("name", "model", "task")}
            return cls(edges, joins, **about, selected=dict(whole["selected"]))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            kind = type(error).__name__
            raise CircuitError(
                f"no circuit of ours ({kind}: {' '.join(str(error).split())})"
            ) from None

    # --- ends --------------------------------------------------------------------------------
    def _pairs(self) -> list[tuple[str, str]]:
        return [(s, t) for s, _, t in (edge.partition("->") for edge in self.edges)]

    def _links(self) -> list[tuple[str, tuple[str, str], float | None]]:
        """(port, (source, node), weight) for each edge and each node that it ends at."""
        return [
            (_port(target), (source, node), weight)
            for (source, target), weight in zip(self._pairs(), self.edges.values(), strict=True)
            for node in self._ends(target)
        ]

    def _ends(self, target: str) -> tuple[str, ...]:
        """The nodes of a target. Which heads a key-value head serves is known of a circuit of a
        graph; else it stands for itself, `a3.kv1`."""
        return self.joins.get(target) or (re.sub(r"\.[qkv]$", "", target),)


def _joins(graph: Graph, targets: list[int]) -> dict[str, tuple[str, ...]]:
    first, nodes = graph.ends.first, graph.ends.node.tolist()
    return {
        graph.targets[t]: tuple(graph.nodes[n] for n in nodes[first[t] : first[t + 1]])
        for t in dict.fromkeys(targets)
    }


def _port(target: str) -> str:
    match = re.search(r"\.([qkv])$", target)
    return match[1] if match else ""


def _sum(weights: list[float | None]) -> float | None:
    given = [w for w in weights if w is not None]
    return sum(given) if len(given) == len(weights) else None


def _number(weight: float) -> float | None:
    return float(weight) if math.isfinite(weight) else None


def _weight(given: Any) -> float | None:
    return None if given is None else float(given)


def _written(text: str, path: Path | str | None) -> str:
    if path is not None:
        Path(path).write_text(text + "\n", encoding="utf-8")
    return text
