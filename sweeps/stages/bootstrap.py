"""How far a cell's mean scores and their ranking would move with other inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.measures import ranking_stability, score_intervals
from edgesweep.storage import layout
from edgesweep.storage.arrays import create_array
from edgesweep.storage.blocks import read_block, write_block
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.cells import Cell
from edgesweep.sweeps.stages.attribute import shards_of
from edgesweep.sweeps.stages.base import Done, Stage

if TYPE_CHECKING:
    from edgesweep.storage import RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan


@dataclass(frozen=True)
class BootstrapShard:
    """Of one cell. `leaves` are the keys of its attribution shards, `members` the inputs of each
    member task."""

    cell: Cell
    leaves: tuple[str, ...]
    members: tuple[tuple[int, int], ...]

    @property
    def key(self) -> str:
        return self.cell.key


class Bootstrap(Stage[BootstrapShard]):
    """Not of a search, whose scores are of one order of removals, nor of what no input changes, nor
    where the scores decide which edges there are."""

    name = "bootstrap"
    title = "intervals of scores"

    def shards(self, plan: Plan) -> Iterator[BootstrapShard]:
        for cell in plan.cells if plan.config.measures.bootstrap else ():
            inputs_matter = cell.tau is None and cell.seed is None
            if inputs_matter and plan.nodes(cell).same_in_all_cells:
                rows = plan.dataset(cell).member_rows("build")
                members = tuple((mine.start, mine.stop) for mine in rows.values())
                yield BootstrapShard(cell, tuple(s.key for s in shards_of(plan, cell)), members)

    def needs(self, plan: Plan, shard: BootstrapShard) -> tuple[str, ...]:
        return (groups.scores(shard.cell.key),)

    def arrays(self, run: RunDirectory, plan: Plan) -> None:
        n = plan.config.measures.bootstrap
        for shard in plan.stages[self.name]:
            shape, key = (2, plan.n_scores(shard.cell)), shard.cell.key
            create_array(run.aggregates, layout.interval(key), shape, shape, "float64")
            create_array(run.aggregates, layout.stability(key), (n,), (n,), "float64")

    def run(self, context: Context, shard: BootstrapShard) -> Done:
        """Intervals of the mean scores and of their ranking, over resampled inputs of each
        member."""
        scores = np.concatenate(list(_scores(context, shard)))
        sizes = [stop - start for start, stop in shard.members]
        among = np.repeat(np.arange(len(sizes)), sizes)
        measures, seed = context.config.measures, context.config.seed
        n, level = measures.bootstrap, measures.level
        low, high = score_intervals(scores, n=n, level=level, seed=seed, groups=among)
        stability = ranking_stability(scores, n=n, seed=seed, groups=among)
        context.check_alive()
        found = {
            layout.interval(shard.cell.key): np.stack([low, high]),
            layout.stability(shard.cell.key): stability,
        }
        return [
            write_block(context.run, layout.AGGREGATES, name, 0, values)
            for name, values in found.items()
        ], {}


def _scores(context: Context, shard: BootstrapShard) -> Iterator[np.ndarray]:
    stage, name = "refine" if shard.cell.is_refined else "attribute", layout.scores(shard.cell.key)
    for key in shard.leaves:
        writes = context.log.record(stage, key)["writes"]
        yield read_block(context.run, next(w for w in writes if w["array"] == name))
