"""The smallest circuits that reach a faithfulness, searched for between the thresholds.

    thresholds' values -> ask round 0 -> its values -> ask round 1 -> …

A round's shards are there from the start, one a block of inputs; each waits for what the driver
asks for once the round before is committed (`sweeps.searches`). A search that has found its answers
asks for nothing more, and the shards of further rounds are done without a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesweep.storage.blocks import write_block
from edgesweep.storage.layout import EVALUATIONS
from edgesweep.storage.tables import CIRCUITS, REACH, RESULTS, Table
from edgesweep.sweeps.actor.measuring import measured
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.cells import Cell, Rows
from edgesweep.sweeps.searches import (
    SPARE,
    Search,
    ask,
    read_round,
    rounds_of,
    searches_of,
)
from edgesweep.sweeps.stages.base import Done, Gate, Passes, Stage
from edgesweep.sweeps.stages.references import RUN_PATCHES
from edgesweep.sweeps.tables.reach import answer_edges, point_rows, reach_rows

if TYPE_CHECKING:
    import pandas as pd

    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.stages.base import Row
    from edgesweep.sweeps.view import View


@dataclass(frozen=True)
class ReachShard:
    """A round of a search, the `number`-th, on a block of inputs. One that is `spare` is there for
    curves that dip."""

    search: Search
    number: int
    rows: Rows
    spare: bool = False

    @property
    def cell(self) -> Cell:
        return self.search.cell

    @property
    def key(self) -> str:
        return f"{self.search.key}.{self.number:02d}.{self.rows.key}"


class Reach(Stage[ReachShard]):
    """Each metric of the circuits that a round asks for, `[input, circuit, metric]`, float64."""

    name = "reach"
    title = "search for sizes"
    runs_model = True
    tables: tuple[Table, ...] = (CIRCUITS, RESULTS, REACH)

    def shards(self, plan: Plan) -> Iterator[ReachShard]:
        for search in _searches(plan):
            n, blocks = rounds_of(plan, search), plan.eval_rows(plan.dataset(search.cell))
            for number in range(n + SPARE):
                yield from (ReachShard(search, number, rows, number >= n) for rows in blocks)

    def groups(self, plan: Plan, shard: ReachShard) -> Iterable[str]:
        return (groups.answered(shard.search.key, shard.number),)

    def needs(self, plan: Plan, shard: ReachShard) -> tuple[str, ...]:
        values = plan.values(shard.cell, shard.search.condition.eval_patch)
        return (*values, groups.asked(shard.search.key, shard.number))

    def gates(self, plan: Plan) -> Iterator[Gate]:
        for search in _searches(plan):
            cell, condition = search.cell, search.condition
            needs: tuple[str, ...] = (
                groups.circuits(cell.key),
                groups.evaluated(cell.key, condition.key),
                groups.references(cell.source),
            )
            for number in range(rounds_of(plan, search) + SPARE):
                asking = partial(ask, wanted=search, number=number)
                yield Gate(groups.asked(search.key, number), needs, asking)
                # what was asked for before must stand, also where an earlier round is done again
                needs = groups.asked(search.key, number), groups.answered(search.key, number)

    def run(self, context: Context, shard: ReachShard) -> Done:
        search = shard.search
        asked = read_round(context.run, search, shard.number)
        if not asked.circuits:
            return [], {}
        masks, at_once = asked.all(), context.config.execution.circuits_per_batch
        parts, told = [], dict[str, Any]()
        for first in range(0, len(masks), at_once):
            some = masks[first : first + at_once]
            part, told = measured(context, shard.cell, search.condition, shard.rows, some)
            parts.append(part)
        values = np.ascontiguousarray(np.concatenate(parts, axis=1))
        context.check_alive()
        name, start = search.array(shard.number, "values"), shard.rows.start
        return [write_block(context.run, EVALUATIONS, name, start, values)], told

    def passes(self, plan: Plan, shard: ReachShard) -> Passes:
        """At most: a search may have its answers before."""
        reach, patch = plan.config.evaluate.reach, shard.search.condition.eval_patch
        n = 0 if reach is None or shard.spare else reach.at_once + (patch in RUN_PATCHES)
        return Passes(plan.batches(shard.rows) * n)

    def alike(self, shard: ReachShard) -> str:
        return shard.search.key

    def rows(self, view: View, cell: Cell) -> Mapping[Table, pd.DataFrame | Iterable[Row]]:
        searches = list(searches_of(view.plan, cell))
        return {
            CIRCUITS: answer_edges(view, searches),
            RESULTS: point_rows(view, searches),
            REACH: reach_rows(view, searches),
        }


def _searches(plan: Plan) -> Iterator[Search]:
    for cell in plan.cells:
        yield from searches_of(plan, cell)
