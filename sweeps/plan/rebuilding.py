"""What is found again on other build prompts (`measures.rebuild`): which cells, which of their
circuits, under which condition, and on which resamples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.measures import resamples
from edgesweep.sweeps.plan.cells import Cell, CircuitSpec, Condition

if TYPE_CHECKING:
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.plan.plan import Plan

#: the seed of resampled build prompts, beside those of evaluation prompts
BESIDE = 1_000_003


def rebuilt_specs(plan: Plan, cell: Cell) -> list[CircuitSpec]:
    """The circuits of the first aggregation and selection. None of a search, or of what no prompt
    changes, nor where the scores decide which edges there are."""
    evaluate = plan.config.evaluate
    inputs_matter = cell.tau is None and cell.seed is None
    if not (plan.config.measures.rebuild and inputs_matter):
        return []
    if not plan.nodes(cell).same_in_all_cells:
        return []
    first = evaluate.aggregation[0], evaluate.selection[0]
    return [c for c in plan.circuits(cell) if (c.aggregation, c.selection) == first]


def rebuilt_condition(config: Config) -> Condition:
    """The first ablation and patch."""
    return Condition(config.evaluate.ablation[0], config.evaluate.eval_patch[0])


def build_weights(config: Config, members: Sequence[int]) -> np.ndarray:
    """Weights `[resample, input]`, of every member's inputs on their own; the same for all cells of
    one dataset. `members`: how many inputs each has."""
    among = np.repeat(np.arange(len(members)), members)
    seed = (config.seed + BESIDE) % 2**32
    return resamples(len(among), config.measures.rebuild, seed, among)


def members_of(plan: Plan, cell: Cell, split: str) -> tuple[int, ...]:
    """How many inputs of a split each member has."""
    rows = plan.dataset(cell).member_rows(split).values()
    return tuple(mine.stop - mine.start for mine in rows)
