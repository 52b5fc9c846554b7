"""The tables at the end of a run: pure functions of what is committed, sorted, without a clock.

A row is written only if all inputs that it stands for are committed; a quarantined shard leaves its
rows out and never makes them means over fewer inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.engine.evaluation import faithfulness
from edgesweep.engine.graph import Graph
from edgesweep.engine.graph.circuits import EdgeMask
from edgesweep.storage import CommitLog, RunDirectory, layout
from edgesweep.storage.readers import Committed
from edgesweep.storage.tables import (
    BLOCKS,
    CIRCUITS,
    INTERPOLATION,
    KNOWN,
    MEASURES,
    MINIMALITY,
    OVERLAP,
    RESULTS,
    ROC,
    Table,
    from_parquet,
    to_parquet,
)
from edgesweep.sweeps.circuits import evaluated_mask
from edgesweep.sweeps.graphs import graph_of, stats_of
from edgesweep.sweeps.plan.cells import (
    Cell,
    Condition,
    EvaluateShard,
    ProbeShard,
    ReferenceShard,
    Rows,
)
from edgesweep.sweeps.plan.plan import Plan
from edgesweep.sweeps.plan.resolve import Dataset
from edgesweep.sweeps.prepare import Circuit, circuits_of, read_mask
from edgesweep.sweeps.stages.blockmodels import Fitted, read_fitted
from edgesweep.sweeps.stages.probes import interpolation_rows, minimality_rows
from edgesweep.sweeps.tables.analysis import Analysis
from edgesweep.sweeps.tables.overlap import Overlap

Row = dict[str, Any]


class Tables:
    """The tables of a run.

    Args:
        reduced: the cells whose aggregates are committed.
    """

    def __init__(self, run: RunDirectory, plan: Plan, log: CommitLog, reduced: list[Cell]) -> None:
        self._run, self._plan, self._log, self._reduced = run, plan, log, reduced
        self._done = {s: set(log.keys(s)) for s in ("evaluate", "block_evaluate")}
        self._committed = Committed(run, log)
        self._values = cache(self._read_values)
        self._missing_references = cache(self._find_missing_references)

    def build(self) -> dict[str, bytes]:
        """The bytes of every table by file name."""
        edges: list[pd.DataFrame] = []
        members: list[Row] = []
        results: list[Row] = []
        for cell in self._reduced:
            circuits = list(circuits_of(self._committed, self._plan, cell))
            fitted = read_fitted(self._committed, self._plan, cell, self._log)
            edges += [self._circuit_edges(cell, circuit) for circuit in circuits]
            members += self._block_rows(cell, fitted)
            results += self._result_rows(cell, circuits, fitted)
        table = pd.concat(edges) if edges else pd.DataFrame()
        found = _as_bytes({CIRCUITS: table, BLOCKS: members, RESULTS: results})
        return found | _as_bytes(self._derived(from_parquet(found[RESULTS.file])))

    def _derived(self, results: pd.DataFrame) -> Mapping[Table, list[Row]]:
        """What follows from the results and the scores: measures, rankings, single edges."""
        analysis = Analysis(self._committed, self._plan, self._reduced, results)
        overlap = Overlap(self._committed, self._plan, self._reduced).rows()
        return {
            MEASURES: list(analysis.measures()),
            ROC: list(analysis.roc()),
            OVERLAP: list(overlap),
            KNOWN: list(analysis.known()),
            MINIMALITY: self._probed("minimality", minimality_rows),
            INTERPOLATION: self._probed("interpolation", interpolation_rows),
        }

    def _probed(
        self, kind: str, rows_of: Callable[[Committed, Plan, Cell], Iterator[Row]]
    ) -> list[Row]:
        """Rows of the cells whose probes of that kind are all committed."""
        done = set(self._log.keys("probe"))
        shards = [s for s in self._plan.stages["probe"] if isinstance(s, ProbeShard)]
        mine = [s for s in shards if s.kind == kind]
        missing = {s.cell for s in mine if s.key not in done}
        cells = [c for c in dict.fromkeys(s.cell for s in mine) if c not in missing]
        return [row for cell in cells for row in rows_of(self._committed, self._plan, cell)]

    # --- circuits and blocks -------------------------------------------------------------------
    def _circuit_edges(self, cell: Cell, circuit: Circuit) -> pd.DataFrame:
        graph = graph_of(self._run, self._plan, cell)
        kept = np.flatnonzero(circuit.mask)
        return pd.DataFrame(
            {
                "circuit": circuit.key,
                "cell": cell.key,
                "aggregation": circuit.aggregation,
                "selection": circuit.selection,
                "threshold": circuit.threshold,
                "edge": kept,
                "source": [graph.sources[i] for i in graph.edge_source[kept]],
                "target": [graph.targets[i] for i in graph.edge_target[kept]],
                "weight": circuit.weights[kept],
                "ran": self._ran(cell, circuit, graph)[kept],
            }
        )

    def _ran(self, cell: Cell, circuit: Circuit, graph: Graph) -> np.ndarray:
        """The evaluation patches under which edge ablation runs each edge, joined by `+`: what
        pruning drops depends on the patch."""
        told = np.full(graph.n_edges, "", dtype=object)
        for patch in self._plan.config.evaluate.eval_patch:
            kept = self._mask(cell, circuit.mask, Condition("edge", patch))
            told[kept] += np.where(told[kept] == "", patch, f"+{patch}")
        return told

    def _mask(self, cell: Cell, selected: EdgeMask, condition: Condition) -> EdgeMask:
        """What a condition runs of a circuit."""
        graph, errors = graph_of(self._run, self._plan, cell), self._plan.config.features.error
        of_nodes = self._plan.is_nodes(cell)
        return evaluated_mask(graph, selected, condition, of_nodes=of_nodes, errors=errors)

    def _block_rows(self, cell: Cell, fitted: Fitted | None) -> Iterator[Row]:
        if fitted is None:
            return
        model, options = fitted.model, self._plan.config.blocks
        bottom = model.blocks(0)
        for level in range(len(model.levels)):
            for i, node in enumerate(model.nodes):
                yield {
                    "circuit": fitted.circuit.key,
                    "cell": cell.key,
                    "fit": options.fit,
                    "degree_corrected": options.degree_corrected,
                    "level": level,
                    "node": node,
                    "block": int(model.blocks(level)[i]),
                    "label": fitted.labels[bottom[i]],
                    "description_length": model.description_length,
                }

    # --- results -------------------------------------------------------------------------------
    def _result_rows(
        self, cell: Cell, circuits: list[Circuit], fitted: Fitted | None
    ) -> Iterator[Row]:
        by_key = {circuit.key: circuit for circuit in circuits}
        for condition in self._plan.conditions():
            for shards in self._groups("evaluate", cell, condition):
                for key in shards[0].circuits:
                    yield from self._rows_of(cell, by_key[key], condition, shards)
        if fitted is None:
            return
        for condition in self._plan.block_conditions(cell):
            for shards in self._groups("block_evaluate", cell, condition):
                yield from self._rows_of(cell, fitted.circuit, condition, shards)

    def _groups(self, stage: str, cell: Cell, condition: Condition) -> list[list[EvaluateShard]]:
        """Shards of one group of circuits each, over all inputs."""
        groups: dict[int, list[EvaluateShard]] = {}
        for shard in self._plan.stages[stage]:
            if isinstance(shard, EvaluateShard) and (shard.cell, shard.condition) == (
                cell,
                condition,
            ):
                groups.setdefault(shard.index, []).append(shard)
        return list(groups.values())

    def _rows_of(
        self, cell: Cell, circuit: Circuit, condition: Condition, shards: list[EvaluateShard]
    ) -> Iterator[Row]:
        dataset = self._plan.dataset(cell)
        done = self._done[shards[0].stage]
        missing = {s.rows.member for s in shards if s.key not in done}
        source = cell.source
        missing |= self._missing_references(source, condition.eval_patch)
        fixed = self._fixed_columns(cell, circuit, condition)
        for subset, rows in _subsets(dataset, self._plan.config.data.n_eval):
            if missing & ({subset} if subset != "all" else set(dataset.members)):
                continue
            for metric in self._plan.metrics():
                yield {
                    **fixed,
                    "subset": subset,
                    "metric": metric,
                    **self._measured(source, circuit, condition, metric, rows),
                }

    def _find_missing_references(self, source: str, patch: str) -> frozenset[str]:
        return frozenset(
            shard.rows.member
            for shard in self._plan.stages["evaluate"]
            if isinstance(shard, ReferenceShard)
            and (shard.source, shard.eval_patch) == (source, patch)
            and shard.key not in self._done["evaluate"]
        )

    def _fixed_columns(self, cell: Cell, circuit: Circuit, condition: Condition) -> Row:
        graph = graph_of(self._run, self._plan, cell)
        selected = circuit.mask
        if condition.needs_fit:
            selected = read_mask(self._run, circuit.key, condition.selected)
        stats = stats_of(graph, self._mask(cell, selected, condition), condition.ablation)
        return {
            "cell": cell.key,
            "circuit": circuit.key,
            "model": cell.model,
            "task": cell.task,
            "split": "eval",
            "nodes": cell.nodes,
            "method": cell.method,
            "steps": cell.steps or 0,
            "build_patch": cell.build_patch,
            "build_metric": cell.build_metric,
            "aggregation": circuit.aggregation,
            "selection": circuit.selection,
            "threshold": circuit.threshold,
            "ablation": condition.ablation,
            "eval_patch": condition.eval_patch,
            "pruned": True,
            "blocks": condition.blocks,
            "n_nodes": stats.n_nodes,
            "n_edges": stats.n_edges,
            "n_edges_possible": stats.n_edges_possible,
            "average_degree": stats.average_degree,
            "density": stats.density,
        }

    def _measured(
        self, source: str, circuit: Circuit, condition: Condition, metric: str, rows: slice
    ) -> Row:
        """Means over the subset's inputs, and the ratio of means."""
        patch = condition.eval_patch
        names = (
            layout.value(circuit.key, condition.key, metric),
            layout.reference(source, patch, "full", metric),
            layout.reference(source, patch, "empty", metric),
        )
        value, full, empty = (float(np.mean(self._values(name)[rows])) for name in names)
        return {
            "value": value,
            "value_full": full,
            "value_empty": empty,
            "faithfulness": faithfulness(value, full, empty),
            "n_inputs": rows.stop - rows.start,
        }

    def _read_values(self, name: str) -> np.ndarray:
        """All inputs of an array; those that are not committed are NaN, and never used."""
        return self._committed.read(layout.EVALUATIONS, name, partly=True)

    # --- the model itself ----------------------------------------------------------------------
    def skills(self) -> list[Row]:
        """The full model's accuracy and logit difference on each member task."""
        patch = self._plan.config.evaluate.eval_patch[0]
        found = []
        for dataset in self._plan.resolved.datasets.values():
            features = self._plan.feature_digests(dataset)[0]
            source = ReferenceShard(dataset.key, patch, Rows("", 0, 0), features).source
            missing = self._missing_references(source, patch)
            for member, rows in _subsets(dataset, self._plan.config.data.n_eval, members=True):
                if member in missing:
                    continue
                row: Row = {"model": dataset.model, "task": member, "seed": dataset.seed}
                for metric in ("accuracy", "logit_diff"):
                    name = layout.reference(source, patch, "full", metric)
                    row[metric] = float(np.mean(self._values(name)[rows]))
                found.append(row)
        return found


def _as_bytes(tables: Mapping[Table, pd.DataFrame | list[Row]]) -> dict[str, bytes]:
    return {table.file: to_parquet(table, rows) for table, rows in tables.items()}


def _subsets(
    dataset: Dataset, n_eval: int, *, members: bool = False
) -> Iterator[tuple[str, slice]]:
    """Each subset with its rows among the evaluation prompts; with `members`, members only."""
    if not members:
        yield "all", slice(0, n_eval * len(dataset.members))
    if members or len(dataset.members) > 1:
        for i, member in enumerate(dataset.members):
            yield member, slice(i * n_eval, (i + 1) * n_eval)
