"""How alike what was found is: by two methods, on two tasks, on prompts drawn with two seeds.

    method  two cells of one model, task and seed
    task    one method with its settings on two tasks, or two members of a mixture (`subset`)
    seed    one method with its settings on one task, of all its inputs or of a member's

A pair is compared over the edges (or nodes) that both measured, `n` of them:

    spearman   of the whole order, as the first selection reads it: of |scores|, and where exact
               patching looked at some edges only, over EAP's first ones, which it chose itself
    spearman_signed
               of an estimate and exact patching, with sign, over a random sample of edges
    jaccard    of the `size` strongest of either, for the sizes of the thresholds below n. A search
               such as ACDC ranks nothing and finds a circuit: that is compared with as many of the
               other's strongest, or with the other's circuit
    slope, r2  of the line of exact patching on an estimate of it (Syed et al. 2023, figure 4)

Strongest is what the config's first selection says: by |score| or by score. `chance` is what to
expect of edges in a random order. Of a group at most `measures.overlap` are compared: the first of
each method, then the second of each, and so on.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from edgesweep.engine import measures
from edgesweep.engine.graph import BY_SIZE, select
from edgesweep.sweeps.candidates import sampled_edges
from edgesweep.sweeps.tables.rankings import ranked

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.view import View

Row = dict[str, Any]


@dataclass(eq=False)
class Side:
    """What one cell found, of all inputs or of a member's.

    Attributes:
        scores: aggregated, with sign; NaN where nothing was measured.
        order: the same as the selection reads them, high first.
        found: of a search, its circuit.
    """

    cell: Cell
    subset: str
    seed: int
    scores: np.ndarray
    order: np.ndarray
    found: np.ndarray | None
    _ranks: dict[bytes, np.ndarray] = field(default_factory=dict)
    _places: dict[bytes, np.ndarray] = field(default_factory=dict)

    @cached_property
    def measured(self) -> np.ndarray:
        return np.isfinite(self.scores)

    def ranks(self, among: np.ndarray) -> np.ndarray:
        """Centred ranks among some edges; had once for all pairs over the same edges."""
        key = among.tobytes()
        if key not in self._ranks:
            self._ranks[key] = measures.centred_ranks(self.order[among])
        return self._ranks[key]

    def kept(self, among: np.ndarray, size: int) -> np.ndarray:
        """Which of some edges are its strongest, ties to the lower index; of a search, found."""
        if self.found is not None:
            return self.found[among]
        key = among.tobytes()
        if key not in self._places:
            best = np.argsort(-self.order[among], kind="stable")
            self._places[key] = np.empty(len(best), np.int32)
            self._places[key][best] = np.arange(len(best))
        return self._places[key] < size


class Overlap:
    """Rows of overlap.parquet.

    Args:
        reduced: cells whose aggregates are committed.
    """

    def __init__(self, view: View, reduced: Iterable[Cell]) -> None:
        self._view, self._plan, plan = view, view.plan, view.plan
        self._selection = plan.config.evaluate.selection[0]
        self._grid = plan.config.evaluate.grids()[self._selection]
        # edges between features differ from cell to cell
        self._cells = [cell for cell in reduced if plan.nodes(cell).same_in_all_cells]

    def frames(self) -> Iterator[pd.DataFrame]:
        """All rows, group by group; what is compared with each other is read together."""
        most, evaluate = self._plan.config.measures.overlap, self._plan.config.evaluate
        for across, groups in self._groups().items():
            for group, aggregation in itertools.product(groups, evaluate.aggregation):
                sides = [self._side(*pair, aggregation) for pair in _at_most(most, group)]
                pairs = self._pairs(across, aggregation, [s for s in sides if s is not None])
                yield pd.DataFrame(list(pairs))

    def _groups(self) -> dict[str, list[list[tuple[Cell, str]]]]:
        """Cells and subsets that are compared with each other."""
        whole = [(cell, "all") for cell in self._cells]
        members = [(cell, m) for cell in self._cells for m in self._plan.dataset(cell).subsets[1:]]
        # what no input changes is the same on every task
        inputs_matter = [pair for pair in (*whole, *members) if pair[0].seed is None]
        return {
            "method": _grouped(whole, self._one_task),
            "task": _grouped(inputs_matter, self._one_method),
            "seed": _grouped((*whole, *members), self._one_method_and_task),
        }

    def _one_task(self, cell: Cell, subset: str) -> Hashable:
        return cell.model, cell.task, cell.dataset, self._plan.is_nodes(cell)

    def _one_method(self, cell: Cell, subset: str) -> Hashable:
        """Tasks of a sweep are compared at one seed, members of a mixture within their cell."""
        if subset != "all":
            return cell
        seed = self._plan.dataset(cell).seed
        return dataclasses.replace(cell, task="", dataset=""), seed

    def _one_method_and_task(self, cell: Cell, subset: str) -> Hashable:
        return dataclasses.replace(cell, dataset="", seed=None), subset

    def _side(self, cell: Cell, subset: str, aggregation: str) -> Side | None:
        """None of a search under another aggregation than its own."""
        if cell.tau is not None and aggregation != "mean":
            return None
        scores = self._view.scores(cell, aggregation, subset)
        assert scores is not None
        scores = np.where(np.isfinite(scores), scores, np.nan)
        found = None if cell.tau is None else select(scores, "value", cell.tau)
        seed, order = self._plan.dataset(cell).seed, ranked(scores, self._selection)
        return Side(cell, subset, seed, scores, order, found)

    # --- pairs ---------------------------------------------------------------------------------
    def _pairs(self, across: str, aggregation: str, sides: list[Side]) -> Iterator[Row]:
        for a, b in itertools.combinations(sides, 2):
            base = {"across": across, "model": a.cell.model, "aggregation": aggregation}
            for row in self._compared(a, b):
                yield {**base, **_named(a, "a"), **_named(b, "b"), **row}
        if across == "method":
            for a, b in itertools.permutations(sides, 2):
                base = {"across": across, "model": a.cell.model, "aggregation": aggregation}
                for row in self._estimate(a, b):
                    yield {**base, **_named(a, "a"), **_named(b, "b"), **row}

    def _compared(self, a: Side, b: Side) -> Iterator[Row]:
        """Rank correlation and shared edges, over what both measured."""
        both = a.measured & b.measured
        n = int(both.sum())
        found = [int(s.found[both].sum()) for s in (a, b) if s.found is not None]
        if not found:
            value = measures.correlation(a.ranks(both), b.ranks(both))
            yield {"measure": "spearman", "size": 0, "value": value, "chance": 0.0, "n": n}
        for size in [min(found)] if found else self._sizes(n):
            kept = a.kept(both, size), b.kept(both, size)
            drawn = sorted(int(mask.sum()) for mask in kept)
            if drawn[0] > 0 and size < n:
                chance = measures.jaccard_by_chance(n, *drawn)
                row = {"measure": "jaccard", "size": size, "value": measures.jaccard(*kept)}
                yield {**row, "chance": chance, "n": n}

    def _sizes(self, n: int) -> list[int]:
        """Those of the thresholds, of n edges; none where these are scores."""
        return [int(size) for size in self._grid.of(n)] if self._selection in BY_SIZE else []

    def _estimate(self, a: Side, b: Side) -> Iterator[Row]:
        """Of exact patching, if b is that, and an estimate of it: the line, and the signed rank
        correlation on a random sample."""
        if b.cell.method != "exact" or a.found is not None:
            return
        line = measures.fit(a.scores, b.scores)
        both = a.measured & b.measured
        sample = both & sampled_edges(self._view, b.cell)
        signed = measures.rank_correlation(a.scores[sample], b.scores[sample])
        told = (
            ("slope", line.slope, both),
            ("r2", line.r2, both),
            ("spearman_signed", signed, sample),
        )
        for name, value, among in told:
            row = {"measure": name, "size": 0, "value": value, "chance": np.nan}
            yield {**row, "n": int(among.sum())}


def _grouped(
    pairs: Iterable[tuple[Cell, str]], key: Callable[[Cell, str], Hashable]
) -> list[list[tuple[Cell, str]]]:
    """Groups of two or more, in order of appearance."""
    groups: dict[Hashable, list[tuple[Cell, str]]] = {}
    for pair in pairs:
        groups.setdefault(key(*pair), []).append(pair)
    return [group for group in groups.values() if len(group) > 1]


def _at_most(n: int, group: list[tuple[Cell, str]]) -> list[tuple[Cell, str]]:
    """As many of every method as there is room for, in the group's order."""
    seen: Counter[str] = Counter()
    turns = []
    for cell, _ in group:
        turns.append(seen[cell.method])
        seen[cell.method] += 1
    first = sorted(range(len(group)), key=lambda i: turns[i])[:n]
    return [group[i] for i in sorted(first)]


def _named(side: Side, end: str) -> Row:
    about = {
        "cell": side.cell.key,
        "method": side.cell.method,
        "task": side.cell.task,
        "subset": side.subset,
        "seed": side.seed,
    }
    return {f"{name}_{end}": value for name, value in about.items()}
