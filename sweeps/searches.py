"""The searches of a run (`evaluate.reach`): which there are, what each has measured so far, and
what it asks for next. The driver does this between rounds; workers measure (stages.reach).

A search goes over the sizes of one ranking under one condition. It begins with the thresholds that
were evaluated anyway, and asks for some sizes more a round, for all levels together
(`engine.search`). What a round asks for follows from what was committed before it, so that a run
which was interrupted asks for the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.evaluation import faithfulness
from edgesweep.engine.graph import BY_SIZE, OF_EDGES
from edgesweep.engine.methods import METHODS
from edgesweep.engine.statistics import search
from edgesweep.engine.statistics.search import Bracket
from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import create_array
from edgesweep.storage.packing.masks import Masks, read_masks, write_masks
from edgesweep.sweeps.circuits import ran_mask, selected_anew
from edgesweep.sweeps.plan.cells import Cell, CircuitSpec, Condition

if TYPE_CHECKING:
    from edgesweep.sweeps.config.schema import Reach
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.view import View

#: rounds beyond those that every curve that only rises is done with: where one dips, what is
#: measured for one level moves another
SPARE = 3


@dataclass(frozen=True)
class Search:
    """One ranking of a cell under one condition."""

    cell: Cell
    aggregation: str
    selection: str
    condition: Condition

    @property
    def ranking(self) -> str:
        return f"{self.aggregation}-{self.selection}"

    @property
    def key(self) -> str:
        return f"{self.cell.key}.{self.ranking}.{self.condition.key}"

    def spec(self, size: int) -> CircuitSpec:
        return CircuitSpec(self.cell.key, self.aggregation, self.selection, float(size))

    def array(self, number: int, what: str) -> str:
        """Where a round's circuits lie (`ran`), and what they came to (`values`)."""
        where = self.cell.key, self.condition.key, self.ranking
        return layout.searched(*where, number, what)


@dataclass
class Known:
    """What a search has measured: φ by size, up to the `top`; so many by thresholds."""

    top: int
    n_thresholds: int = 0
    faithfulness: dict[int, float] = field(default_factory=dict)

    def brackets(self, reach: Reach) -> list[Bracket]:
        """One a level."""
        return [search.bracket(self.passed(level), self.top) for level in reach.levels]

    def passed(self, level: float) -> dict[int, bool]:
        """Overshoot does not count: a circuit that does more than the model is not faithful."""
        return {size: abs(1 - phi) <= 1 - level for size, phi in self.faithfulness.items()}


# --- what a plan asks ---------------------------------------------------------------------------


def searches_of(plan: Plan, cell: Cell) -> Iterator[Search]:
    """Of a cell that ranks; one that finds a circuit each, or was given one, has nothing to search.
    Selections by score and by rank search the same order."""
    evaluate = plan.config.evaluate
    if evaluate.reach is None or cell.tau is not None:
        return
    orders = dict.fromkeys(
        name if name in BY_SIZE else f"topk_{name}"
        for name in evaluate.selection
        if not (name in OF_EDGES and plan.is_nodes(cell))
    )
    axes = itertools.product(evaluate.aggregation, orders, evaluate.ablation, evaluate.eval_patch)
    for aggregation, selection, ablation, patch in axes:
        yield Search(cell, aggregation, selection, Condition(ablation, patch))


def rounds_of(plan: Plan, wanted: Search) -> int:
    """Rounds within which every curve that rises is searched through."""
    reach = plan.config.evaluate.reach
    assert reach is not None
    top = _bound(plan, wanted)
    sizes = [0, *(min(size, top) for size in _thresholds(plan, wanted)), top]
    gap = max(b - a for a, b in itertools.pairwise(sizes))
    return search.rounds(gap, reach.each)


def _thresholds(plan: Plan, wanted: Search) -> list[int]:
    """The sizes that are evaluated anyway, ascending."""
    return [
        int(c.threshold)
        for c in plan.circuits(wanted.cell)
        if (c.aggregation, c.selection) == (wanted.aggregation, wanted.selection)
    ]


def _bound(plan: Plan, wanted: Search) -> int:
    """No circuit of the search is larger. Where the nodes of its thresholds' circuits make the
    graph, there are no others; without a threshold there is nothing to search."""
    n = plan.n_scores(wanted.cell)
    if plan.is_nodes(wanted.cell) and not plan.nodes(wanted.cell).same_in_all_cells:
        return min(n, max(_thresholds(plan, wanted), default=0))
    return n


# --- what the driver does -----------------------------------------------------------------------


def ask(view: View, wanted: Search, number: int) -> None:
    """Writes the circuits that a round measures, maybe none, and makes room for what they come
    to."""
    reach, plan, cell = view.plan.config.evaluate.reach, view.plan, wanted.cell
    assert reach is not None
    sizes: list[int] = []
    if not number or read_round(view.run, wanted, number - 1).circuits:
        brackets = read_known(view, wanted, number).brackets(reach)
        sizes = search.ask(brackets, reach.each, reach.within)
    nodes, graph, of_nodes = plan.nodes(cell), view.graph(cell), METHODS[cell.method].scores_nodes
    specs = [wanted.spec(size) for size in sizes]
    ran = {
        circuit.key: ran_mask(nodes, graph, circuit.selected, wanted.condition, of_nodes)
        for circuit in (selected_anew(view, cell, specs) if specs else ())
    }
    write_masks(view.run, wanted.array(number, "ran"), ran, graph.n_edges)
    if ran:
        dataset, of_input = plan.dataset(cell), (len(ran), len(plan.config.evaluate.metric))
        n, step = len(dataset.data.evaluation), plan.eval_chunk(dataset)
        name = wanted.array(number, "values")
        create_array(view.run.evaluations, name, (n, *of_input), (step, *of_input), "float64")


def top_of(view: View, wanted: Search) -> int:
    """The largest size: scores that are not finite are in no circuit."""
    scores = view.scores(wanted.cell, wanted.aggregation)
    assert scores is not None
    return min(int(np.isfinite(scores).sum()), _bound(view.plan, wanted))


def read_round(run: RunDirectory, wanted: Search, number: int) -> Masks:
    """What is run in a round that was asked for."""
    return read_masks(run, wanted.array(number, "ran"))


def read_known(view: View, wanted: Search, n_rounds: int) -> Known:
    """What the thresholds and so many rounds came to, all of them committed."""
    plan, known = view.plan, Known(top_of(view, wanted))
    reach = plan.config.evaluate.reach
    assert reach is not None
    metric = reach.by(plan.config.evaluate.metric)
    place, condition = plan.config.evaluate.metric.index(metric), wanted.condition
    full, empty = (
        float(np.mean(view.reference(wanted.cell.source, condition.eval_patch, side, metric)))
        for side in layout.SIDES
    )
    for size in _thresholds(plan, wanted):
        values = view.values(wanted.cell, wanted.spec(size).key, condition, metric)
        phi = faithfulness(float(np.mean(values)), full, empty)
        known.faithfulness[min(size, known.top)] = phi
    known.n_thresholds = len(known.faithfulness)
    for number in range(n_rounds):
        circuits = read_round(view.run, wanted, number).circuits
        values = read_values(view, wanted, number)[:, :, place] if circuits else np.empty((0, 0))
        for circuit, of_inputs in zip(circuits, np.ascontiguousarray(values.T), strict=True):
            phi = faithfulness(float(np.mean(of_inputs)), full, empty)
            known.faithfulness[size_of(circuit)] = phi
    return known


def read_values(view: View, wanted: Search, number: int) -> np.ndarray:
    """`[input, circuit, metric]` of a round; of inputs that are not committed NaN."""
    name = wanted.array(number, "values")
    return view.committed.read(layout.EVALUATIONS, name, partly=True)


def size_of(circuit: str) -> int:
    """Of a circuit of a search, by its key."""
    return int(float(circuit.rpartition("-")[2]))
