"""Rows of headlines.parquet: of each curve the circuit that may be quoted, and how faithful it is
on prompts that did not choose it.

The evaluation prompts of each task are dealt into a part that chooses, a third of them, and one
that reports; a prompt whose texts are another's the other way round is where that one is. Chosen is
the smallest circuit from which on all measured ones have |1 − φ| ≤ 1 − level on the choosing part,
φ the mean over tasks; where there is none, the most faithful one that does not overshoot. A circuit
without an edge is never chosen. With `report.headline.choose: all` all prompts do both, and the
rows say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from edgesweep.engine.curves.levels import first_lasting
from edgesweep.engine.measures import interval, resamples
from edgesweep.sweeps.plan.subsets import MACRO
from edgesweep.sweeps.tables.percurve import InputCurve, input_curves

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.view import View
    from edgesweep.tasks import Example

Row = dict[str, Any]
#: one prompt of so many chooses
EVERY = 3
_OF_CELL = ("model", "task", "method", "steps", "build_patch", "build_metric")
_OF_CIRCUIT = (
    *("circuit", "threshold", "n_selected", "n_nodes", "n_edges"),
    *("n_edges_possible", "n_edges_among_found"),
)


def headline_rows(view: View, cell: Cell, results: pd.DataFrame) -> Iterator[Row]:
    """One row a curve and subset, where any circuit has an edge and a known faithfulness.

    Args:
        results: the cell's rows of results.parquet.
    """
    chooses = _choosing(view, cell)
    for curve in input_curves(view, cell, results):
        yield from _of_curve(view, cell, curve, chooses)


def _choosing(view: View, cell: Cell) -> np.ndarray:
    """Which evaluation prompts choose: bool `[input]`."""
    dataset = view.plan.dataset(cell)
    if view.plan.config.report.headline.choose == "all":
        return np.ones(len(dataset.data.evaluation), dtype=bool)
    prompts = dataset.data.evaluation
    parts = [every_third(prompts[rows]) for rows in dataset.member_rows("eval").values()]
    return np.concatenate(parts)


def every_third(prompts: Sequence[Example]) -> np.ndarray:
    """Which prompts of a task choose: of each template every third, beginning at another turn.
    Prompts of which one's clean side is the other's patch, and the other way round, are together.
    Of one or two prompts none could choose or none report, so all do both."""
    templates: dict[str, int] = {}
    turns: Counter[str] = Counter()
    found: dict[frozenset[Any], bool] = {}
    for prompt in prompts:
        pair = frozenset((prompt.clean, prompt.patch))
        if pair not in found:
            place = templates.setdefault(prompt.template, len(templates))
            found[pair] = (turns[prompt.template] + place) % EVERY == 0
            turns[prompt.template] += 1
    chooses = np.array([found[frozenset((p.clean, p.patch))] for p in prompts])
    return chooses if chooses.any() and not chooses.all() else np.ones(len(prompts), dtype=bool)


def _of_curve(view: View, cell: Cell, curve: InputCurve, chooses: np.ndarray) -> Iterator[Row]:
    asked, config = view.plan.config.report.headline, view.plan.config
    on = curve.phi(chooses[None].astype(np.float64))
    place, reached = chosen(on.get(MACRO, on["all"])[0], curve.rows["n_edges"], asked.level)
    if place is None:
        return
    reports = np.ones_like(chooses) if chooses.all() else ~chooses
    found = curve.phi(reports[None].astype(np.float64))
    low, high = _intervals(view, curve, reports, place)
    row, first = curve.rows.iloc[place], curve.rows.iloc[0]
    about = {"cell": cell.key, **{c: first[c] for c in _OF_CELL}, **curve.fixed}
    of_circuit = {c: row[c] for c in _OF_CIRCUIT}
    sizes = curve.counts(reports)
    told = {"level": asked.level, "reached": reached, "chosen_on": _chosen_on(chooses)}
    for subset, phi in found.items():
        ends = {"low": low[subset], "high": high[subset]} if config.measures.bootstrap else {}
        value = {"faithfulness": float(phi[0, place]), "low": np.nan, "high": np.nan, **ends}
        counts = {"n_choosing": int(chooses.sum()), "n_inputs": sizes[subset]}
        yield {**about, **of_circuit, **told, "subset": subset, **value, **counts}


def chosen(
    phi: np.ndarray, n_edges: pd.Series | np.ndarray, level: float
) -> tuple[int | None, bool]:
    """The place of the circuit that may be quoted among circuits by size, and whether it reaches
    the level; None where there is none."""
    edges = np.asarray(n_edges)
    with np.errstate(invalid="ignore"):
        place = first_lasting((np.abs(1 - phi) <= 1 - level + 1e-12) & (edges > 0))
        if place is not None:
            return place, True
        some = np.flatnonzero((phi <= 1) & (edges > 0))
    return (int(some[np.argmax(phi[some])]), False) if len(some) else (None, False)


def _chosen_on(chooses: np.ndarray) -> str:
    return "all" if chooses.all() else "third"


def _intervals(
    view: View, curve: InputCurve, reports: np.ndarray, place: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Of one circuit, by subset, over draws of the reporting prompts of each task."""
    measures, n = view.plan.config.measures, view.plan.config.measures.bootstrap
    if not n:
        return {}, {}
    weights = np.zeros((n, len(reports)))
    groups = curve.member_of[reports]
    weights[:, reports] = resamples(len(groups), n, view.plan.config.seed, groups)
    samples = curve.phi(weights)
    pairs = {s: interval(phi[:, place], measures.level) for s, phi in samples.items()}
    return {s: float(p[0]) for s, p in pairs.items()}, {s: float(p[1]) for s, p in pairs.items()}
