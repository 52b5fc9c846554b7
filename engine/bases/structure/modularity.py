"""Modules of an interaction graph: sets of directions that act on each other more than their
degrees would have it (LIB section 4.4).

    w_ab = max(0, ln(E²_ab / ε))      ε: the smallest E² of the section's interactions that are
                                      needed; without constants, without a layer that has no basis
    Q = Σ_ab [w_ab / 2m − γ k_a k_b / (2m)²] δ(a, b),    k_a = Σ_b w_ab,  2m = Σ_a k_a

as in the published code (logarithms to base ten, the same partition); equation 4 has incoming
degrees alone, and another factor. The partition is Leiden's (Traag, Waltman and van Eck 2019, by
leidenalg), the best of several seeds; `agreement` says how alike those of two seeds are.

Of any graph some partition has a large Q. So it stands beside those of rewired graphs
(`engine.graph.rewiring`): each section's edges swapped, so that each direction keeps its degrees
and the weights of what it acts on; the same number of seeds for each.

Pinned by tests/bases/test_modules.py: Q by hand, and two independent halves of a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from edgesweep.engine.graph.rewiring import STEPS_AN_EDGE, Allowed, Pairs, hub, rewire
from edgesweep.engine.structure import Partition, agreement, numbered, p_value

#: rounds of Leiden: until one improves nothing, which is sooner than the ten published ones, and of
#: several seeds as good
N_ITERATIONS = -1
#: how to have it
HOW_TO_INSTALL = (
    "modules need igraph and leidenalg; install them with: pip install edgesweep[modules]"
)


def has_leiden() -> bool:
    """Whether this interpreter has what `leiden` needs."""
    return all(find_spec(name) is not None for name in ("igraph", "leidenalg"))


@dataclass(frozen=True)
class Section:
    """A section's interactions.

    Attributes:
        start, end: places of its layers.
        mean_square: E² `[k_out, k_in]`, without the constant.
        kept: how many of the strongest are needed.
    """

    start: int
    end: int
    mean_square: Float[np.ndarray, "k_out k_in"]
    kept: int


@dataclass(frozen=True)
class Wiring:
    """Directions and the interactions between them that are needed, as an undirected graph.

    Attributes:
        layer: of each direction.
        pairs: (earlier direction, later one), sorted.
        weights: w of each pair, above 0.
    """

    layer: Int[np.ndarray, " nodes"]
    pairs: Pairs
    weights: Float[np.ndarray, " edges"]

    @classmethod
    def of(cls, sizes: list[int], sections: Iterable[Section]) -> Wiring:
        """`sizes`: directions of each layer, numbered one layer after another."""
        first = np.concatenate([[0], np.cumsum(sizes)])
        pairs, weights = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0)]
        for section in sections:
            i, j, w = _weighted(section)
            pairs.append(np.stack([first[section.start] + j, first[section.end] + i], 1))
            weights.append(w)
        layer = np.repeat(np.arange(len(sizes)), sizes)
        return cls(layer, *_sorted(np.concatenate(pairs), np.concatenate(weights)))

    @property
    def n(self) -> int:
        return len(self.layer)

    @cached_property
    def linked(self) -> Int[np.ndarray, " some"]:
        """The directions that have an edge; others are modules by themselves."""
        return np.unique(self.pairs)


def _weighted(section: Section) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(later, earlier, w) of the strongest interactions; of those the weakest has w = 0, and so is
    no edge."""
    square = section.mean_square
    order = np.argsort(-square, axis=None, kind="stable")[: section.kept]
    values = square.ravel()[order]
    values, order = values[values > 0], order[values > 0]
    if not len(values):
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    w = np.log(values / values.min())
    i, j = np.unravel_index(order[w > 0], square.shape)
    return i, j, w[w > 0]


def _sorted(pairs: Pairs, weights: np.ndarray) -> tuple[Pairs, np.ndarray]:
    order = np.lexsort(pairs.T[::-1])
    return pairs[order], weights[order]


# --- partitions --------------------------------------------------------------------------------


def leiden(wiring: Wiring, resolution: float, seed: int) -> Partition:
    """The module of each direction, numbered by first appearance."""
    import igraph
    import leidenalg

    # others would cost as much, and be modules by themselves
    linked = wiring.linked
    graph = igraph.Graph(n=len(linked), edges=np.searchsorted(linked, wiring.pairs).tolist())
    found = leidenalg.find_partition(
        graph,
        leidenalg.RBConfigurationVertexPartition,
        weights=wiring.weights.tolist(),
        n_iterations=N_ITERATIONS,
        seed=seed,
        resolution_parameter=resolution,
    )
    modules = len(linked) + np.arange(wiring.n)
    modules[linked] = found.membership
    return numbered(modules.tolist())


def modularity(wiring: Wiring, modules: Partition, resolution: float = 1.0) -> float:
    """Q; NaN without edges."""
    if not len(wiring.pairs):
        return float("nan")
    blocks, twice = np.asarray(modules), 2 * wiring.weights.sum()
    inside = blocks[wiring.pairs[:, 0]] == blocks[wiring.pairs[:, 1]]
    strength = np.zeros(blocks.max() + 1)
    for ends in wiring.pairs.T:
        np.add.at(strength, blocks[ends], wiring.weights)
    within = 2 * wiring.weights[inside].sum() / twice
    return float(within - resolution * np.square(strength / twice).sum())


@dataclass(frozen=True)
class Modules:
    """At one resolution.

    Attributes:
        modules: of each direction, the best of all seeds.
        q: its modularity.
        agreement: adjusted mutual information of two seeds' modules, on average, over directions
            that have an edge; NaN of one seed.
        drawn: Q of each rewired graph, and `p` of q among them.
    """

    resolution: float
    modules: Partition
    q: float
    agreement: float
    drawn: tuple[float, ...]
    p: float


def modules_of(
    wiring: Wiring, resolution: float, n_seeds: int, seed: int, n_rewired: int
) -> Modules:
    """The best partition of a graph, and how it stands beside those of rewired graphs."""
    every = [leiden(wiring, resolution, seed + i) for i in range(n_seeds)]
    best = max(every, key=lambda found: modularity(wiring, found, resolution))
    linked = wiring.linked
    alike = [
        agreement([a[i] for i in linked], [b[i] for i in linked]) for a, b in combinations(every, 2)
    ]
    drawn = tuple(
        max(
            modularity(other, leiden(other, resolution, seed + i), resolution)
            for i in range(n_seeds)
        )
        for other in rewired(wiring, n_rewired, seed)
    )
    q = modularity(wiring, best, resolution)
    mean = float(np.mean(alike)) if alike else float("nan")
    return Modules(resolution, best, q, mean, drawn, p_value(q, drawn))


def rewired(wiring: Wiring, n: int, seed: int) -> Iterator[Wiring]:
    """Random graphs with each direction's degrees in each section, and with the weights of what it
    acts on."""
    if not n or not len(wiring.pairs):
        return
    n_layers = int(wiring.layer.max()) + 1
    allowed = Allowed(wiring.layer, wiring.layer, np.eye(n_layers, k=1, dtype=bool))
    middle = hub(wiring.pairs, allowed, seed)
    steps = STEPS_AN_EDGE * len(wiring.pairs)
    for number in range(1, n + 1):
        pairs = rewire(middle, allowed, steps, seed + number).pairs
        yield replace(wiring, pairs=pairs, weights=_dealt(wiring, seed + number))


def _dealt(wiring: Wiring, seed: int) -> np.ndarray:
    """The weights of each direction's edges to later ones, in an order that is drawn. Pairs are
    sorted by the earlier direction, of which a rewired graph has as many edges."""
    draw = np.random.default_rng(seed).random(len(wiring.weights))
    weights: np.ndarray = wiring.weights[np.lexsort((draw, wiring.pairs[:, 0]))]
    return weights
