"""What a shard of interaction graphs runs: blocks of inputs, and the values of cuts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgesweep.engine.bases.chain import Chain
from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.sources import Sources
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.network.base import LOGITS, Inputs, Value
from edgesweep.tasks import Example

#: evaluation prompts that are held at once, and numbers of their outputs
EVAL_BATCH, OUTPUT_NUMBERS = 1024, 2**26

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.interactions.graphs import Layered
    from edgesweep.sweeps.plan.cells import Rows


def chain_in(context: Context, of: Layered, dtype: str | None = None) -> Chain:
    """The network's pieces; None: in the run's own precision."""
    return chain_of(context.model(of.model, dtype), of.norms, of.positions)


def batches(
    context: Context, of: Layered, rows: Rows, micro_batch: int
) -> Iterator[tuple[Chain, int, Inputs]]:
    """A block of build inputs, in float64, with the number of each batch's first."""
    chain = chain_in(context, of, "float64")
    prompts = context.prompts(of.dataset, "build")[rows.start : rows.stop]
    for first in range(0, len(prompts), micro_batch):
        batch = PromptBatch.make(prompts[first : first + micro_batch])
        yield chain, rows.start + first, chain.prepare(batch.clean, batch.real)


def sources(context: Context, name: str, first: int) -> Sources:
    """The signs of a batch, if the run has some."""
    config = context.config
    return Sources(config.bases.sources, config.seed, name, first)


def at_once(chain: Chain, prompts: Sequence[Example]) -> int:
    """Evaluation prompts that are held and run at once: many, unless their outputs are large."""
    positions = max(map(len, prompts)) if chain.everywhere else 1
    return max(1, min(EVAL_BATCH, OUTPUT_NUMBERS // (positions * chain.widths[LOGITS])))


def value_at(chain: Chain, layer: str, inputs: Inputs) -> Value:
    """A cut's value."""
    first = chain.start(inputs)
    return first if layer == chain.first else chain.section(chain.first, layer)(first, inputs)
