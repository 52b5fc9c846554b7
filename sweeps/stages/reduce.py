"""Reduction: the fold of a cell's partials, in the fixed tree over its shards' order, of all inputs
and of each member's. Of scores that are lists, the strongest edges of all inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.storage import fold, layout
from edgesweep.storage.arrays import create_array
from edgesweep.storage.blocks import read_block, write_block
from edgesweep.storage.fold import AGGREGATIONS
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.cells import Cell
from edgesweep.sweeps.stages.attribute import shards_of
from edgesweep.sweeps.stages.base import Done, Stage
from edgesweep.sweeps.stages.listed import reduce_lists

if TYPE_CHECKING:
    from edgesweep.storage import RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan


@dataclass(frozen=True)
class ReduceShard:
    """The fold of a cell's partials over one subset of its shards; `leaves` are their keys."""

    cell: Cell
    subset: str
    leaves: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.cell.key}.{self.subset}"


class Reduce(Stage[ReduceShard]):
    """Of cells that look at all edges."""

    name = "reduce"
    title = "reduction"
    refined = False

    def shards(self, plan: Plan) -> Iterator[ReduceShard]:
        for cell in plan.cells:
            if cell.is_refined == self.refined:
                shards = list(shards_of(plan, cell))
                for subset in _subsets(plan, cell):
                    leaves = tuple(s.key for s in shards if subset in ("all", s.rows.member))
                    yield ReduceShard(cell, subset, leaves)

    def groups(self, plan: Plan, shard: ReduceShard) -> Iterable[str]:
        return (groups.reduced(shard.cell.key),)

    def needs(self, plan: Plan, shard: ReduceShard) -> tuple[str, ...]:
        return (groups.scores(shard.cell.key, shard.subset),)

    def arrays(self, run: RunDirectory, plan: Plan) -> None:
        for cell in plan.cells:
            if cell.is_refined == self.refined:
                for subset in plan.dataset(cell).subsets:
                    _make_folded(run, layout.group(cell.key, subset), plan.n_scores(cell))

    def run(self, context: Context, shard: ReduceShard) -> Done:
        stage = "refine" if shard.cell.is_refined else "attribute"
        records = [context.log.record(stage, key)["writes"] for key in shard.leaves]
        if shard.cell.is_sparse:
            return reduce_lists(context, shard.cell, records)
        name = layout.partials(shard.cell.key)

        def leaves() -> Iterator[tuple[int, np.ndarray]]:
            for index, writes in enumerate(records):
                mine = next(w for w in writes if w["array"] == name)
                yield index, read_block(context.run, mine)[0]

        first = next(leaves())[1]
        folded = fold.finish(fold.fold(leaves(), len(shard.leaves), first.shape[1]))
        context.check_alive()
        group = layout.group(shard.cell.key, shard.subset)
        return [
            write_block(context.run, layout.AGGREGATES, layout.folded(group, name), 0, values)
            for name, values in folded.items()
        ], {}


class ReduceRefined(Reduce):
    """Of cells that look at some edges."""

    name = "reduce_refined"
    title = "reduction of candidates"
    refined = True


def _subsets(plan: Plan, cell: Cell) -> tuple[str, ...]:
    """Lists of members are had together, over the same edges."""
    return ("all",) if cell.is_sparse else plan.dataset(cell).subsets


def _make_folded(run: RunDirectory, group: str, n: int) -> None:
    for name in (*AGGREGATIONS, *layout.COUNTS):
        dtype = "int64" if name in layout.COUNTS else "float64"
        create_array(run.aggregates, layout.folded(group, name), (n,), (n,), dtype)
