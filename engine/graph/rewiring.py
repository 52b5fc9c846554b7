"""Random graphs with the degrees of one that is given: swaps of edges that keep each source's and
each target's degree, where the graph allows the new edges.

    (a -> s), (b -> t)   becomes   (a -> t), (b -> s)

if both new edges are possible (a is of a site that t reads, b of one that s reads) and neither is
there. A step draws two edges at random; what cannot be swapped stays, and the step counts. So steps
are symmetric, and the chain's law, once it has forgotten its start, is uniform over the graphs that
swaps reach. Where what targets may read is nested (over heads all sources before them), these are
all simple graphs of these degrees: two of them differ by closed walks that alternate between edges
of the one and of the other; a walk of six edges or more has a chord that is possible, and whether
that edge is there or not, one of the two walks that it cuts off can be swapped first.

How well it has forgotten its start, `Rewired` says. A comparison that is valid however well starts
all draws from one graph, some way down a chain from the given one (Besag and Clifford 1989): `hub`,
and from it `rewire`. If the given graph is a draw like the others, all of them are exchangeable.

Pinned by tests/graph/test_rewiring.py, which counts all graphs of small degrees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from edgesweep.engine.graph.base import Graph
from edgesweep.engine.graph.circuits import EdgeMask

#: steps of a chain for each edge
STEPS_AN_EDGE = 50

#: (source, target)
Pairs = Int[np.ndarray, "edges 2"]


@dataclass(frozen=True)
class Allowed:
    """Which edges are possible: those from a site to one that reads it.

    Attributes:
        source: site of each source, as a number. target: of each target.
        sites: bool, from the site of a source to that of a target.
    """

    source: Int[np.ndarray, " sources"]
    target: Int[np.ndarray, " targets"]
    sites: Bool[np.ndarray, "sites sites"]

    def holds(self, pairs: Pairs) -> Bool[np.ndarray, " edges"]:
        """Whether each edge is possible."""
        return self.sites[self.source[pairs[:, 0]], self.target[pairs[:, 1]]]


def allowed_edges(graph: Graph) -> Allowed:
    """Of edges as they are scored: from a source to a target."""
    return _allowed(graph, graph.node_table.site[: len(graph.sources)], graph.target_table.site)


def allowed_pairs(graph: Graph) -> Allowed:
    """Of edges between nodes, the ports of a node merged."""
    return _allowed(graph, graph.node_table.site, graph.node_table.site)


def _allowed(graph: Graph, source: Sequence[str], target: Sequence[str]) -> Allowed:
    number = {site: i for i, site in enumerate(dict.fromkeys((*source, *target)))}
    sites = np.zeros((len(number), len(number)), dtype=bool)
    for before, after in graph.reads:
        if before in number and after in number:  # a site may have no node
            sites[number[before], number[after]] = True
    of_source, of_target = (
        np.array([number[site] for site in of], dtype=np.int64) for of in (source, target)
    )
    return Allowed(of_source, of_target, sites)


def edges_of(graph: Graph, pairs: Pairs) -> EdgeMask:
    """Edges as (source, target), as a mask. Raises ValueError for one that the graph lacks."""
    width = len(graph.sources)
    every = graph.edge_target.astype(np.int64) * width + graph.edge_source  # ascending
    wanted = np.sort(pairs[:, 1] * width + pairs[:, 0])
    place = np.searchsorted(every, wanted)
    found = np.append(every, -1)[place]
    if (found != wanted).any():
        raise ValueError("an edge is none of the graph's")
    mask = np.zeros(graph.n_edges, dtype=bool)
    mask[place] = True
    return mask


@dataclass(frozen=True)
class Rewired:
    """A graph from a chain.

    Attributes:
        pairs: its edges, sorted.
        swapped: share of steps that swapped.
        kept: share of the start's edges that it has; kept_halfway: that the chain had after half of
            its steps. Once they are alike, the start is forgotten.
    """

    pairs: Pairs
    swapped: float
    kept: float
    kept_halfway: float


def rewire(pairs: Pairs, allowed: Allowed, n_steps: int, seed: int) -> Rewired:
    """A chain of `n_steps` from a graph.

    Args:
        pairs: distinct edges, in any order.

    Raises:
        ValueError: an edge twice, or one that is not allowed.
    """
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    if len(np.unique(pairs, axis=0)) < len(pairs):
        raise ValueError("an edge is there twice; the graph must be simple")
    if not allowed.holds(pairs).all():
        raise ValueError("an edge is none of those that are allowed")
    chain = _Chain(pairs, allowed)
    draw, start = np.random.default_rng(seed), set(chain.there)
    n_first = n_steps // 2
    swapped = chain.walk(n_first, draw)
    halfway = _share(start, chain.there)
    swapped += chain.walk(n_steps - n_first, draw)
    return Rewired(chain.pairs(), swapped / max(n_steps, 1), _share(start, chain.there), halfway)


def hub(pairs: Pairs, allowed: Allowed, seed: int) -> Pairs:
    """The graph from which all draws start that are to be compared with a given one."""
    return rewire(pairs, allowed, STEPS_AN_EDGE * len(pairs), seed).pairs


def _share(start: set[int], now: set[int]) -> float:
    return len(start & now) / len(start) if start else 1.0


class _Chain:
    """The graph as it stands: edge i is `source[i] -> target[i]`, `there` holds all as codes."""

    def __init__(self, pairs: Pairs, allowed: Allowed) -> None:
        self._source, self._target = pairs[:, 0].tolist(), pairs[:, 1].tolist()
        self._width = len(allowed.target)
        self.there = {s * self._width + t for s, t in pairs.tolist()}
        self._from = allowed.source.tolist()
        # by site of a source and then by target
        self._may = allowed.sites[:, allowed.target].tolist()

    def walk(self, n_steps: int, draw: np.random.Generator) -> int:
        """Takes so many steps; returns how many of them swapped."""
        source, target, there, width = self._source, self._target, self.there, self._width
        may, site, swapped = self._may, self._from, 0
        drawn = draw.integers(len(source), size=(n_steps, 2)) if source else np.zeros((0, 2), int)
        for i, j in drawn.tolist():
            a, b, s, t = source[i], source[j], target[i], target[j]
            if a == b or s == t or not (may[site[a]][t] and may[site[b]][s]):
                continue
            one, other = a * width + t, b * width + s
            if one in there or other in there:
                continue
            there.difference_update((a * width + s, b * width + t))
            there.update((one, other))
            target[i], target[j] = t, s
            swapped += 1
        return swapped

    def pairs(self) -> Pairs:
        codes = np.array(sorted(self.there), dtype=np.int64)
        return np.stack(np.divmod(codes, self._width), axis=1)
