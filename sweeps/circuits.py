"""From aggregated scores to circuits, and from a circuit to the edges that are run.

A circuit is the edges that a threshold keeps. What is run, counted and fitted is what a condition
makes of it: pruned (of what no input reaches only where all patch values come from one run), and
for node ablation all that the kept nodes write. Both are worked out once, when a cell is reduced,
and stored; whoever runs, counts, fits or shows a circuit reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.graph import OF_EDGES, Graph, induced_edges, node_circuit, prune, selections
from edgesweep.engine.graph.circuits import EdgeMask
from edgesweep.engine.methods import METHODS
from edgesweep.engine.patches import ONE_RUN
from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import read_static
from edgesweep.storage.packing.masks import Masks, read_masks, write_masks

if TYPE_CHECKING:
    from edgesweep.sweeps.granularity.base import Nodes
    from edgesweep.sweeps.plan.cells import Cell, CircuitSpec, Condition
    from edgesweep.sweeps.view import View


@dataclass(frozen=True)
class Circuit:
    """A circuit with its edges: `selected` `[edge]` is what the threshold keeps, `weights` `[edge]`
    the aggregated scores."""

    spec: CircuitSpec
    selected: EdgeMask
    weights: np.ndarray

    @property
    def key(self) -> str:
        return self.spec.key


def ran_mask(
    nodes: Nodes, graph: Graph, selected: EdgeMask, condition: Condition, of_nodes: bool = False
) -> EdgeMask:
    """The edges that are run of a circuit, or of what a block ablation leaves of it.

    One that is given by nodes (`of_nodes`) is the same under both ablations: its edges are those
    among its nodes, and no sibling that shares a kv port joins them. Where error terms are clean or
    zero, what no root feeds may still differ from its patch value.
    """
    both = condition.eval_patch in ONE_RUN and nodes.error in ("node", "patch")
    kept = prune(graph, nodes.ablatable(graph, selected), both_sides=both)
    if condition.ablation == "node" and not of_nodes:
        kept = prune(graph, node_circuit(graph, kept), both_sides=both)
    if condition.part.mode == "complement":
        kept = prune(graph, ~kept, both_sides=both)
    return kept


# --- what the driver writes -------------------------------------------------------------------


def write_circuits(view: View, cell: Cell) -> None:
    """A reduced cell's graph, its circuits, and what is run of each."""
    nodes, of_nodes = view.plan.nodes(cell), METHODS[cell.method].scores_nodes
    nodes.write_graph(view.run, cell, lambda: _kept_by_any(view, cell))
    graph = view.graph(cell)
    selected = {
        spec.key: induced_edges(graph, kept[nodes.numbers(graph)]) if of_nodes else kept
        for spec, _, kept in _decided(view, cell)
    }
    write_masks(view.run, layout.selected(cell.key), selected)
    for condition in view.plan.ran_conditions():
        ran = {
            circuit: ran_mask(nodes, graph, mask, condition, of_nodes)
            for circuit, mask in selected.items()
        }
        write_masks(view.run, layout.ran(cell.key, condition.key), ran)


def _decided(view: View, cell: Cell) -> Iterator[tuple[CircuitSpec, np.ndarray, np.ndarray]]:
    """Each circuit with the scores that decide it and which of them are kept."""
    specs = view.plan.circuits(cell)
    for (aggregation, selection), group in groupby(specs, lambda s: (s.aggregation, s.selection)):
        scores, ranked = view.scores(cell, aggregation), list(group)
        assert scores is not None
        graph = view.graph(cell) if selection in OF_EDGES else None
        masks = selections(scores, selection, [spec.threshold for spec in ranked], graph)
        yield from ((spec, scores, mask) for spec, mask in zip(ranked, masks, strict=True))


def selected_anew(view: View, cell: Cell, specs: Sequence[CircuitSpec]) -> Iterator[Circuit]:
    """Circuits of a reduced cell by one aggregation and selection, whether or not its thresholds
    have them."""
    nodes, graph = view.plan.nodes(cell), view.graph(cell)
    of_nodes = METHODS[cell.method].scores_nodes
    scores = view.scores(cell, specs[0].aggregation)
    assert scores is not None
    weights = scores[nodes.numbers(graph)[graph.edge_source]] if of_nodes else scores
    among = graph if specs[0].selection in OF_EDGES else None
    masks = selections(scores, specs[0].selection, [spec.threshold for spec in specs], among)
    for spec, kept in zip(specs, masks, strict=True):
        edges = induced_edges(graph, kept[nodes.numbers(graph)]) if of_nodes else kept
        yield Circuit(spec, edges, weights)


def _kept_by_any(view: View, cell: Cell) -> np.ndarray:
    """Of a cell that scores nodes: those of all its circuits."""
    kept = np.zeros(view.plan.n_scores(cell), dtype=bool)
    for _, _, mask in _decided(view, cell):
        kept |= mask
    return kept


# --- what all read ----------------------------------------------------------------------------


def circuits_of(view: View, cell: Cell) -> Iterator[Circuit]:
    """The circuits of a reduced cell, in the config's order."""
    nodes, graph = view.plan.nodes(cell), view.graph(cell)
    of_nodes = METHODS[cell.method].scores_nodes
    selected = read_selected(view.run, cell)
    for spec in view.plan.circuits(cell):
        weights = view.scores(cell, spec.aggregation)
        assert weights is not None
        if of_nodes:
            weights = weights[nodes.numbers(graph)[graph.edge_source]]
        yield Circuit(spec, selected[spec.key], weights)


def read_selected(run: RunDirectory, cell: Cell) -> Masks:
    """What each threshold keeps of a cell's edges."""
    return read_masks(run, layout.selected(cell.key))


def read_ran(run: RunDirectory, cell: Cell, condition: Condition) -> Masks:
    """What a condition runs of each circuit of a cell; of what is left without blocks, or with
    these alone, of the fitted circuit."""
    return read_masks(run, layout.ran(cell.key, condition.key))


def nearest(view: View, cell: Cell, n_edges: int) -> str:
    """Key of the circuit of a cell of which edge ablation under the first evaluation patch runs the
    number of edges nearest to `n_edges`; the first of several."""
    ran = read_ran(view.run, cell, view.plan.fitted_condition)
    return min(ran.circuits, key=lambda key: abs(int(ran[key].sum()) - n_edges))


def read_fitted_point(run: RunDirectory, cell: Cell) -> tuple[str, str, float]:
    """How that circuit was found: aggregation, selection, threshold."""
    told = read_static(run.evaluations, layout.fitted(cell.key))[1]
    return str(told["aggregation"]), str(told["selection"]), float(told["threshold"])


def read_fitted_key(run: RunDirectory, cell: Cell) -> str:
    """The circuit of a reduced cell that is fitted."""
    return str(read_static(run.evaluations, layout.fitted(cell.key))[1]["circuit"])
