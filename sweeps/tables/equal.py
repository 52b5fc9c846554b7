"""Rows of equal_phi.parquet: how large circuits of equal faithfulness are under edge ablation and
under node ablation, by their edges and by their nodes (the comparison of Dhimoïla, figures 10, 11).

The same rankings are run both ways. A size is had where the curve comes to φ = level for good, on
the logarithm between two measured circuits (`engine.curves.levels`): infinite where the largest
measured one does not reach it, and at most the smallest measured size where that one does.
Intervals are over draws of the evaluation prompts within each task, the same draws for both
ablations, and so is that of `ratio`, the size under edge ablation over that under node ablation.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from edgesweep.engine.curves.levels import crossing, ends, size_at
from edgesweep.engine.measures import resamples
from edgesweep.sweeps.plan.subsets import WORST
from edgesweep.sweeps.tables.percurve import CONDITION, InputCurve, input_curves

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.view import View

Row = dict[str, Any]
LEVELS = (0.5, 0.8, 0.95)
#: what is counted, and its column in results
COUNTED = {"edges": "n_edges", "nodes": "n_nodes"}
_OF_CELL = ("model", "task", "method", "steps", "build_patch", "build_metric")


def equal_rows(view: View, cell: Cell, results: pd.DataFrame) -> Iterator[Row]:
    """One row a ranking, patch, metric, subset, level and count. None of a method that scores
    nodes, whose circuits are the same under both, nor of a run by one ablation."""
    pairs: dict[tuple[str, ...], dict[str, InputCurve]] = {}
    if view.plan.is_nodes(cell):
        return
    for curve in input_curves(view, cell, results):
        same = tuple(curve.fixed[c] for c in CONDITION if c != "ablation")
        pairs.setdefault(same, {})[curve.fixed["ablation"]] = curve
    for pair in pairs.values():
        if len(pair) == 2:
            yield from _of_pair(view, cell, pair["edge"], pair["node"])


def _of_pair(view: View, cell: Cell, edge: InputCurve, node: InputCurve) -> Iterator[Row]:
    config = view.plan.config
    weights = np.full((1, len(edge.full)), 1 / len(edge.full))  # as they are, then resampled
    if n := config.measures.bootstrap:
        draws = resamples(len(edge.full), n, config.seed, edge.member_of)
        weights = np.concatenate([weights, draws])
    phi = {"edge": edge.phi(weights), "node": node.phi(weights)}
    first, counts = edge.rows.iloc[0], edge.counts(np.ones(len(edge.full), dtype=bool))
    about = {"cell": cell.key, **{c: first[c] for c in _OF_CELL}}
    about |= {c: edge.fixed[c] for c in CONDITION if c != "ablation"}
    curves = {"edge": edge, "node": node}
    for subset, level in product((s for s in phi["edge"] if s != WORST), LEVELS):
        places = {side: crossing(phi[side][subset], level) for side in curves}
        for counted, column in COUNTED.items():
            of = {side: curve.rows[column].to_numpy() for side, curve in curves.items()}
            sizes = {side: size_at(places[side], of[side]) for side in curves}
            row = {"subset": subset, "level": level, "counted": counted}
            told = _compared(sizes["edge"], sizes["node"], config.measures.level)
            floors = {f"{side}_smallest": int(of[side][0]) for side in curves}
            yield {**about, **row, **told, **floors, "n_inputs": counts[subset]}


def _compared(edge: np.ndarray, node: np.ndarray, level: float) -> Row:
    """Sizes, the first of all inputs and the rest resampled, and their ratio."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = edge / node  # NaN where neither is reached
    row: Row = {}
    for name, values in (("edge", edge), ("node", node), ("ratio", ratio)):
        low, high = ends(values[1:], level)
        row |= {name: float(values[0]), f"{name}_low": low, f"{name}_high": high}
    return row
