"""Rows of what is measured of single edges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.graph import Graph
from edgesweep.engine.manytests import false_discovery_rates, mean_p
from edgesweep.engine.measures import score_intervals
from edgesweep.engine.metrics import ORIENTATION
from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import read_static
from edgesweep.sweeps.stages.base import Row

if TYPE_CHECKING:
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.view import View


def minimality_rows(view: View, cell: Cell) -> Iterator[Row]:
    """Rows of minimality.parquet: what the oriented metric loses without each edge, and whether it
    is needed or harmful, at a rate of false discoveries among all edges of the circuit."""
    graph, (edges, circuit) = view.graph(cell), read_probed(view.run, cell, "minimality")
    condition, config = view.plan.fitted_condition, view.plan.config
    measures, sizes = config.measures, view.plan.dataset(cell).member_rows("eval").values()
    groups = np.repeat(np.arange(len(sizes)), [rows.stop - rows.start for rows in sizes])
    for metric in config.evaluate.metric if len(edges) else ():
        whole = view.values(cell, circuit, condition, metric)
        of_edges = layout.minimality(cell.key, condition.eval_patch, metric)
        without = view.committed.read(layout.EVALUATIONS, of_edges)
        drops = ORIENTATION.get(metric, 1.0) * (whole[:, None] - without[:, : len(edges)])
        low, high = np.full((2, len(edges)), np.nan)
        if measures.bootstrap:
            n, level, seed = measures.bootstrap, measures.level, config.seed
            low, high = score_intervals(drops, n=n, level=level, seed=seed, groups=groups)
        p = mean_p(drops, groups)
        q = false_discovery_rates(p)
        for i, edge in enumerate(edges.tolist()):
            drop, told = float(drops[:, i].mean()), {"low": low[i], "high": high[i], "p": p[i]}
            named = {"circuit": circuit, "cell": cell.key, "metric": metric}
            found = {"q": float(q[i]), "rate": 1 - measures.level}
            kind = _kind(drop, q[i], 1 - measures.level)
            told = {name: float(value) for name, value in told.items()}
            yield {**named, **_ends(graph, edge), "drop": drop, **told, **found, "kind": kind}


def _kind(drop: float, q: float, rate: float) -> str:
    """What an edge is to its circuit, among those of which a share `rate` are wrong."""
    if not q <= rate:
        return "unclear"
    return "needed" if drop > 0 else "harmful"


def interpolation_rows(view: View, cell: Cell) -> Iterator[Row]:
    """Rows of interpolation.parquet: the change of the oriented metric on the way from clean to
    patch, and EAP's straight line where the metric is the one that it was built on."""
    graph, (edges, _) = view.graph(cell), read_probed(view.run, cell, "interpolation")
    scores, n = view.committed.aggregate(cell.key, "mean"), view.plan.config.measures.fractions
    assert scores is not None
    named = {"cell": cell.key, "model": cell.model, "task": cell.task}
    for metric in view.plan.config.evaluate.metric:
        found = view.committed.read(layout.EVALUATIONS, layout.interpolation(cell.key, metric))
        values = ORIENTATION.get(metric, 1.0) * found
        changes = (values - values[..., :1]).mean(0)
        for i, edge in enumerate(edges.tolist()):
            slope = -float(scores[edge]) if metric == cell.build_metric else np.nan
            for k in range(n + 1):
                yield {
                    **named,
                    **_ends(graph, edge),
                    "metric": metric,
                    "fraction": k / n,
                    "change": float(changes[i, k]),
                    "estimate": slope * k / n,
                    "n_inputs": len(values),
                }


def _ends(graph: Graph, edge: int) -> Row:
    source, target = graph.edge_source[edge], graph.edge_target[edge]
    return {"edge": edge, "source": graph.sources[source], "target": graph.targets[target]}


def read_probed(run: RunDirectory, cell: Cell, kind: str) -> tuple[np.ndarray, str]:
    """The edges looked at, and the circuit that they are of."""
    edges, about = read_static(run.evaluations, layout.probed(cell.key, kind))
    return edges, str(about["circuit"])
