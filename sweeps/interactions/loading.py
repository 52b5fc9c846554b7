"""What a shard of interaction graphs runs: blocks of inputs, and the values of cuts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgesweep.engine.bases.cuts import Chain, chain_of
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.base import Inputs, Value

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.interactions.graphs import Layered
    from edgesweep.sweeps.plan.cells import Rows


def batches(
    context: Context, of: Layered, rows: Rows, micro_batch: int
) -> Iterator[tuple[Chain, PromptBatch, Inputs]]:
    """A block of build inputs, in float64."""
    network = context.model(of.model, "float64")
    chain = chain_of(network)
    prompts = context.prompts(of.dataset, "build")[rows.start : rows.stop]
    for first in range(0, len(prompts), micro_batch):
        batch = PromptBatch.make(prompts[first : first + micro_batch])
        yield chain, batch, chain.prepare(batch.clean, batch.real)


def value_at(chain: Chain, layer: str, inputs: Inputs) -> Value:
    """A cut's value."""
    first = chain.start(inputs)
    return first if layer == chain.first else chain.section(chain.first, layer)(first, inputs)
