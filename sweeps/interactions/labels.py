"""What directions are of, in words, for tasks whose inputs form a grid: Fourier terms of x and
y."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from edgesweep.engine.bases.cuts import chain_of
from edgesweep.engine.bases.fourier import Term, label
from edgesweep.engine.network import PromptBatch
from edgesweep.storage import layout
from edgesweep.storage.blocks import write_file
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.loading import value_at
from edgesweep.sweeps.interactions.shards import LABELS, LabelShard, bases_of, of_layer
from edgesweep.sweeps.stages.base import Done, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.plan.resolve import Dataset

#: tasks whose prompts are all (x, y), in some order, with p as their last token
GRIDS = ("modadd",)
#: of a layer, directions that have labels, and inputs that are run at once
MOST_LABELLED, AT_ONCE = 25, 1024


def has_all(dataset: Dataset) -> bool:
    """Whether a task's prompts are the whole of a grid."""
    if dataset.task not in GRIDS:
        return False
    data = dataset.data
    return len(data.build) + len(data.evaluation) == data.build[0].clean[-1] ** 2


class Labels(Stage[LabelShard]):
    """One shard a layer, where all inputs are there."""

    name = LABELS
    title = "labels of directions"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[LabelShard]:
        for basis in bases_of(plan):
            if has_all(plan.dataset_of(basis.of.dataset)):
                for layer in basis.of.rotated:
                    yield LabelShard(basis, layer)

    def needs(self, plan: Plan, shard: LabelShard) -> tuple[str, ...]:
        return of_layer(shard.basis, shard.layer)

    @torch.no_grad()
    def run(self, context: Context, shard: LabelShard) -> Done:
        found = [[(t.name, t.share) for t in terms] for terms in _labels(context, shard)]
        context.check_alive()
        name = layout.labels(shard.key)
        return [write_file(context.run, name, json.dumps(found).encode())], {}

    def passes(self, plan: Plan, shard: LabelShard) -> Passes:
        data = plan.dataset_of(shard.dataset).data
        n = len(data.build) + len(data.evaluation)
        return Passes(-(-n // plan.config.execution.micro_batch))

    def alike(self, shard: LabelShard) -> str:
        return shard.basis.key

    def whose(self, plan: Plan, shard: LabelShard) -> str:
        return f"{shard.basis.kind} of {shard.basis.of.model} at {shard.layer}"


def _labels(context: Context, shard: LabelShard) -> list[list[Term]]:
    """Of each direction, on all inputs; its activation is summed over positions."""
    of = shard.basis.of
    chain = chain_of(context.model(of.model, "float64"))
    basis = files.read_basis(context.run, context.log, shard.basis, shard.layer)
    n = min(basis.k, MOST_LABELLED)
    grid = None
    for split in ("build", "eval"):
        prompts = context.prompts(of.dataset, split)
        for first in range(0, len(prompts), AT_ONCE):
            batch = PromptBatch.make(prompts[first : first + AT_ONCE])
            value = value_at(chain, shard.layer, chain.prepare(batch.clean, batch.real))
            found = basis.encoded(value).sum(1)[:, :n].cpu()
            if grid is None:
                p = int(batch.clean[0, -1])
                grid = found.new_zeros(p, p, n)
            grid[batch.clean[:, 0], batch.clean[:, 1]] = found
    assert grid is not None
    return [label(grid[..., j].numpy()) for j in range(n)]
