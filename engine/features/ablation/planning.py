"""What an ablated run has to compute of a site: each distinct stream once, and who reads it.

1. A *mask* is what a target keeps in a circuit on an input: that of a feature which is attributed
   at some position of the input, or of the site's error node, on which features fall back at their
   other positions. Only targets that something reads are asked for.
2. Masks with equal fingerprints (`prints`) are one *row*, across targets and
   circuits. Under patch values of one run a mask that keeps nothing which differs from the patch
   gives the patch value, and has no row.
3. A *request* is a feature to be read off a row for a circuit, where its own positions are or
   where it falls back.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt64
from scipy.sparse import csr_array

from edgesweep.engine.features.ablation.differences import Differences
from edgesweep.engine.features.ablation.prints import Prints, distinct, mask_prints, value_prints
from edgesweep.engine.graph import FeatureGraph
from edgesweep.engine.graph.circuits import EdgeMask

Places = Int[np.ndarray, " nodes"]


class Circuit:
    """A pruned circuit and how far its run has come.

    Attributes:
        wanted: which nodes are read.
        differences: of the sites that later targets still read.
    """

    def __init__(self, graph: FeatureGraph, mask: EdgeMask) -> None:
        self._graph = graph
        self._source = graph.edge_source[mask].astype(np.int64)
        self._node = graph.edge_target[mask].astype(np.int64) + graph.n_roots
        self.wanted = np.zeros(len(graph.nodes), dtype=bool)
        self.wanted[self._source] = True
        self.differences: dict[str, Differences] = {}
        self._kept: dict[tuple[str, str], csr_array] = {}

    def forget(self, needed: Set[str]) -> None:
        """Drop the differences of all other sites."""
        self.differences = {k: v for k, v in self.differences.items() if k in needed}
        self._kept.clear()

    def kept(self, site: str, parent: str) -> csr_array:
        """Kept edges from a parent's nodes (columns) to a site's (rows), as places within both."""
        if (site, parent) not in self._kept:
            self._kept[site, parent] = self._table(site, parent)
        return self._kept[site, parent]

    def _table(self, site: str, parent: str) -> csr_array:
        rows, columns = self._graph.site_nodes(site), self._graph.site_nodes(parent)
        first, last = np.searchsorted(self._node, [rows.start, rows.stop])
        source, node = self._source[first:last], self._node[first:last]
        here = (source >= columns.start) & (source < columns.stop)
        pairs = (node[here] - rows.start, source[here] - columns.start)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        return csr_array((np.ones(len(pairs[0]), dtype=bool), pairs), shape=shape)

    def prints(self, site: str) -> Prints:
        """Fingerprint of the mask of every node of a site."""
        return sum(  # type: ignore[return-value]
            mask_prints(self.kept(site, parent), self.differences[parent].prints)
            for parent in self._graph.parents[site]
        )

    def places(self, site: str) -> Places:
        """Features of a site that are read, as places among its nodes."""
        span = self._graph.site_nodes(site)
        return np.flatnonzero(self.wanted[span] & ~self._graph.is_error[span])

    def wants_error(self, site: str) -> bool:
        node = self._graph.error_node(site)
        return node is not None and bool(self.wanted[node])


@dataclass(frozen=True)
class Masks:
    """Masks as columns; `node` is a place among the site's nodes, -1 for an error node that the
    graph lacks."""

    circuit: Int[np.ndarray, " masks"]
    node: Int[np.ndarray, " masks"]
    input: Int[np.ndarray, " masks"]
    prints: UInt64[np.ndarray, "masks 2"]

    @classmethod
    def join(cls, parts: Sequence["Masks"]) -> "Masks":
        names = ("circuit", "node", "input", "prints")
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))

    def __getitem__(self, which: np.ndarray) -> "Masks":
        return Masks(self.circuit[which], self.node[which], self.input[which], self.prints[which])

    def __len__(self) -> int:
        return len(self.circuit)


@dataclass(frozen=True)
class Requests:
    """Features to be read off rows, as columns sorted by row.

    Attributes:
        row: whose stream the target reads.
        place: of the feature among the site's nodes.
        input: the row's.
        falls_back: whether the positions are those where the feature was not attributed.
        slot: where the answer goes: a line of `[inputs, places]` of each circuit in turn.
    """

    row: Int[np.ndarray, " requests"]
    place: Int[np.ndarray, " requests"]
    input: Int[np.ndarray, " requests"]
    falls_back: Bool[np.ndarray, " requests"]
    slot: Int[np.ndarray, " requests"]

    def of_rows(self, first: int, last: int) -> "Requests":
        """Those of rows first to last - 1, which are numbered from 0 there."""
        span = slice(*np.searchsorted(self.row, [first, last]))
        columns = (self.place[span], self.input[span], self.falls_back[span], self.slot[span])
        return Requests(self.row[span] - first, *columns)

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class ErrorRequests:
    """Error terms to be read off rows for circuits, as columns sorted by row."""

    row: Int[np.ndarray, " requests"]
    circuit: Int[np.ndarray, " requests"]
    input: Int[np.ndarray, " requests"]

    def of_rows(self, first: int, last: int) -> "ErrorRequests":
        """Those of rows first to last - 1, which are numbered from 0 there."""
        span = slice(*np.searchsorted(self.row, [first, last]))
        return ErrorRequests(self.row[span] - first, self.circuit[span], self.input[span])


@dataclass(frozen=True)
class SitePlan:
    """What is to be computed of a site.

    Attributes:
        rows: one mask for each distinct stream, sorted by circuit and input.
        requests: the features.
        errors: the error terms.
        prints: per circuit, of the values of `places` and, last, of the error term.
        n_masks: how many masks there were; `n_skipped` of them gave the patch value.
    """

    rows: Masks
    requests: Requests
    errors: ErrorRequests
    prints: list[Prints]
    n_masks: int
    n_skipped: int


def plan_site(
    graph: FeatureGraph,
    site: str,
    circuits: Sequence[Circuit],
    active: tuple[Bool[np.ndarray, "nodes inputs"], Bool[np.ndarray, "nodes inputs"]],
    *,
    skips_empty: bool,
) -> SitePlan:
    """The plan of one site.

    Args:
        active: whether a node is attributed at some, and at every real position of an input.
        skips_empty: whether a target that keeps nothing has its patch value.
    """
    parts = [_asked(graph, site, number, c, active) for number, c in enumerate(circuits)]
    masks = Masks.join([part.masks for part in parts])
    runs = np.asarray(masks.prints.any(1) | (not skips_empty))
    owners, row = distinct(masks.input[runs], masks.prints[runs])
    row_of = np.full(len(masks), -1)
    row_of[runs] = row
    return SitePlan(
        masks[runs][owners],
        _requests(parts, row_of),
        _errors(parts, row_of),
        [part.prints for part in parts],
        len(masks),
        int((~runs).sum()),
    )


@dataclass(frozen=True)
class _Asked:
    """What one circuit asks of a site: own masks, then those of the error node.

    `own` and `fallback` are the places (in `places`) and inputs of requests; `error_mask` is the
    mask of each input's error node, -1 where it is not asked for.
    """

    masks: Masks
    own: Int[np.ndarray, "own 2"]
    fallback: Int[np.ndarray, "fallback 2"]
    error_mask: Int[np.ndarray, " inputs"]
    places: Places
    wants_error: bool
    prints: Prints


def _asked(
    graph: FeatureGraph,
    site: str,
    number: int,
    circuit: Circuit,
    active: tuple[Bool[np.ndarray, "nodes inputs"], Bool[np.ndarray, "nodes inputs"]],
) -> _Asked:
    places, wants_error, span = (
        circuit.places(site),
        circuit.wants_error(site),
        graph.site_nodes(site),
    )
    some, every = active[0][places], active[1][places]
    keys, error = circuit.prints(site), graph.error_node(site)
    error_place = -1 if error is None else error - span.start
    error_key = np.zeros_like(keys[:1]) if error is None else keys[error_place:][:1]
    own, fallback = np.argwhere(some.T)[:, ::-1], np.argwhere(~every.T)[:, ::-1]
    asks = np.full(some.shape[1], wants_error)
    asks[fallback[:, 1]] = True
    error_mask = np.where(asks, len(own) + np.cumsum(asks) - 1, -1)
    at = np.flatnonzero(asks)
    own_keys = keys[places]
    masks = Masks(
        np.full(len(own) + len(at), number),
        np.concatenate([places[own[:, 0]], np.full(len(at), error_place)]),
        np.concatenate([own[:, 1], at]),
        np.concatenate([own_keys[own[:, 0], own[:, 1]], error_key[0, at]]),
    )
    prints = value_prints(
        span.start + places, own_keys * some[..., None], error_key * ~every[..., None]
    )
    prints = np.concatenate([prints, value_prints(np.array([span.stop - 1]), error_key)])
    return _Asked(masks, own, fallback, error_mask, places, wants_error, prints)


def _requests(parts: Sequence[_Asked], row_of: Int[np.ndarray, " masks"]) -> Requests:
    columns, first_mask, first_slot = [], 0, 0
    for part in parts:
        n_inputs = len(part.error_mask)
        pairs = np.concatenate([part.own, part.fallback])
        mask = np.concatenate([np.arange(len(part.own)), part.error_mask[part.fallback[:, 1]]])
        slot = first_slot + pairs[:, 1] * len(part.places) + pairs[:, 0]
        falls_back = np.arange(len(pairs)) >= len(part.own)
        row = row_of[first_mask + mask]
        columns.append(np.stack([row, part.places[pairs[:, 0]], pairs[:, 1], falls_back, slot]))
        first_mask += len(part.masks)
        first_slot += n_inputs * len(part.places)
    table = np.concatenate(columns, axis=1)
    table = table[:, table[0] >= 0]
    row, place, input_, falls_back, slot = table[:, np.argsort(table[0], kind="stable")]
    return Requests(row, place, input_, falls_back.astype(bool), slot)


def _errors(parts: Sequence[_Asked], row_of: Int[np.ndarray, " masks"]) -> ErrorRequests:
    found, first_mask = [np.zeros((3, 0), dtype=np.int64)], 0
    for number, part in enumerate(parts):
        if part.wants_error:
            inputs = np.arange(len(part.error_mask))
            rows = row_of[first_mask + part.error_mask]
            found.append(np.stack([rows, np.full(len(inputs), number), inputs]))
        first_mask += len(part.masks)
    table = np.concatenate(found, axis=1)
    table = table[:, table[0] >= 0]
    return ErrorRequests(*table[:, np.argsort(table[0], kind="stable")])
