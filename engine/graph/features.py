"""The graph over features: nodes of the sites, and a list of edges between them.

Nodes are features of a site's dictionary, `resid3/f120`, its error node `resid3/err`, and `logits`.
An edge is allowed from a node of a site to a node of each site that is computed from it, whatever
the token positions. Only the edges that were found are kept, as a list: the full table of one
dictionary of 32k features against the next would have 10^9 entries.

Order, relied on by every array of a run: nodes by site in forward order, within a site features by
number and then the error node; edges by target, then by source. Sites come as a table of parents
(`engine.network.sites`), so nothing here knows of models.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from jaxtyping import Bool, Int

from edgesweep.engine.graph.base import Ends, NodeTable

#: what an error node has in place of a feature's number
ERROR = -1
SINK = "logits"

#: (source, target), as indices of nodes
Pairs = Int[np.ndarray, "edges 2"]


@dataclass(frozen=True)
class SiteBlock:
    """The nodes of one site as targets.

    Attributes:
        site: its name; `logits` for the sink.
        first_target: index of its first target; the others follow.
        n_targets: how many it has.
        edges: the edges that end in it.
    """

    site: str
    first_target: int
    n_targets: int
    edges: slice


class FeatureGraph:
    """An explicit graph over features, error nodes and the logits.

    Args:
        parents: for every site and for `logits`, in forward order, the sites that it is computed
            from; those of the first site are none.
        nodes: feature numbers of each site's nodes, `ERROR` for its error node.
        edges: pairs of indices into `nodes` of this graph, in any order, repetitions allowed.

    Attributes:
        parents: as given.
        nodes, sources, targets: names; `sources` are the nodes without the sink, `targets` those
            that are not of the first site.
        numbers: feature number of each node; `ERROR` of error nodes and of the sink.
        edge_source, edge_target: index of each edge's ends in `sources` and `targets`.

    Raises:
        ValueError: an edge between sites of which none is the other's parent.
    """

    #: a node that is numbered, in its name and in the table of nodes
    word, kind = "f", "feature"

    def __init__(
        self,
        parents: Mapping[str, Sequence[str]],
        nodes: Mapping[str, Iterable[int]],
        edges: Pairs,
    ) -> None:
        self.parents = {site: tuple(of) for site, of in parents.items()}
        self._site_names = tuple(self.parents)
        per_site = [_in_order(nodes.get(site, ())) for site in self._site_names[:-1]]
        self.numbers = np.concatenate([*per_site, np.array([ERROR])])
        self._first = np.cumsum([0, *map(len, per_site), 1])
        self.nodes: tuple[str, ...] = tuple(self._names())
        self.sources, self.n_roots = self.nodes[:-1], len(per_site[0])
        self.targets = self.nodes[self.n_roots :]
        source, node = self._sorted(edges)
        self.edge_source = source.astype(np.int32)
        self.edge_target = (node - self.n_roots).astype(np.int32)
        self.n_edges = len(source)
        self.fixed_nodes = (*((0,) if self.n_roots == 1 else ()), len(self.nodes) - 1)

    @classmethod
    def complete(
        cls, parents: Mapping[str, Sequence[str]], nodes: Mapping[str, Iterable[int]]
    ) -> Self:
        """Every edge that is allowed between these nodes; for few nodes only."""
        bare = cls(parents, nodes, np.zeros((0, 2), dtype=np.int64))
        pairs = [
            np.stack(np.meshgrid(bare._range(parent), bare._range(site)), axis=-1).reshape(-1, 2)
            for site, of in bare.parents.items()
            for parent in of
        ]
        return cls(parents, nodes, np.concatenate(pairs))

    def __repr__(self) -> str:
        return f"FeatureGraph({len(self.nodes)} nodes, {self.n_edges} edges)"

    # --- nodes -------------------------------------------------------------------------------
    def _names(self) -> Iterator[str]:
        for site in self._site_names[:-1]:
            for number in self.features(site, errors=True):
                yield f"{site}/err" if number == ERROR else f"{site}/{self.word}{number}"
        yield SINK

    def site_nodes(self, site: str) -> slice:
        """The nodes of a site (or `logits`), as indices into `nodes`."""
        place = self._site_names.index(site)
        return slice(int(self._first[place]), int(self._first[place + 1]))

    def features(self, site: str, *, errors: bool = False) -> Int[np.ndarray, " nodes"]:
        """Feature numbers of a site's nodes; with `errors`, `ERROR` last if it is a node."""
        numbers = self.numbers[self.site_nodes(site)]
        return numbers if errors else numbers[numbers != ERROR]

    def error_node(self, site: str) -> int | None:
        """Index of a site's error node among `nodes`, None where it is no node."""
        span = self.site_nodes(site)
        is_node = span.stop > span.start and self.numbers[span.stop - 1] == ERROR
        return span.stop - 1 if is_node else None

    def node_index(self, name: str) -> int:
        """Index of a node by its name.

        Raises:
            KeyError: no node of this graph.
        """
        if name not in self._index:
            raise KeyError(f"{name}: no such node in this graph")
        return self._index[name]

    @property
    def is_error(self) -> Bool[np.ndarray, " nodes"]:
        """Which nodes are error nodes."""
        return np.append(self.numbers[:-1] == ERROR, False)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.nodes)}

    @cached_property
    def _site_of(self) -> Int[np.ndarray, " nodes"]:
        return np.repeat(np.arange(len(self._site_names)), np.diff(self._first))

    def _range(self, site: str) -> Int[np.ndarray, " nodes"]:
        span = self.site_nodes(site)
        return np.arange(span.start, span.stop)

    # --- edges -------------------------------------------------------------------------------
    def _sorted(self, edges: Pairs) -> tuple[np.ndarray, np.ndarray]:
        """Sources and target nodes in the edge order, each edge once."""
        edges = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
        n_nodes = len(self.nodes)
        if edges.size and not (edges.min() >= 0 and edges.max() < n_nodes):
            raise ValueError(f"an edge's end is no index of one of the {n_nodes} nodes")
        codes = np.unique(edges[:, 1] * n_nodes + edges[:, 0])
        node, source = np.divmod(codes, n_nodes)
        allowed = self._allowed[self._site_of[source], self._site_of[node]]
        if not allowed.all():
            bad = int(np.argmin(allowed))
            source_name, target_name = self.nodes[source[bad]], self.nodes[node[bad]]
            raise ValueError(f"{source_name}->{target_name}: {target_name} does not read its site")
        return source, node

    @cached_property
    def _allowed(self) -> Bool[np.ndarray, "sites sites"]:
        """From parent (row) to site (column)."""
        table = np.zeros((len(self._site_names), len(self._site_names)), dtype=bool)
        for column, (site, of) in enumerate(self.parents.items()):
            for parent in of:
                table[self._site_names.index(parent), column] = True
            if parent_after(self._site_names, site, of):
                raise ValueError(f"sites are in forward order; a parent of {site} is not before it")
        return table

    @cached_property
    def n_edges_possible(self) -> int:
        """Pairs of nodes of a site and of one of its parents."""
        sizes = np.diff(self._first)
        return int(sizes @ self._allowed @ sizes)

    def n_edges_among(self, kept: Bool[np.ndarray, " nodes"]) -> int:
        """Pairs that the sites allow among these nodes and the sink: E|V_C."""
        sizes = np.bincount(self._site_of[:-1], kept[:-1], minlength=len(self._site_names))
        sizes[-1] = 1
        return int(sizes @ self._allowed @ sizes)

    def edge_name(self, edge: int) -> str:
        """The edge as people write it: `resid2/f7->resid3/err`."""
        return f"{self.sources[self.edge_source[edge]]}->{self.targets[self.edge_target[edge]]}"

    def edge_index(self, name: str) -> int:
        """Index of an edge by its name.

        Raises:
            KeyError: the graph has no such edge.
        """
        source, _, target = name.partition("->")
        ends = self.node_index(source), self.node_index(target)
        code = ends[1] * len(self.nodes) + ends[0]
        place = int(np.searchsorted(self._codes, code))
        if place == self.n_edges or self._codes[place] != code:
            raise KeyError(f"{name}: not one of this graph's edges")
        return place

    @cached_property
    def _codes(self) -> Int[np.ndarray, " edges"]:
        node = self.edge_target.astype(np.int64) + self.n_roots
        return node * len(self.nodes) + self.edge_source

    # --- views -------------------------------------------------------------------------------
    @cached_property
    def blocks(self) -> tuple[SiteBlock, ...]:
        """The sites after the first, and the sink, as targets."""
        return tuple(self._block(site) for site in self._site_names[1:])

    def _block(self, site: str) -> SiteBlock:
        span = self.site_nodes(site)
        first, n_targets = span.start - self.n_roots, span.stop - span.start
        edges = np.searchsorted(self.edge_target, [first, first + n_targets])
        return SiteBlock(site, first, n_targets, slice(int(edges[0]), int(edges[1])))

    @cached_property
    def ends(self) -> Ends:
        """A target is one node."""
        targets = np.arange(len(self.targets))
        return Ends(targets, targets + self.n_roots, len(targets), len(self.nodes))

    @cached_property
    def reach(self) -> Ends:
        """A target is its node; what enters an error node changes all of its site besides, for a
        feature falls back on the error node's mask where it was not attributed
        (`engine.features.ablation.edge_ablation`)."""
        targets, nodes = [self.ends.target], [self.ends.node]
        for site in self._site_names[1:-1]:
            error = self.error_node(site)
            if error is not None:
                others = self._range(site)[:-1]
                targets.append(np.full(len(others), error - self.n_roots))
                nodes.append(others)
        target, node = np.concatenate(targets), np.concatenate(nodes)
        order = np.lexsort((node, target))
        return Ends(target[order], node[order], len(self.targets), len(self.nodes))

    @cached_property
    def node_table(self) -> NodeTable:
        """What each node is."""
        return self._table(0)

    @cached_property
    def target_table(self) -> NodeTable:
        """What each target is."""
        return self._table(self.n_roots)

    @property
    def reads(self) -> frozenset[tuple[str, str]]:
        """Each site with those that are computed from it."""
        return frozenset((parent, site) for site, of in self.parents.items() for parent in of)

    def _table(self, first: int) -> NodeTable:
        """Of the nodes from `first` on."""
        places, numbers = self._site_of[first:], self.numbers[first:]
        kind = np.where(numbers == ERROR, "error", self.kind).tolist()
        kind[-1] = "logits"
        site = tuple(self._site_names[i] for i in places.tolist())
        return NodeTable(site, tuple(kind), places - 1, numbers, ("",) * len(site))

    def without_errors(self, mask: Bool[np.ndarray, " edges"]) -> Bool[np.ndarray, " edges"]:
        """The circuit without edges that start at an error node: what is left of it where error
        terms are fixed and so no nodes."""
        return mask & ~self.is_error[self.edge_source]


def parent_after(names: Sequence[str], site: str, parents: Sequence[str]) -> bool:
    """Whether a site comes before one of its parents."""
    place = names.index(site)
    return any(names.index(parent) >= place for parent in parents)


def _in_order(numbers: Iterable[int]) -> Int[np.ndarray, " nodes"]:
    """Features by number, then the error node."""
    found = np.unique(np.fromiter(numbers, dtype=np.int64))
    return np.concatenate([found[found != ERROR], found[found == ERROR]])
