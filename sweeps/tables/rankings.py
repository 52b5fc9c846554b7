"""Rankings of edges or nodes: by the scores of a cell, or of the cells of a search together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesweep.engine.graph import BY_MAGNITUDE, select

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.view import View


@dataclass(frozen=True)
class Ranking:
    """One ranking of edges or nodes: its cells (several of a search), and one score each."""

    cells: tuple[Cell, ...]
    aggregation: str
    selection: str
    scores: np.ndarray

    @property
    def lead(self) -> Cell:
        return self.cells[0]


def rankings_of(view: View, cells: list[Cell]) -> Iterator[Ranking]:
    """All rankings of some reduced cells, searches joined over τ."""
    for family in families(cells):
        if family[0].tau is not None:
            yield _search(view, family)
        else:
            yield from _scored(view, family[0])


def families(cells: list[Cell]) -> list[list[Cell]]:
    """Cells alone, but those of a search together over all τ, in the order of the first."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        same = cell if cell.tau is None else dataclasses.replace(cell, tau=-1.0)
        groups.setdefault(same, []).append(cell)
    return list(groups.values())


def ranked(scores: np.ndarray, selection: str) -> np.ndarray:
    """Scores as a selection reads them: high comes first."""
    return np.abs(scores) if selection in BY_MAGNITUDE else scores


def _scored(view: View, cell: Cell) -> Iterator[Ranking]:
    evaluate = view.plan.config.evaluate
    for aggregation in evaluate.aggregation:
        scores = view.scores(cell, aggregation)
        assert scores is not None
        for selection in evaluate.selection:
            yield Ranking((cell,), aggregation, selection, ranked(scores, selection))


def _search(view: View, cells: list[Cell]) -> Ranking:
    """Its edges by the largest τ that keeps them; -inf where none does."""
    scores = np.full(view.plan.n_scores(cells[0]), np.nan)
    for cell in sorted(cells, key=lambda c: c.tau or 0.0):
        mean = view.scores(cell, "mean")
        assert mean is not None
        assert cell.tau is not None
        scores[np.isfinite(mean) & np.isnan(scores)] = -np.inf
        scores[select(mean, "value", cell.tau)] = cell.tau
    return Ranking(tuple(cells), "mean", "value", scores)
