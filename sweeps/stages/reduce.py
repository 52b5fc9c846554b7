"""Reduction: the fold of a cell's partials, in the fixed tree over its shards' order, of all inputs
and of each member's. Of scores that are lists, the strongest edges of all inputs.

Every step works edge by edge, so a shard has a range of edges; and where a cell has many partials,
they are folded in two levels, subtrees of `SUBTREE` of them and then the tree over these. The tree
is one and the same, and so are the bits.

Partials stay once they are folded. They take 40 bytes an edge of each block of inputs, of 256 where
those are many: 4% of the scores. Without them a sum that turns out damaged would be attributed
again and not folded again; and a shard whose receipt tells of what was deleted since would not be
sound, so that `verify` and `resume` had to know of every fold. `pull` leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.storage import fold, layout
from edgesweep.storage.arrays import Planned
from edgesweep.storage.blocks import read_block, write_block
from edgesweep.storage.fold import AGGREGATIONS
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.cells import Cell
from edgesweep.sweeps.stages.attribute import planned_partials, shards_of
from edgesweep.sweeps.stages.base import Done, Stage
from edgesweep.sweeps.stages.listed import reduce_lists

if TYPE_CHECKING:
    from edgesweep.storage import RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan

#: partials of a subtree, a power of 2
SUBTREE = 64
#: edges of a range: 32 MB a folded statistic
RANGE = 2**22


@dataclass(frozen=True)
class ReduceShard:
    """The fold of a cell's partials over one subset of its shards and a range of edges, the
    `part`-th of several; `leaves` are the keys of the shards that wrote them, of stage `of`."""

    cell: Cell
    subset: str
    of: str
    leaves: tuple[str, ...]
    edges: tuple[int, int]
    part: int = 0

    @property
    def key(self) -> str:
        part = f".{self.part:03d}" if self.part else ""
        return f"{self.cell.key}.{self.subset}{part}"

    @property
    def partials(self) -> str:
        """The array where they lie."""
        if self.of == Subtrees.name:
            return layout.subtrees(self.cell.key, self.subset)
        return layout.partials(self.cell.key)


@dataclass(frozen=True)
class SubtreeShard(ReduceShard):
    """The same of the `index`-th subtree, whose root is a partial again."""

    index: int = 0

    @property
    def key(self) -> str:
        return f"{super().key}.{self.index:06d}"


class Subtrees(Stage[SubtreeShard]):
    """Of cells with many partials."""

    name = "subtrees"
    title = "reduction of subtrees"

    def shards(self, plan: Plan) -> Iterator[SubtreeShard]:
        for cell in plan.cells:
            for subset, leaves in _subsets(plan, cell):
                for part, edges in _ranges(plan, cell) if _is_deep(cell, leaves) else ():
                    for index, first in enumerate(range(0, len(leaves), SUBTREE)):
                        some = leaves[first : first + SUBTREE]
                        yield SubtreeShard(cell, subset, _written(cell), some, edges, part, index)

    def groups(self, plan: Plan, shard: SubtreeShard) -> Iterable[str]:
        return (groups.subtrees(shard.cell.key, shard.subset),)

    def needs(self, plan: Plan, shard: SubtreeShard) -> tuple[str, ...]:
        return (groups.scores(shard.cell.key, shard.subset),)

    def arrays(self, run: RunDirectory, plan: Plan) -> Iterator[Planned]:
        for cell in plan.cells:
            for subset, leaves in _subsets(plan, cell):
                if _is_deep(cell, leaves):
                    name = layout.subtrees(cell.key, subset)
                    yield planned_partials(run, name, _n_subtrees(leaves), plan.n_scores(cell))

    def run(self, context: Context, shard: SubtreeShard) -> Done:
        packed = fold.pack(_folded(context, shard))[None]
        context.check_alive()
        name, first = layout.subtrees(shard.cell.key, shard.subset), shard.edges[0]
        aggregates = layout.AGGREGATES
        return [write_block(context.run, aggregates, name, shard.index, packed, first)], {}


class Reduce(Stage[ReduceShard]):
    """Of cells that look at all edges."""

    name = "reduce"
    title = "reduction"
    refined = False

    def shards(self, plan: Plan) -> Iterator[ReduceShard]:
        for cell in plan.cells:
            if cell.is_refined == self.refined:
                for subset, leaves in _subsets(plan, cell):
                    for part, edges in _ranges(plan, cell):
                        of, keys = _written(cell), leaves
                        if _is_deep(cell, leaves):
                            of, keys = Subtrees.name, _roots(cell, subset, leaves, part)
                        yield ReduceShard(cell, subset, of, keys, edges, part)

    def groups(self, plan: Plan, shard: ReduceShard) -> Iterable[str]:
        return (groups.reduced(shard.cell.key),)

    def needs(self, plan: Plan, shard: ReduceShard) -> tuple[str, ...]:
        named = groups.subtrees if shard.of == Subtrees.name else groups.scores
        return (named(shard.cell.key, shard.subset),)

    def arrays(self, run: RunDirectory, plan: Plan) -> Iterator[Planned]:
        for cell in plan.cells:
            if cell.is_refined == self.refined:
                for subset in plan.dataset(cell).subsets:
                    yield from _planned(run, layout.group(cell.key, subset), plan.n_scores(cell))

    def run(self, context: Context, shard: ReduceShard) -> Done:
        if shard.cell.is_sparse:
            records = [context.log.record(shard.of, key)["writes"] for key in shard.leaves]
            return reduce_lists(context, shard.cell, records)
        folded = fold.finish(_folded(context, shard))
        context.check_alive()
        group, first = layout.group(shard.cell.key, shard.subset), shard.edges[0]
        return [
            write_block(context.run, layout.AGGREGATES, layout.folded(group, name), first, values)
            for name, values in folded.items()
        ], {}


class ReduceRefined(Reduce):
    """Of cells that look at some edges."""

    name = "reduce_refined"
    title = "reduction of candidates"
    refined = True


def _folded(context: Context, shard: ReduceShard) -> np.ndarray:
    """The fold `[statistic, edge]` of a shard's partials."""

    def leaves() -> Iterator[tuple[int, np.ndarray]]:
        for index, key in enumerate(shard.leaves):
            writes = context.log.record(shard.of, key)["writes"]
            mine = next(w for w in writes if w["array"] == shard.partials)
            yield index, fold.unpack(read_block(context.run, mine, shard.edges)[0])

    low, high = shard.edges
    return fold.fold(leaves(), len(shard.leaves), high - low)


def _written(cell: Cell) -> str:
    """The stage that writes a cell's partials."""
    return "refine" if cell.is_refined else "attribute"


def _is_deep(cell: Cell, leaves: tuple[str, ...]) -> bool:
    return len(leaves) > SUBTREE and not cell.is_sparse


def _n_subtrees(leaves: tuple[str, ...]) -> int:
    return -(-len(leaves) // SUBTREE)


def _roots(cell: Cell, subset: str, leaves: tuple[str, ...], part: int) -> tuple[str, ...]:
    """Keys of the shards of all subtrees over a range of edges."""
    indices = range(_n_subtrees(leaves))
    shards = (SubtreeShard(cell, subset, "", (), (0, 0), part, index) for index in indices)
    return tuple(shard.key for shard in shards)


def _ranges(plan: Plan, cell: Cell) -> Iterator[tuple[int, tuple[int, int]]]:
    """Ranges of a cell's edges; of lists, all are one."""
    n = plan.n_scores(cell)
    step = n if cell.is_sparse else RANGE
    for part, low in enumerate(range(0, n, max(step, 1))):
        yield part, (low, min(low + step, n))


def _subsets(plan: Plan, cell: Cell) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Subsets of a cell's inputs with the keys of their shards. Lists of members are had together,
    over the same edges."""
    shards = list(shards_of(plan, cell))
    for subset in ("all",) if cell.is_sparse else plan.dataset(cell).subsets:
        yield subset, tuple(s.key for s in shards if subset in ("all", s.rows.member))


def _planned(run: RunDirectory, group: str, n: int) -> Iterator[Planned]:
    for name in (*AGGREGATIONS, *layout.COUNTS):
        dtype = "int64" if name in layout.COUNTS else "float64"
        yield Planned(run.aggregates, layout.folded(group, name), (n,), (min(n, RANGE),), dtype)
