"""Means and second moments of all layers, and of the slopes of closed sections, by blocks of
inputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch

from edgesweep.engine.bases.chain import Chain
from edgesweep.engine.bases.moments import Folding, Moments, Sums
from edgesweep.engine.network.base import LOGITS, Inputs
from edgesweep.sweeps.actor.halving import with_halving
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.interactions.graphs import Layered
from edgesweep.sweeps.interactions.loading import batches
from edgesweep.sweeps.interactions.shards import MOMENTS, Shard, moment_shards, moments_of
from edgesweep.sweeps.stages.base import Done, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan


class LayerMoments(Stage[Shard[Layered]]):
    """Once for all bases of a model on a task."""

    name = MOMENTS
    title = "moments of layers"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[Shard[Layered]]:
        for of in dict.fromkeys(graph.of for graph in plan.graphs):
            yield from moment_shards(plan, of)

    def groups(self, plan: Plan, shard: Shard[Layered]) -> Iterable[str]:
        return (moments_of(shard.of),)

    @torch.no_grad()
    def run(self, context: Context, shard: Shard[Layered]) -> Done:
        found, micro_batch = with_halving(context.micro_batch, partial(_moments, context, shard))
        return files.write_tensors(
            context, self.name, shard.key, found, micro_batch=micro_batch, n_bad=0
        )

    def passes(self, plan: Plan, shard: Shard[Layered]) -> Passes:
        return Passes(plan.batches(shard.block))

    def alike(self, shard: Shard[Layered]) -> str:
        return shard.of.key

    def whose(self, plan: Plan, shard: Shard[Layered]) -> str:
        return f"layers of {shard.of.model} on {shard.of.task}"


def _moments(context: Context, shard: Shard[Layered], micro_batch: int) -> files.Tensors:
    layers: defaultdict[str, Folding[Moments]] = defaultdict(Folding)
    sections: defaultdict[str, Folding[Sums]] = defaultdict(Folding)
    for chain, _, inputs in batches(context, shard.of, shard.block, micro_batch):
        for layer, moments, sums in _of_batch(chain, shard.of, inputs):
            layers[layer].add(moments)
            if sums is not None:
                sections[layer].add(sums)
    found: files.Tensors = {}
    for layer, folding in layers.items():
        found |= files.of_moments(layer, folding.whole())
    for layer, of_slopes in sections.items():
        found |= files.of_sums(f"{layer}/slopes", of_slopes.whole())
    return found


def _of_batch(
    chain: Chain, of: Layered, inputs: Inputs
) -> Iterator[tuple[str, Moments, Sums | None]]:
    """Of each layer its moments, and where the piece after it is closed, the sums of that."""
    value = chain.start(inputs)
    at = chain.first
    for layer in of.rotated:
        value = value if layer == at else chain.section(at, layer)(value, inputs)
        at = layer
        vectors = value[chain.real(layer, inputs).expand(value.shape[:2])]
        if not torch.isfinite(vectors).all():
            bad = int((~torch.isfinite(value).flatten(1).all(1)).nonzero()[0, 0])
            raise ValueError(
                f"activations at {layer} are not finite, first of input {bad} of a batch"
            )
        form = chain.section(layer, LOGITS).pieces[0].form if of.needs_sums(layer) else None
        sums = None if form is None else Sums(len(vectors), form.statistics(vectors))
        yield layer, Moments.of(vectors), sums
