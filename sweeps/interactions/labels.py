"""What directions are of, in words: of tasks whose inputs form a grid Fourier terms of x and y, of
language models positions and tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from edgesweep.engine.bases.fourier import label
from edgesweep.engine.bases.tokens import told_by_data, told_by_weights
from edgesweep.engine.network import PromptBatch
from edgesweep.storage import layout
from edgesweep.storage.blocks import write_file
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.graphs import BasisOf, Layered
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
MOST_LABELLED, AT_ONCE, TEXTS = 25, 1024, 64

#: of each direction, (kind, term, share)
Terms = list[list[tuple[str, str, float]]]


def has_words(plan: Plan, of: Layered) -> bool:
    """Whether its layers are a transformer's at all positions of a text."""
    return of.positions == "all" and plan.resolved.models[of.model].sizes.n_heads > 0


def has_all(dataset: Dataset) -> bool:
    """Whether a task's prompts are the whole of a grid."""
    if dataset.task not in GRIDS:
        return False
    data = dataset.data
    return len(data.build) + len(data.evaluation) == data.build[0].clean[-1] ** 2


class Labels(Stage[Shard[BasisOf]]):
    """One shard a layer, of a whole grid of inputs and of language models."""

    name = LABELS
    title = "labels of directions"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[Shard[BasisOf]]:
        for basis in bases_of(plan):
            if has_all(plan.dataset_of(basis.of.dataset)) or has_words(plan, basis.of):
                for layer in basis.of.rotated:
                    yield Shard(basis, layer)

    def needs(self, plan: Plan, shard: Shard[BasisOf]) -> tuple[str, ...]:
        return of_layer(shard.of, shard.at)

    @torch.no_grad()
    def run(self, context: Context, shard: Shard[BasisOf]) -> Done:
        grid = shard.layers.task in GRIDS
        found = _fourier(context, shard) if grid else _words(context, shard)
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


def _words(context: Context, shard: Shard[BasisOf]) -> Terms:
    """Of each direction, on the build prompts and by what it writes on the logits."""
    of = shard.layers
    chain, network = chain_in(context, of, "float64"), context.model(of.model, "float64")
    basis = files.read_basis(context.run, context.log, shard.of, shard.at)
    n, found, at, tokens = min(basis.k, MOST_LABELLED), [], [], []
    prompts = context.prompts(of.dataset, "build")
    for first in range(0, len(prompts), TEXTS):
        batch = PromptBatch.make(prompts[first : first + TEXTS])
        value = value_at(chain, shard.at, chain.prepare(batch.clean, batch.real))
        found.append(basis.encoded(value)[batch.real][:, :n].cpu())
        at.append((batch.real.cumsum(1) - 1)[batch.real])
        tokens.append(batch.clean[batch.real])
    word = _word(context.sources[of.model].tokenizer())
    by_data = told_by_data(torch.cat(found), torch.cat(at), torch.cat(tokens), word)
    stream = basis.decode[:n, -network.d_model :].to(network.dtype)
    by_weights = told_by_weights(stream, network.unembedding, word)
    return [
        [(told.kind, told.term, told.share) for told in (*data, *weights)]
        for data, weights in zip(by_data, by_weights, strict=True)
    ]


def _word(tokenizer: Any) -> Callable[[int], str]:
    """A token as people write it; without a tokenizer its number."""
    if tokenizer is None:
        return lambda token: f"token {token}"
    return lambda token: repr(tokenizer.decode([token]))


def _fourier(context: Context, shard: Shard[BasisOf]) -> Terms:
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
    found_terms = [label(grid[..., j].numpy()) for j in range(n)]
    return [[("fourier", t.name, t.share) for t in terms] for terms in found_terms]
