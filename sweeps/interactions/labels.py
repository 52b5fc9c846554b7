"""What directions are of, in words, for tasks whose inputs form a grid: Fourier terms of x and
y."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from edgesweep.engine.bases.fourier import Term, label
from edgesweep.engine.network import PromptBatch
from edgesweep.storage import layout
from edgesweep.storage.blocks import write_file
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.graphs import BasisOf
from edgesweep.sweeps.interactions.loading import chain_in, value_at
from edgesweep.sweeps.interactions.shards import LABELS, Shard, bases_of, of_layer, owner
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


class Labels(Stage[Shard[BasisOf]]):
    """One shard a layer, where all inputs are there."""

    name = LABELS
    title = "labels of directions"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[Shard[BasisOf]]:
        for basis in bases_of(plan):
            if has_all(plan.dataset_of(basis.of.dataset)):
                for layer in basis.of.rotated:
                    yield Shard(basis, layer)

    def needs(self, plan: Plan, shard: Shard[BasisOf]) -> tuple[str, ...]:
        return of_layer(shard.of, shard.at)

    @torch.no_grad()
    def run(self, context: Context, shard: Shard[BasisOf]) -> Done:
        found = [[(t.name, t.share) for t in terms] for terms in _labels(context, shard)]
        context.check_alive()
        name = layout.layered_told(self.name, shard.key)
        return [write_file(context.run, name, json.dumps(found).encode())], {}

    def passes(self, plan: Plan, shard: Shard[BasisOf]) -> Passes:
        data = plan.dataset_of(shard.dataset).data
        n = len(data.build) + len(data.evaluation)
        return Passes(-(-n // plan.config.execution.micro_batch))

    def alike(self, shard: Shard[BasisOf]) -> str:
        return shard.of.key

    def whose(self, plan: Plan, shard: Shard[BasisOf]) -> str:
        return owner(shard)


def _labels(context: Context, shard: Shard[BasisOf]) -> list[list[Term]]:
    """Of each direction, on all inputs; its activation is summed over positions."""
    of = shard.layers
    chain = chain_in(context, of, "float64")
    basis = files.read_basis(context.run, context.log, shard.of, shard.at)
    n = min(basis.k, MOST_LABELLED)
    grid = None
    for split in ("build", "eval"):
        prompts = context.prompts(of.dataset, split)
        for first in range(0, len(prompts), AT_ONCE):
            batch = PromptBatch.make(prompts[first : first + AT_ONCE])
            value = value_at(chain, shard.at, chain.prepare(batch.clean, batch.real))
            found = basis.encoded(value).sum(1)[:, :n].cpu()
            if grid is None:
                p = int(batch.clean[0, -1])
                grid = found.new_zeros(p, p, n)
            grid[batch.clean[:, 0], batch.clean[:, 1]] = found
    assert grid is not None
    return [label(grid[..., j].numpy()) for j in range(n)]
