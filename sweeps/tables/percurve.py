"""The curves of a cell, input by input: what tables of faithfulness on a part of the prompts, or on
resampled ones, are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from edgesweep.engine.curves.areas import of_whole
from edgesweep.engine.measures import faithfulness_under
from edgesweep.storage import layout
from edgesweep.sweeps.plan.cells import Cell, Condition
from edgesweep.sweeps.plan.subsets import MACRO, WORST

if TYPE_CHECKING:
    from edgesweep.sweeps.view import View

#: what tells the curves of a cell apart, in a row of results
CONDITION = ("aggregation", "selection", "ablation", "eval_patch", "metric")


@dataclass(frozen=True)
class InputCurve:
    """One ranking under one condition, in one metric.

    Attributes:
        fixed: the values of CONDITION.
        rows: of results.parquet, over all inputs, one a circuit, by the edges that were selected.
        values: `[input, circuit]`; `full` and `empty` `[input]`: the model, the empty circuit.
        members: the rows of each member task.
    """

    fixed: Mapping[str, str]
    rows: pd.DataFrame
    values: np.ndarray
    full: np.ndarray
    empty: np.ndarray
    members: Mapping[str, slice]

    @property
    def member_of(self) -> np.ndarray:
        """The number of each input's member."""
        sizes = [rows.stop - rows.start for rows in self.members.values()]
        return np.repeat(np.arange(len(sizes)), sizes)

    def of_member(self, name: str) -> InputCurve:
        """The same of one member's inputs alone."""
        rows = self.members[name]
        parts = (part[rows] for part in (self.values, self.full, self.empty))
        values, full, empty = parts
        alone = {name: slice(0, rows.stop - rows.start)}
        return InputCurve(self.fixed, self.rows, values, full, empty, alone)

    def counts(self, some: np.ndarray) -> dict[str, int]:
        """How many of some inputs, bool `[input]`, each subset has."""
        whole = int(some.sum())
        found = {name: int(some[rows].sum()) for name, rows in self.members.items()}
        return {MACRO: whole, WORST: whole, **found, "all": whole}

    def phi(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """φ `[n, circuit]` by subset, of inputs weighted in `n` ways, `[n, input]`: of a mixture
        its members, their mean (`macro`), the worst of them, and of all inputs pooled."""
        pooled = self._phi(weights, slice(None))
        if len(self.members) < 2:
            return {"all": pooled}
        of_members = {name: self._phi(weights, rows) for name, rows in self.members.items()}
        each = np.stack([*of_members.values()])
        return of_members | {MACRO: each.mean(0), WORST: each.min(0), "all": pooled}

    def _phi(self, weights: np.ndarray, rows: slice) -> np.ndarray:
        given = weights[:, rows]
        share = given / given.sum(1, keepdims=True)
        found = faithfulness_under(share, self.values[rows], self.full[rows], self.empty[rows])
        return of_whole(self.rows["n_edges"].to_numpy(), found)


def input_curves(view: View, cell: Cell, results: pd.DataFrame) -> Iterator[InputCurve]:
    """The curves of a cell whose circuits are its thresholds', each with all of its inputs.

    Args:
        results: its rows of results.parquet.
    """
    specs = {spec.key for spec in view.plan.circuits(cell)}
    if results.empty or cell.tau is not None:  # a search finds one circuit
        return
    whole = results[(results["blocks"] == "all") & (results["subset"] == "all")]
    whole = whole[whole["circuit"].isin(specs)].sort_values(["n_selected", "circuit"])
    for key, rows in whole.groupby(list(CONDITION), sort=True):
        fixed = dict(zip(CONDITION, map(str, key), strict=True))
        yield _read(view, cell, fixed, rows)


def _read(view: View, cell: Cell, fixed: dict[str, str], rows: pd.DataFrame) -> InputCurve:
    condition = Condition(fixed["ablation"], fixed["eval_patch"])
    metric, members = fixed["metric"], view.plan.dataset(cell).member_rows("eval")
    values = [view.values(cell, circuit, condition, metric) for circuit in rows["circuit"]]
    full, empty = (
        view.reference(cell.source, condition.eval_patch, side, metric) for side in layout.SIDES
    )
    return InputCurve(fixed, rows, np.stack(values, axis=1), full, empty, members)
