"""What circuits would be, had other build prompts been drawn: resamples of these rank the edges
anew, and the circuits of the first aggregation, selection, ablation and patch are run again.

    stored scores [input, edge] -> of each resample the circuits (rebuild) -> their values
    (rebuild_evaluate) -> intervals over both splits, and methods in pairs (tables.rebuilt)

All cells of one dataset have the same resamples, so that methods are compared on equal ones. Scores
are read as they are stored. Of a cell that looks at some edges, which these are stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesweep.engine.graph import OF_EDGES, induced_edges, selections
from edgesweep.engine.measures import ResampledMeans
from edgesweep.engine.methods import METHODS
from edgesweep.storage import layout
from edgesweep.storage.arrays import Planned
from edgesweep.storage.blocks import read_block, write_block
from edgesweep.storage.tables import REBUILT, Table
from edgesweep.sweeps.actor.measuring import measured
from edgesweep.sweeps.circuits import ran_mask
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.cells import Cell, CircuitSpec, Rows
from edgesweep.sweeps.plan.rebuilding import (
    build_weights,
    members_of,
    rebuilt_condition,
    rebuilt_specs,
)
from edgesweep.sweeps.stages.attribute import shards_of
from edgesweep.sweeps.stages.base import Done, Passes, Stage
from edgesweep.sweeps.stages.references import RUN_PATCHES
from edgesweep.sweeps.tables.rebuilt import rebuilt_rows

if TYPE_CHECKING:
    import pandas as pd

    from edgesweep.storage import RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.stages.base import Row
    from edgesweep.sweeps.view import View

#: numbers of resampled scores that a shard holds at once: three arrays of 0.5 GB
AT_ONCE = 2**26
RAN, VALUES = "ran", "values"
#: what an aggregation is the mean of; others are maxima
MEAN_OF: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": np.asarray,
    "mean_abs": np.abs,
    "rms": np.square,
}


@dataclass(frozen=True)
class RebuildShard:
    """Of one cell the circuits of some resamples, from `first` to before `stop`. `leaves` are the
    keys of its attribution shards, `members` how many inputs each member task has."""

    cell: Cell
    specs: tuple[CircuitSpec, ...]
    leaves: tuple[str, ...]
    members: tuple[int, ...]
    first: int
    stop: int

    @property
    def key(self) -> str:
        return f"{self.cell.key}.{self.first:04d}"


class Rebuild(Stage[RebuildShard]):
    """Which edges are run of each circuit of each resample, as bits `[resample, circuit, byte]`."""

    name = "rebuild"
    title = "circuits of other build prompts"

    def shards(self, plan: Plan) -> Iterator[RebuildShard]:
        for cell in plan.cells:
            if specs := tuple(rebuilt_specs(plan, cell)):
                leaves = tuple(shard.key for shard in shards_of(plan, cell))
                members = members_of(plan, cell, "build")
                for first, stop in _parts(plan, cell):
                    yield RebuildShard(cell, specs, leaves, members, first, stop)

    def groups(self, plan: Plan, shard: RebuildShard) -> Iterable[str]:
        return (groups.rebuilt(shard.cell.key),)

    def needs(self, plan: Plan, shard: RebuildShard) -> tuple[str, ...]:
        return (groups.scores(shard.cell.key),)

    def arrays(self, run: RunDirectory, plan: Plan) -> Iterator[Planned]:
        for cell in plan.cells:
            if specs := rebuilt_specs(plan, cell):
                circuits = len(specs), -(-plan.nodes(cell).max_edges // 8)
                shape, chunks = (plan.config.measures.rebuild, *circuits), (1, *circuits)
                name = layout.rebuilt(cell.key, RAN)
                yield Planned(run.evaluations, name, shape, chunks, "uint8", compress=True)

    def run(self, context: Context, shard: RebuildShard) -> Done:
        cell, nodes = shard.cell, context.nodes(shard.cell)
        graph, condition = nodes.graph(context.run, cell), rebuilt_condition(context.config)
        of_nodes, selection = METHODS[cell.method].scores_nodes, shard.specs[0].selection
        sizes = [spec.threshold for spec in shard.specs]
        bits = np.zeros((shard.stop - shard.first, len(sizes), -(-graph.n_edges // 8)), np.uint8)
        for rows, scores in zip(bits, _resampled(context, shard), strict=True):
            masks = selections(scores, selection, sizes, graph if selection in OF_EDGES else None)
            for row, kept in zip(rows, masks, strict=True):
                edges = induced_edges(graph, kept[nodes.numbers(graph)]) if of_nodes else kept
                row[:] = np.packbits(ran_mask(nodes, graph, edges, condition, of_nodes))
        context.check_alive()
        name = layout.rebuilt(cell.key, RAN)
        return [write_block(context.run, layout.EVALUATIONS, name, shard.first, bits)], {}


@dataclass(frozen=True)
class RebuiltShard:
    """The circuits of one resample on a block of inputs; `ranked` is the key of the shard that has
    found them, which begins with the resample `first`."""

    cell: Cell
    resample: int
    rows: Rows
    ranked: str
    first: int

    @property
    def key(self) -> str:
        return f"{self.cell.key}.{self.resample:04d}.{self.rows.key}"


class EvaluateRebuilt(Stage[RebuiltShard]):
    """Each metric of these circuits, `[input, resample, circuit, metric]`, float64."""

    name = "rebuild_evaluate"
    title = "evaluation of these"
    runs_model = True
    tables: tuple[Table, ...] = (REBUILT,)

    def shards(self, plan: Plan) -> Iterator[RebuiltShard]:
        for ranked in Rebuild().shards(plan):
            for resample in range(ranked.first, ranked.stop):
                for rows in plan.eval_rows(plan.dataset(ranked.cell)):
                    yield RebuiltShard(ranked.cell, resample, rows, ranked.key, ranked.first)

    def needs(self, plan: Plan, shard: RebuiltShard) -> tuple[str, ...]:
        patch = rebuilt_condition(plan.config).eval_patch
        return (*plan.values(shard.cell, patch), groups.rebuilt(shard.cell.key))

    def arrays(self, run: RunDirectory, plan: Plan) -> Iterator[Planned]:
        for cell in plan.cells:
            if specs := rebuilt_specs(plan, cell):
                dataset, n = plan.dataset(cell), plan.config.measures.rebuild
                of_input = len(specs), len(plan.config.evaluate.metric)
                shape = (len(dataset.data.evaluation), n, *of_input)
                chunks = (plan.eval_chunk(dataset), 1, *of_input)
                yield Planned(
                    run.evaluations, layout.rebuilt(cell.key, VALUES), shape, chunks, "float64"
                )

    def run(self, context: Context, shard: RebuiltShard) -> Done:
        cell, condition = shard.cell, rebuilt_condition(context.config)
        write = context.log.record(Rebuild.name, shard.ranked)["writes"][0]
        n_edges = context.nodes(cell).graph(context.run, cell).n_edges
        bits = read_block(context.run, write)[shard.resample - shard.first]
        masks = np.unpackbits(bits, axis=1, count=n_edges).view(bool)
        at_once = context.config.execution.circuits_per_batch
        parts, told = [], dict[str, Any]()
        for first in range(0, len(masks), at_once):
            some = masks[first : first + at_once]
            part, told = measured(context, cell, condition, shard.rows, some)
            parts.append(part)
        values = np.ascontiguousarray(np.concatenate(parts, axis=1)[:, None], np.float64)
        context.check_alive()
        name, start = layout.rebuilt(cell.key, VALUES), shard.rows.start
        return [
            write_block(context.run, layout.EVALUATIONS, name, start, values, shard.resample)
        ], told

    def passes(self, plan: Plan, shard: RebuiltShard) -> Passes:
        patch = rebuilt_condition(plan.config).eval_patch in RUN_PATCHES
        n = len(rebuilt_specs(plan, shard.cell)) + patch
        return Passes(plan.batches(shard.rows) * n)

    def rows(self, view: View, cell: Cell) -> Mapping[Table, pd.DataFrame | Iterable[Row]]:
        done = view.is_whole(Rebuild.name, cell) and view.is_whole(self.name, cell)
        done = done and bool(rebuilt_specs(view.plan, cell))
        return {REBUILT: rebuilt_rows(view, cell) if done else ()}


def _parts(plan: Plan, cell: Cell) -> Iterator[tuple[int, int]]:
    """Resamples that one shard ranks."""
    n, step = plan.config.measures.rebuild, max(1, AT_ONCE // plan.n_scores(cell))
    yield from ((first, min(first + step, n)) for first in range(0, n, step))


def rebuild_bytes(plan: Plan, shard: RebuildShard) -> int:
    """Of resampled sums, the inputs that have them, and one block of inputs."""
    n = plan.n_scores(shard.cell)
    return 24 * (shard.stop - shard.first) * n + 12 * n * plan.leaf_rows(shard.cell)


# --- scores of resamples ------------------------------------------------------------------------


def _resampled(context: Context, shard: RebuildShard) -> np.ndarray:
    """Aggregated scores `[resample, scored]`, from the stored ones of single inputs; NaN where none
    of a resample is finite."""
    weights = build_weights(context.config, shard.members)[shard.first : shard.stop]
    aggregation = shard.specs[0].aggregation
    return aggregated(weights, _scores(context, shard), aggregation)


def aggregated(
    weights: np.ndarray, blocks: Iterable[tuple[int, np.ndarray]], aggregation: str
) -> np.ndarray:
    """As `storage.fold` aggregates, over the finite inputs of each resample.

    Args:
        weights: `[resample, input]`.
        blocks: (first input, scores `[input, scored]`), one after another.
    """
    if aggregation not in MEAN_OF:
        return _maxima(weights, blocks, of_magnitude=aggregation == "max_abs")
    means: ResampledMeans | None = None
    for first, scores in blocks:
        means = means or ResampledMeans(weights, scores.shape[1])
        means.add(first, MEAN_OF[aggregation](scores.astype(np.float64)))
    assert means is not None
    found = means.means()
    return np.sqrt(found) if aggregation == "rms" else found


def _maxima(
    weights: np.ndarray, blocks: Iterable[tuple[int, np.ndarray]], *, of_magnitude: bool
) -> np.ndarray:
    """The largest among the inputs that a resample has."""
    found = None
    for first, block in blocks:
        scores = block.astype(np.float64)
        scores = np.where(np.isfinite(scores), np.abs(scores) if of_magnitude else scores, np.nan)
        if found is None:
            found = np.full((len(weights), scores.shape[1]), np.nan)
        for row, own in zip(found, weights[:, first : first + len(scores)] > 0, strict=True):
            for values in scores[own]:
                np.fmax(row, values, out=row)
    assert found is not None
    return found


def _scores(context: Context, shard: RebuildShard) -> Iterator[tuple[int, np.ndarray]]:
    """(first input, scores `[input, scored]`) of the cell's leaves, in order."""
    stage, name = "refine" if shard.cell.is_refined else "attribute", layout.scores(shard.cell.key)
    for key in shard.leaves:
        for write in context.log.record(stage, key)["writes"]:
            if write["array"] == name:
                yield write["start"], read_block(context.run, write)
