"""Rows of what searches have measured and found (`evaluate.reach`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from edgesweep.engine.graph.circuits import EdgeMask
from edgesweep.engine.methods import METHODS
from edgesweep.engine.statistics.search import Bracket
from edgesweep.storage.packing.masks import Masks
from edgesweep.sweeps.circuits import Circuit, ran_mask, selected_anew
from edgesweep.sweeps.searches import Search, read_known, read_round, read_values, size_of
from edgesweep.sweeps.stages.base import Row
from edgesweep.sweeps.tables.results import Point, edges_of, rows_of

if TYPE_CHECKING:
    from edgesweep.sweeps.view import View

STAGE = "reach"


@dataclass(frozen=True)
class Found:
    """What a search that is done has found: of each level, what is known. `n_measured`: circuits
    beside those of the thresholds."""

    search: Search
    levels: tuple[float, ...]
    brackets: tuple[Bracket, ...]
    faithfulness: dict[int, float]
    n_measured: int


def point_rows(view: View, searches: Sequence[Search]) -> Iterator[Row]:
    """Rows of results.parquet: a circuit that was measured is one, whoever asked for it."""
    for search in searches:
        for number, missing in _rounds(view, search).items():
            masks = read_round(view.run, search, number)
            if not masks.circuits:
                break
            values = read_values(view, search, number)
            for place, point in enumerate(_points(view, search, masks)):
                of_circuit = partial(_of_metric, view, values[:, place])
                yield from rows_of(view, search.cell, replace(point, values=of_circuit), missing)


def _points(view: View, search: Search, masks: Masks) -> Iterator[Point]:
    """The circuits of a round, without values."""
    specs = [search.spec(size_of(key)) for key in masks.circuits]
    for circuit in selected_anew(view, search.cell, specs):
        n_selected, ran = int(circuit.selected.sum()), masks[circuit.key]
        yield Point(circuit.spec, search.condition, n_selected, ran, lambda _: np.empty(0))


def _of_metric(view: View, values: np.ndarray, metric: str) -> np.ndarray:
    """Of values `[input, metric]`."""
    place = view.plan.config.evaluate.metric.index(metric)
    return np.ascontiguousarray(values[:, place])


def reach_rows(view: View, searches: Sequence[Search]) -> Iterator[Row]:
    """Rows of reach.parquet, of searches that are done."""
    for search in searches:
        if (found := _found(view, search)) is None:
            continue
        for level, known in zip(found.levels, found.brackets, strict=True):
            yield {**_named(view, search), **_answer(view, found, known), "level": level}


def answer_edges(view: View, searches: Sequence[Search]) -> pd.DataFrame:
    """Rows of circuits.parquet: of all that a search measures, its answers, but for those that a
    threshold has selected."""
    wanted: dict[tuple[str, str], dict[int, Search]] = {}
    for search in searches:
        if (found := _found(view, search)) is not None:
            thresholds = {c.key for c in view.plan.circuits(search.cell)}
            sizes = (b.passes for b in found.brackets if b.passes is not None)
            mine = {size: search for size in sizes if search.spec(size).key not in thresholds}
            wanted.setdefault((search.aggregation, search.selection), {}).update(mine)
    frames = [_edges(view, of) for of in wanted.values() if of]
    return pd.concat(frames) if frames else pd.DataFrame()


def _edges(view: View, wanted: dict[int, Search]) -> pd.DataFrame:
    """Of circuits of one ranking."""
    sizes, cell = sorted(wanted), next(iter(wanted.values())).cell
    circuits = list(selected_anew(view, cell, [wanted[size].spec(size) for size in sizes]))
    nodes, graph = view.plan.nodes(cell), view.graph(cell)
    conditions = {c.eval_patch: c for c in view.plan.ran_conditions() if c.is_plain_edge}

    def ran_of(circuit: Circuit, patch: str) -> EdgeMask:
        of_nodes = METHODS[cell.method].scores_nodes
        return ran_mask(nodes, graph, circuit.selected, conditions[patch], of_nodes)

    return edges_of(view, cell, circuits, ran_of, [*conditions])


# --- what is committed --------------------------------------------------------------------------


def _rounds(view: View, search: Search) -> dict[int, frozenset[str]]:
    """The rounds of a search of which something is committed, in order, with the members of whose
    inputs something is missing."""
    done = view.done[STAGE]
    found: dict[int, set[str]] = {}
    for shard in _shards(view, search):
        missing = found.setdefault(shard.number, set())
        if shard.key not in done:
            missing.add(shard.rows.member)
    members = set(view.plan.dataset(search.cell).members)
    lacking = view.missing_references(search.cell.source, search.condition.eval_patch)
    return {n: lacking | missing for n, missing in found.items() if missing != members}


def _found(view: View, search: Search) -> Found | None:
    """None until all of its rounds are committed."""
    shards, reach = list(_shards(view, search)), view.plan.config.evaluate.reach
    assert reach is not None
    if not view.done[STAGE].issuperset(shard.key for shard in shards):
        return None
    known = read_known(view, search, 1 + max(shard.number for shard in shards))
    n = len(known.faithfulness) - known.n_thresholds
    return Found(search, reach.levels, tuple(known.brackets(reach)), known.faithfulness, n)


def _shards(view: View, search: Search) -> Iterator[Any]:
    mine = view.plan.of_cell(search.cell).get(STAGE, ())
    return (shard for shard in mine if shard.search == search)


def _named(view: View, search: Search) -> Row:
    cell, condition = search.cell, search.condition
    reach = view.plan.config.evaluate.reach
    assert reach is not None
    return {
        "cell": cell.key,
        "model": cell.model,
        "task": cell.task,
        "method": cell.method,
        "steps": cell.steps or 0,
        "build_patch": cell.build_patch,
        "build_metric": cell.build_metric,
        "aggregation": search.aggregation,
        "selection": search.selection,
        "ablation": condition.ablation,
        "eval_patch": condition.eval_patch,
        "metric": reach.by(view.plan.config.evaluate.metric),
    }


def _answer(view: View, found: Found, known: Bracket) -> Row:
    """The smallest circuit of a level; NaN where none was found."""
    cell, search = found.search.cell, found.search
    nodes, of_nodes = view.plan.nodes(cell), view.plan.is_nodes(cell)
    graph, ablation = view.graph(cell), search.condition.ablation
    nothing = nodes.stats(graph, np.zeros(graph.n_edges, dtype=bool), ablation, of_nodes)
    nowhere = dict.fromkeys(("threshold", "n_nodes", "n_edges", "density", "faithfulness"), np.nan)
    row = {
        **nowhere,
        "circuit": "",
        "reached": known.is_reached,
        "below": float(known.fails),
        "n_edges_possible": float(nothing.n_edges_possible),
        "n_measured": found.n_measured,
    }
    if known.passes is None:
        return row
    spec = search.spec(known.passes)
    ran = _ran(view, search, known.passes)
    stats = nodes.stats(graph, ran, ablation, of_nodes)
    return row | {
        "circuit": spec.key,
        "threshold": spec.threshold,
        "n_nodes": float(stats.n_nodes),
        "n_edges": float(stats.n_edges),
        "density": stats.density,
        "faithfulness": found.faithfulness[known.passes],
    }


def _ran(view: View, search: Search, size: int) -> EdgeMask:
    cell, (circuit,) = search.cell, selected_anew(view, search.cell, [search.spec(size)])
    of_nodes, graph = METHODS[cell.method].scores_nodes, view.graph(cell)
    return ran_mask(view.plan.nodes(cell), graph, circuit.selected, search.condition, of_nodes)
