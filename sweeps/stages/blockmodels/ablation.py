"""Block ablation: what is left of a circuit without a task's blocks, or with these alone, is known
once its block model is fitted; which circuit that is, the scores decide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from edgesweep.storage.tables import RESULTS, STRUCTURE, Table
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.stages.base import Gate, Row
from edgesweep.sweeps.stages.blockmodels.blocks import lacks_graph_tool, write_blocks
from edgesweep.sweeps.stages.evaluate import Evaluate, EvaluateShard, planned_values
from edgesweep.sweeps.tables.results import block_rows
from edgesweep.sweeps.tables.structure import contrast_rows

if TYPE_CHECKING:
    from edgesweep.storage import RunDirectory
    from edgesweep.storage.arrays import Planned
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.view import View


class EvaluateBlocks(Evaluate):
    """Of a cell's fitted circuit, without each member's blocks and with only these; of mixtures."""

    name = "block_evaluate"
    title = "block ablation"
    tables = (RESULTS, STRUCTURE)

    def shards(self, plan: Plan) -> Iterator[EvaluateShard]:
        for cell in plan.cells:
            for condition in plan.block_conditions(cell):
                for rows in plan.eval_rows(plan.dataset(cell)):
                    yield EvaluateShard(cell, (), 0, condition, rows)

    def needs(self, plan: Plan, shard: EvaluateShard) -> tuple[str, ...]:
        values = plan.values(shard.cell, shard.condition.eval_patch)
        return (*values, groups.blocks(shard.cell.key))

    def gates(self, plan: Plan) -> Iterator[Gate]:
        for cell in plan.cells:
            if plan.block_conditions(cell):
                needs = (groups.fitted(cell.key), groups.fits(cell.key))
                yield Gate(groups.blocks(cell.key), needs, partial(write_blocks, cell=cell))

    def lacks(self, plan: Plan) -> str:
        return lacks_graph_tool(plan)

    def arrays(self, run: RunDirectory, plan: Plan) -> Iterator[Planned]:
        for cell in plan.cells:
            for condition in plan.block_conditions(cell):
                yield planned_values(run, plan, cell, condition, 1, 1)

    def rows(self, view: View, cell: Cell) -> Mapping[Table, Iterable[Row]]:
        return {RESULTS: block_rows(view, cell), STRUCTURE: contrast_rows(view, cell)}
