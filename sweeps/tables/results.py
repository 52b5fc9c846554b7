"""Rows of circuits and of what was measured of them, cell by cell.

A row is written only if all inputs that it stands for are committed; a quarantined shard leaves its
rows out and never makes them means over fewer inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from edgesweep.engine.evaluation import faithfulness
from edgesweep.engine.graph.circuits import EdgeMask
from edgesweep.sweeps.circuits import Circuit, circuits_of, read_fitted_key
from edgesweep.sweeps.plan.subsets import MACRO, WORST
from edgesweep.sweeps.stages.base import Row

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.cells import Cell, CircuitSpec, Condition
    from edgesweep.sweeps.plan.resolve import Dataset
    from edgesweep.sweeps.stages.evaluate import EvaluateShard
    from edgesweep.sweeps.view import View

_MEANS = ("value", "value_full", "value_empty", "faithfulness")


@dataclass(frozen=True)
class Point:
    """A circuit that was measured under a condition: of `n_selected` edges `ran` `[edge]` was run;
    `values` gives each metric `[input]`, NaN of inputs that are not committed."""

    spec: CircuitSpec
    condition: Condition
    n_selected: int
    ran: EdgeMask
    values: Callable[[str], np.ndarray]


def edge_rows(view: View, cell: Cell) -> pd.DataFrame:
    """Rows of circuits.parquet: the edges that were selected, and under which evaluation patches
    edge ablation runs them (what pruning drops depends on the patch)."""
    runs = {c.eval_patch: view.ran(cell, c) for c in view.plan.ran_conditions() if c.is_plain_edge}
    circuits = list(circuits_of(view, cell))
    return edges_of(view, cell, circuits, lambda circuit, patch: runs[patch][circuit.key], [*runs])


def edges_of(
    view: View,
    cell: Cell,
    circuits: Sequence[Circuit],
    ran_of: Callable[[Circuit, str], EdgeMask],
    patches: Sequence[str],
) -> pd.DataFrame:
    """The same of some circuits; `ran_of` gives what edge ablation runs of one under a patch."""
    graph, frames = view.graph(cell), []
    sources, targets = np.array(graph.sources, object), np.array(graph.targets, object)
    for circuit in circuits:
        kept, told = np.flatnonzero(circuit.selected), np.full(graph.n_edges, "", dtype=object)
        for patch in patches:
            ran = ran_of(circuit, patch)
            told[ran] += np.where(told[ran] == "", patch, f"+{patch}")
        fixed = {"circuit": circuit.key, "cell": cell.key, **circuit.spec.point}
        of_edges = {
            "edge": kept,
            "source": sources[graph.edge_source[kept]],
            "target": targets[graph.edge_target[kept]],
            "weight": circuit.weights[kept],
            "ran": told[kept],
        }
        frames.append(pd.DataFrame({**fixed, **of_edges}))
    return pd.concat(frames)


def circuit_rows(view: View, cell: Cell) -> Iterator[Row]:
    """Rows of results.parquet of whole circuits and of their complements."""
    specs = {spec.key: spec for spec in view.plan.circuits(cell)}
    for shards in _groups(view, "evaluate", cell):
        missing, condition = _missing(view, cell, "evaluate", shards), shards[0].condition
        for key in shards[0].circuits:
            yield from rows_of(view, cell, _point(view, cell, specs[key], condition), missing)


def block_rows(view: View, cell: Cell) -> Iterator[Row]:
    """Rows of results.parquet of block ablations, once the block model is fitted."""
    if not view.plan.block_conditions(cell) or not view.is_whole("blocks", cell):
        return
    fitted = read_fitted_key(view.run, cell)
    spec = next(spec for spec in view.plan.circuits(cell) if spec.key == fitted)
    for shards in _groups(view, "block_evaluate", cell):
        missing = _missing(view, cell, "block_evaluate", shards)
        yield from rows_of(view, cell, _point(view, cell, spec, shards[0].condition), missing)


def drawn_rows(
    view: View, cell: Cell, stage: str, circuit: str, told: Callable[[str], Row]
) -> Iterator[Row]:
    """Rows of drawn.parquet.

    Args:
        circuit: the one beside which they are drawn.
        told: what the name of a mask says of it.
    """
    spec = next(spec for spec in view.plan.circuits(cell) if spec.key == circuit)
    for shards in _groups(view, stage, cell):
        missing, condition = _missing(view, cell, stage, shards), shards[0].condition
        for mask in shards[0].circuits:
            for row in rows_of(view, cell, _point(view, cell, spec, condition, mask), missing):
                yield {**row, **told(mask)}


def _point(
    view: View, cell: Cell, spec: CircuitSpec, condition: Condition, mask: str = ""
) -> Point:
    """Of a circuit of the cell's thresholds; `mask`: the name of what is run, if not its own."""
    mask = mask or spec.key
    ran = view.ran(cell, condition)[mask]
    n_selected = view.n_selected(cell, spec.key)
    return Point(spec, condition, n_selected, ran, partial(view.values, cell, mask, condition))


def _groups(view: View, stage: str, cell: Cell) -> list[list[EvaluateShard]]:
    """Shards of one group of circuits under one condition each, over all inputs."""
    groups: dict[tuple[Condition, int], list[EvaluateShard]] = {}
    for shard in view.plan.of_cell(cell).get(stage, ()):
        groups.setdefault((shard.condition, shard.index), []).append(shard)
    return list(groups.values())


def _missing(view: View, cell: Cell, stage: str, shards: Sequence[EvaluateShard]) -> frozenset[str]:
    """Members of whose inputs a value or a reference is not committed."""
    left = frozenset(s.rows.member for s in shards if s.key not in view.done[stage])
    return left | view.missing_references(cell.source, shards[0].condition.eval_patch)


def rows_of(view: View, cell: Cell, point: Point, missing: frozenset[str]) -> Iterator[Row]:
    """Rows of results.parquet of one point, but for subsets of which inputs of a member are
    missing."""
    dataset = view.plan.dataset(cell)
    if missing.issuperset(dataset.members):
        return
    fixed = _fixed_columns(view, cell, point)
    of_metric: dict[str, dict[str, Row]] = {m: {} for m in view.plan.config.evaluate.metric}
    for subset, rows in _subsets(dataset):
        if missing & ({subset} if subset != "all" else set(dataset.members)):
            continue
        for metric, found in of_metric.items():
            found[subset] = _measured(view, cell, point, metric, rows)
    for metric, found in of_metric.items():
        if point.condition.part.mode in ("all", "complement"):
            found |= over_tasks(found)
        for subset, measured in found.items():
            yield {**fixed, "subset": subset, "metric": metric, **measured}


def over_tasks(found: Mapping[str, Row]) -> dict[str, Row]:
    """Of a mixture whose tasks are all measured: `macro`, the means over tasks, its φ the mean of
    their φ, not the ratio of these means; and `worst`, the task with the lowest φ, or one whose φ
    is not known.

    Args:
        found: what was measured by subset, `all` among them.
    """
    tasks = [measured for subset, measured in found.items() if subset != "all"]
    if "all" not in found or not tasks:
        return {}
    phi = [measured["faithfulness"] for measured in tasks]
    macro = {name: float(np.mean([task[name] for task in tasks])) for name in _MEANS}
    return {
        MACRO: {**found["all"], **macro},
        WORST: dict(tasks[int(np.argmin(phi))]),  # NaN counts as the lowest
    }


def _subsets(dataset: Dataset) -> Iterator[tuple[str, slice]]:
    """Each subset with its rows among the evaluation prompts."""
    yield "all", slice(0, len(dataset.data.evaluation))
    if len(dataset.members) > 1:
        yield from dataset.member_rows("eval").items()


def _fixed_columns(view: View, cell: Cell, point: Point) -> Row:
    spec, condition = point.spec, point.condition
    graph, of_nodes = view.graph(cell), view.plan.is_nodes(cell)
    stats = view.plan.nodes(cell).stats(graph, point.ran, condition.ablation, of_nodes)
    return {
        "cell": cell.key,
        "circuit": spec.key,
        "model": cell.model,
        "task": cell.task,
        "split": "eval",
        "nodes": cell.nodes,
        "method": cell.method,
        "steps": cell.steps or 0,
        "build_patch": cell.build_patch,
        "build_metric": cell.build_metric,
        **spec.point,
        "n_selected": point.n_selected,
        "ablation": condition.ablation,
        "eval_patch": condition.eval_patch,
        "pruned": True,
        "blocks": str(condition.part),
        "n_nodes": stats.n_nodes,
        "n_edges": stats.n_edges,
        "n_edges_possible": stats.n_edges_possible,
        "average_degree": stats.average_degree,
        "density": stats.density,
        "n_edges_among_found": graph.n_edges_possible,
        "density_among_found": stats.n_edges / max(1, graph.n_edges_possible),
    }


def _measured(view: View, cell: Cell, point: Point, metric: str, rows: slice) -> Row:
    """Means over the subset's inputs, and the ratio of means."""
    patch = point.condition.eval_patch
    of_inputs = (
        point.values(metric),
        view.reference(cell.source, patch, "full", metric),
        view.reference(cell.source, patch, "empty", metric),
    )
    value, full, empty = (float(np.mean(values[rows])) for values in of_inputs)
    return {
        "value": value,
        "value_full": full,
        "value_empty": empty,
        "faithfulness": faithfulness(value, full, empty),
        "n_inputs": rows.stop - rows.start,
    }
