"""Measuring all inputs of a block, a micro-batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesweep.engine.network import PromptBatch
from edgesweep.storage import layout
from edgesweep.storage.blocks import write_block
from edgesweep.sweeps.actor.halving import with_halving
from edgesweep.sweeps.notfinite import counted

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.cells import Cell, Condition, Rows

#: beside metrics: activation mass of circuits, and what of it took the mask of an error node
MASS, FALLBACK = "mass", "fallback_mass"

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


def measured(
    context: Context, cell: Cell, condition: Condition, rows: Rows, masks: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Each metric `[input, circuit, metric]` of circuits `[circuit, edge]`, all in one forward, and
    what else a record is to say."""
    measure = context.nodes(cell).evaluation(context, cell, condition, masks)
    found, micro_batch = over_inputs(context, cell.dataset, rows, measure)
    extra: dict[str, Any] = {"micro_batch": micro_batch}
    if MASS in found:
        mass, fallback = found.pop(MASS).sum(1), found.pop(FALLBACK).sum(1)
        extra["fallback_share"] = (fallback / np.where(mass > 0, mass, 1.0)).round(6).tolist()
    values = np.stack([found[m].T for m in context.config.evaluate.metric], axis=-1)
    return values, extra | counted(found.items())
