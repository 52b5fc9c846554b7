"""The graph of a cell, as arrays: names, ends of edges, and what each node and target is.

attributions.zarr/<graph>/edge_source, edge_target [edge], with the names of their indices
                         /ends [pair of a target and a node of it], with the names of nodes
                         /nodes, targets [row, site kind layer number port], with the names of
                             sites, kinds and ports

Where it lies the plan says of each cell (`graph`): the cells of a model over heads have one.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import pandas as pd

from edgesweep.engine.graph import Graph, NodeTable
from edgesweep.storage import layout
from edgesweep.storage.arrays import has_array, read_static, write_static
from edgesweep.storage.rundir import RunDirectory

#: columns of a table that are stored as numbers of names
_NAMED = ("site", "kind", "port")
_COLUMNS = ("site", "kind", "layer", "number", "port")


@dataclass(frozen=True)
class GraphTables:
    """A cell's graph as it is stored.

    Attributes:
        sources, targets, nodes: names, in their order.
        edge_source, edge_target: index of each edge's ends in `sources` and `targets`.
        ends: (target, node) pairs; a key-value port belongs to all heads of its group.
        node_table, target_table: a row a node or target; columns site, kind, layer, number, port
            (`engine.graph.NodeTable`).
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    nodes: tuple[str, ...]
    edge_source: np.ndarray
    edge_target: np.ndarray
    ends: np.ndarray
    node_table: pd.DataFrame
    target_table: pd.DataFrame

    @property
    def n_edges(self) -> int:
        return len(self.edge_target)

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """Every edge's name, `a0.h3->a3.h5.q`."""
        pairs = zip(self.edge_source.tolist(), self.edge_target.tolist(), strict=True)
        return tuple(f"{self.sources[s]}->{self.targets[t]}" for s, t in pairs)

    def joins(self, targets: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The nodes that each of these targets belongs to."""
        wanted = set(targets)
        found: dict[str, tuple[str, ...]] = {}
        for target, node in self.ends.tolist():
            if (name := self.targets[target]) in wanted:
                found[name] = (*found.get(name, ()), self.nodes[node])
        return found


def write_graph(run: RunDirectory, cell: str, graph: Graph) -> None:
    """Stores a cell's graph. Done again it changes nothing. Driver only."""
    nodes, about_nodes = _encoded(graph.node_table)
    targets, about_targets = _encoded(graph.target_table)
    tables = {
        "edge_source": (graph.edge_source, {"names": list(graph.sources)}),
        "edge_target": (graph.edge_target, {"names": list(graph.targets)}),
        "nodes": (nodes, about_nodes),
        "targets": (targets, about_targets),
        "ends": (graph.ends.pairs, {"nodes": list(graph.nodes)}),
    }
    for name, (values, attributes) in tables.items():
        write_static(run.attributions, f"{graph_of(run, cell)}/{name}", values, attributes)


def graph_of(run: RunDirectory, cell: str) -> str:
    """Where a cell's graph lies: the same for cells that have one graph."""
    return run.graphs.get(cell, layout.graph(cell))


def has_graph(run: RunDirectory, cell: str) -> bool:
    """Whether a cell's graph is known: over features it is once scores are reduced."""
    return has_array(run.attributions, f"{graph_of(run, cell)}/ends")


def graphs_of(
    run: RunDirectory, cells: Iterable[str], known: Container[str]
) -> tuple[list[str], Callable[[str], GraphTables]]:
    """The cells whose graphs are known, as are those of `known` cells, and what reads them: one
    that many cells have is looked for and read once."""
    first: dict[str, str] = {}
    mine = {cell: first.setdefault(graph_of(run, cell), cell) for cell in cells}
    there = {one for one in first.values() if one in known or has_graph(run, one)}
    read = lru_cache(maxsize=4)(partial(read_graph, run))
    return [cell for cell, one in mine.items() if one in there], lambda cell: read(mine[cell])


def read_graph(run: RunDirectory, cell: str) -> GraphTables:
    """A cell's graph. Raises StorageError where a part of it is missing or not what was written."""
    place = run.attributions / graph_of(run, cell)
    sources, about_sources = read_static(place, "edge_source")
    targets, about_targets = read_static(place, "edge_target")
    ends, about_ends = read_static(place, "ends")
    return GraphTables(
        tuple(about_sources["names"]),
        tuple(about_targets["names"]),
        tuple(about_ends["nodes"]),
        sources,
        targets,
        ends,
        _decoded(*read_static(place, "nodes")),
        _decoded(*read_static(place, "targets")),
    )


def _encoded(table: NodeTable) -> tuple[np.ndarray, dict[str, list[str]]]:
    names = {column: list(dict.fromkeys(getattr(table, column))) for column in _NAMED}
    columns = []
    for column in _COLUMNS:
        values = getattr(table, column)
        if column in names:
            number = {name: i for i, name in enumerate(names[column])}
            values = [number[value] for value in values]
        columns.append(np.asarray(values, dtype=np.int64))
    return np.stack(columns, axis=1), names


def _decoded(values: np.ndarray, names: dict[str, list[str]]) -> pd.DataFrame:
    table = pd.DataFrame(values, columns=list(_COLUMNS))
    for column in _NAMED:
        table[column] = np.array(names[column], dtype=object)[table[column]]
    return table
