"""Measuring all inputs of a block, a micro-batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesweep.engine.network import PromptBatch
from edgesweep.storage import layout
from edgesweep.storage.blocks import write_block
from edgesweep.sweeps.actor.halving import with_halving

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.cells import Rows

ByName = dict[Any, np.ndarray]


def over_inputs(
    context: Context, dataset: str, rows: Rows, measure: Callable[[PromptBatch], ByName]
) -> tuple[ByName, int]:
    """A measurement of evaluation prompts, inputs last, and the micro-batch it was had with."""
    prompts = context.prompts(dataset, "eval")[rows.start : rows.stop]

    def batches(micro_batch: int) -> Iterator[ByName]:
        for start in range(0, len(prompts), micro_batch):
            yield measure(PromptBatch.make(prompts[start : start + micro_batch]))

    def compute(micro_batch: int) -> ByName:
        parts = list(batches(micro_batch))
        return {name: np.concatenate([p[name] for p in parts], axis=-1) for name in parts[0]}

    return with_halving(context.micro_batch, compute)


def write_values(
    context: Context, name: str, rows: Rows, values: np.ndarray, column: int | None = None
) -> dict[str, Any]:
    """What was measured of each input, float64, inputs first; `column`: where it begins on the
    second axis."""
    values = np.ascontiguousarray(values, dtype=np.float64)
    return write_block(context.run, layout.EVALUATIONS, name, rows.start, values, column)
