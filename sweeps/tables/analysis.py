"""Measures of the run, from what is committed and without a further pass of any model.

    measures   areas under faithfulness, sizes for a faithfulness, cost, ranking of what is known
    roc        the ranking of every method against the known circuit, point by point

A *curve* is what one ranking gives over its thresholds: a cell with one aggregation and selection,
or, for a search such as ACDC whose cells find one circuit each, its cells over all τ; its edges are
then ranked by the largest τ that keeps them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from edgesweep.engine import measures
from edgesweep.engine.graph.known import KnownCircuit, known_circuit
from edgesweep.engine.measures import Roc
from edgesweep.storage import layout
from edgesweep.storage.tables import EQUAL_PHI, HEADLINES, MEASURES, ROC, Table
from edgesweep.sweeps.plan.cells import Cell, Condition
from edgesweep.sweeps.plan.points import settings_of
from edgesweep.sweeps.tables.areas import Curve
from edgesweep.sweeps.tables.equal import equal_rows
from edgesweep.sweeps.tables.headlines import headline_rows
from edgesweep.sweeps.tables.percurve import InputCurve
from edgesweep.sweeps.tables.rankings import Ranking, rankings_of

if TYPE_CHECKING:
    from edgesweep.sweeps.view import View

Row = dict[str, Any]
#: faithfulness levels whose smallest circuits are noted
LEVELS = {"edges_80": 0.8, "edges_95": 0.95}
#: what tells curves apart, in a row of results
CURVE = ("aggregation", "selection", "ablation", "eval_patch", "metric", "subset")


class Analysis:
    """Rows of the derived tables, but those that compare cells."""

    def __init__(self, view: View) -> None:
        self._view, self._plan = view, view.plan
        self._cells = {cell.key: cell for cell in view.plan.cells}
        self._known = cache(self._find_known)

    def of_family(self, cells: list[Cell], results: pd.DataFrame) -> dict[Table, pd.DataFrame]:
        """Rows of a cell, or of a search's cells over all τ, whose scores are reduced.

        Args:
            results: their rows of results.parquet, in any order.
        """
        rows, points = list(self._measures(cells, results)), []
        for ranking in rankings_of(self._view, cells):
            if (truth := self._truth(ranking.lead)) is not None:
                found = measures.roc(ranking.scores, truth)
                rows += self._areas(ranking, found)
                points.append(self._points(ranking, found))
        told: dict[Table, list[Row]] = {HEADLINES: [], EQUAL_PHI: []}
        for cell in cells:
            mine = results[results["cell"] == cell.key] if len(results) else results
            told[HEADLINES] += headline_rows(self._view, cell, mine)
            told[EQUAL_PHI] += equal_rows(self._view, cell, mine)
        return {
            MEASURES: pd.DataFrame(rows),
            ROC: pd.concat(points) if points else pd.DataFrame(),
            **{table: pd.DataFrame(found) for table, found in told.items()},
        }

    # --- measures ------------------------------------------------------------------------------
    def _measures(self, cells: list[Cell], results: pd.DataFrame) -> Iterator[Row]:
        whole = results
        if len(results):  # what a search measures makes no curve: each has it at other sizes
            grid = {spec.key for cell in cells for spec in self._plan.circuits(cell)}
            whole = results[(results["blocks"] == "all") & results["circuit"].isin(grid)]
            whole = whole.sort_values("circuit", kind="stable")
        for key, rows in whole.groupby(list(CURVE), sort=True) if len(whole) else ():
            yield from self._of_curve(cells[0], dict(zip(CURVE, key, strict=True)), rows)
        for cell in cells:
            yield from self._cost(cell)
            inputs_matter = cell.tau is None and cell.seed is None
            if inputs_matter and self._plan.config.measures.bootstrap:
                yield from self._stability(cell)
                yield from self._normal(cell)

    def _of_curve(self, cell: Cell, fixed: Row, rows: pd.DataFrame) -> Iterator[Row]:
        """Areas under one curve, and the smallest circuits of some faithfulness."""
        phi, n_inputs = rows["faithfulness"].to_numpy(), int(rows["n_inputs"].iloc[0])
        # a graph over features may have no edges, and a broken model has no faithfulness
        is_curve = int(rows["n_edges_possible"].iloc[0]) > 1 and bool(np.isfinite(phi).any())
        resampled = self._resampled(cell, fixed, rows) if is_curve else None
        base = self._base(cell, **fixed, n_inputs=n_inputs)
        curve = Curve.of(rows, self._plan.n_scores(cell), of_nodes=self._plan.is_nodes(cell))
        for row in curve.areas(resampled, self._plan.config.measures.level):
            yield {**base, **row}
        for name, level in LEVELS.items():
            value = float(measures.edges_for(rows["n_edges"].to_numpy(), phi, level))
            yield {**base, "measure": name, "value": value, "low": np.nan, "high": np.nan}

    def _resampled(self, cell: Cell, fixed: Row, rows: pd.DataFrame) -> np.ndarray | None:
        """Faithfulness `[resample, circuit]`, the same inputs for all circuits of a resample."""
        n, config = self._plan.config.measures.bootstrap, self._plan.config
        if not n:
            return None
        condition = Condition(fixed["ablation"], fixed["eval_patch"])
        patch, metric, cells = fixed["eval_patch"], fixed["metric"], self._cells
        own = zip(rows["cell"], rows["circuit"], strict=True)
        values = [self._view.values(cells[c], key, condition, metric) for c, key in own]
        full, empty = (
            self._view.reference(cell.source, patch, side, metric) for side in layout.SIDES
        )
        members = self._plan.dataset(cell).member_rows("eval")
        curve = InputCurve({}, rows, np.stack(values, axis=1), full, empty, members)
        subset = fixed["subset"]
        if subset in members and len(members) > 1:
            curve, subset = curve.of_member(subset), "all"
        weights = measures.resamples(len(curve.full), n, config.seed, curve.member_of)
        return curve.phi(weights)[subset]

    def _base(self, cell: Cell, **columns: Any) -> Row:
        empty = dict.fromkeys(CURVE, "")
        return {
            "cell": cell.key,
            "model": cell.model,
            "task": cell.task,
            "method": cell.method,
            "steps": cell.steps or 0,
            "rule": cell.rule,
            "build_patch": cell.build_patch,
            "build_metric": cell.build_metric,
            **empty,
            "n_inputs": len(self._plan.dataset(cell).data.build),
            **columns,
        }

    def _cost(self, cell: Cell) -> Iterator[Row]:
        """Passes of one batch, a backward counted as a forward; of a cell that looks at some edges,
        also what all edges would cost."""
        nodes, settings = self._plan.nodes(cell), settings_of(cell)
        everything = dataclasses.replace(settings, n_candidates=None)
        told = {"cost_forwards": settings, "cost_forwards_all_edges": everything}
        for name, given in told.items():
            if name == "cost_forwards" or cell.is_refined:
                cost = nodes.batch_passes(cell, given)
                if cost is not None:
                    value = float(cost.forwards + cost.backwards)
                    yield {**self._base(cell), "measure": name, "value": value} | _NO_INTERVAL

    def _stability(self, cell: Cell) -> Iterator[Row]:
        name = layout.stability(cell.key)
        if not self._view.committed.has(layout.AGGREGATES, name):
            return
        found = self._view.committed.read(layout.AGGREGATES, name)
        for measure, samples in zip(("stability", "stability_top"), found.T, strict=True):
            if np.isfinite(samples).any():
                low, high = measures.interval(samples, self._plan.config.measures.level)
                row = {**self._base(cell, aggregation="mean"), "measure": measure}
                ends = {"low": float(low), "high": float(high)}
                yield {**row, "value": float(np.nanmean(samples)), **ends}

    def _normal(self, cell: Cell) -> Iterator[Row]:
        """Says that the intervals of a cell's mean scores are normal ones, and what they cover."""
        config, name = self._plan.config, layout.interval(cell.key)
        if config.scores.keep != "all" and self._view.committed.has(layout.AGGREGATES, name):
            row = {**self._base(cell, aggregation="mean"), "measure": "normal_intervals"}
            yield {**row, "value": config.measures.level} | _NO_INTERVAL

    # --- against a known circuit ---------------------------------------------------------------
    def _find_known(self, model: str, task: str) -> KnownCircuit | None:
        return known_circuit(self._plan.resolved.models[model].source, task)

    def _truth(self, cell: Cell) -> np.ndarray | None:
        known = self._known(cell.model, cell.task)
        if known is None or not self._plan.nodes(cell).same_in_all_cells:
            return None
        graph = self._plan.model(cell).graph
        return known.node_mask(graph) if self._plan.is_nodes(cell) else known.mask(graph)

    def _areas(self, ranking: Ranking, found: Roc) -> Iterator[Row]:
        base = self._base(
            ranking.lead, aggregation=ranking.aggregation, selection=ranking.selection
        )
        for name in ("roc_auc", "average_precision", "youden_j"):
            yield {**base, "measure": name, "value": float(getattr(found, name))} | _NO_INTERVAL

    def _points(self, ranking: Ranking, found: Roc) -> pd.DataFrame:
        """Rows of roc.parquet."""
        cell = ranking.lead
        known = self._known(cell.model, cell.task)
        assert known is not None
        base = self._base(cell, aggregation=ranking.aggregation, selection=ranking.selection)
        fixed = {k: base[k] for k in base if k in ROC_FIELDS} | {"known": known.name}
        points = {
            "point": np.arange(len(found.thresholds)),
            "threshold": found.thresholds,
            "fpr": found.fpr,
            "tpr": found.tpr,
            "precision": found.precision,
        }
        return pd.DataFrame(fixed | points)

    def known(self) -> Iterator[Row]:
        """Rows of known.parquet: the true edges."""
        for dataset in self._plan.resolved.datasets.values():
            found = self._known(dataset.model, dataset.task)
            if found is None:
                continue
            graph = self._plan.resolved.models[dataset.model].graph
            for edge in np.flatnonzero(found.mask(graph)).tolist():
                yield {
                    "model": dataset.model,
                    "task": dataset.task,
                    "known": found.name,
                    "level": "edge",
                    "edge": edge,
                    "source": graph.sources[graph.edge_source[edge]],
                    "target": graph.targets[graph.edge_target[edge]],
                }


_NO_INTERVAL = {"low": np.nan, "high": np.nan}
ROC_FIELDS = frozenset(
    {
        *("cell", "model", "task", "method", "steps", "build_patch", "build_metric"),
        *("aggregation", "selection"),
    }
)
