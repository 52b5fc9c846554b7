"""How the features of each site go together on build inputs, and the partition of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from edgesweep.engine.bases.moments import Moments, fold
from edgesweep.engine.features.batch import FeatureBatch
from edgesweep.engine.features.nodes import NodeAttribution, attribute_clean, attribute_nodes
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.regions.correlation import moments_of
from edgesweep.engine.regions.samples import TooFewVary, Wanted, parted, samples
from edgesweep.storage import layout
from edgesweep.sweeps.config.fields import UnfitError
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.regions.parted import shards
from edgesweep.sweeps.regions.parted.shards import PartShard, SampleShard
from edgesweep.sweeps.stages.base import Done, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan

#: a chain's seconds at 1,500 features, and how they grow with their number (benchmarks/regions.py)
CHAIN_S, CHAIN_POWER = 15.0, 2.0


class FeatureMoments(Stage[SampleShard]):
    """One shard a site and block of inputs. Its file has moments of what its features are."""

    name = shards.MOMENTS
    title = "moments of features"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[SampleShard]:
        return shards.sample_shards(plan)

    def groups(self, plan: Plan, shard: SampleShard) -> Iterable[str]:
        return (shards.moments_of(shard.of),)

    def needs(self, plan: Plan, shard: SampleShard) -> tuple[str, ...]:
        nodes = plan.resolved.nodes[shard.of.model, shard.nodes]
        means = (groups.means(layout.source(shard.dataset, nodes.digest)),)
        return (*plan.trained(nodes.digest), *(means if shard.of.patch == "mean" else ()))

    def run(self, context: Context, shard: SampleShard) -> Done:
        with threadpool_limits(context.config.execution.threads):
            found = fold(_moments(context, shard))
        tensors = files.of_moments("features", found)
        return [files.write_at(context, layout.regions(self.name, shard.key), tensors)], {}

    def model(self, plan: Plan, shard: SampleShard) -> str:
        return shard.of.model

    def passes(self, plan: Plan, shard: SampleShard) -> Passes:
        batches = float(plan.batches(shard.rows))
        source = plan.resolved.models[shard.of.model].source
        below = 1 - (source.sites.layer(shard.of.site) + 1) / source.sizes.n_layers
        steps = shard.of.steps * below * batches * (shard.of.of == "attribution")
        return Passes(2 * batches + steps, steps)

    def alike(self, shard: SampleShard) -> str:
        return shard.of.key

    def whose(self, plan: Plan, shard: SampleShard) -> str:
        return _whose(plan, shard)


def found_in(wanted: Wanted, shard: PartShard, moments: Moments | None) -> np.ndarray:
    """How many features vary is known here first."""
    try:
        return parted(wanted, shard.of.n_features, moments)
    except TooFewVary as error:
        key = f"features.{shard.nodes}.regions.blocks"
        raise UnfitError(f"{key}: {error} at {shard.of.site!r} of {shard.of.model!r}") from None


def _whose(plan: Plan, shard: SampleShard | PartShard) -> str:
    return f"{shard.of.site} of {shard.of.model} on {plan.dataset_of(shard.dataset).task}"


def _moments(context: Context, shard: SampleShard) -> Iterator[Moments]:
    """Of a block's batches, one after another."""
    of = shard.of
    held = f"features {of.dataset} {of.base} {of.patch} {of.metric} {of.steps} {shard.rows.key}"
    for ends, nodes in context.held(held, lambda: _batches(context, shard)):
        if of.of == "attribution" and nodes is None:
            nodes = attribute_nodes(ends, of.metric, steps=of.steps, only=(of.site,))
        yield moments_of(samples(ends, nodes, (of.site,), of=of.of, over=of.over))
        context.check_alive()


def _batches(
    context: Context, shard: SampleShard
) -> list[tuple[FeatureBatch, NodeAttribution | None]]:
    """Of a block of inputs, which the shards of all sites read, with gradients that are had of all
    sites at once."""
    of = shard.of
    chosen = context.nodes_of(of.model, shard.nodes).parted
    assert chosen is not None
    features = context.feature_model(chosen)
    patch = context.feature_patch(of.patch, of.dataset, "build", chosen.digest)
    prompts = context.prompts(of.dataset, "build")[shard.rows.start : shard.rows.stop]
    starts = range(0, len(prompts), context.micro_batch)
    batches = [PromptBatch.make(prompts[i : i + context.micro_batch]) for i in starts]
    ends = [FeatureBatch.of(features, batch, patch) for batch in batches]
    at_once = of.of == "attribution" and of.steps == 0
    return [(one, attribute_clean(one, of.metric) if at_once else None) for one in ends]


class FeaturePartitions(Stage[PartShard]):
    """One shard a site of a set. Its file has `regions`, of each feature; its record how many
    there are, and features that do not vary, which are in none."""

    name = shards.PARTS
    title = "partitions of features"

    def shards(self, plan: Plan) -> Iterator[PartShard]:
        return shards.part_shards(plan)

    def groups(self, plan: Plan, shard: PartShard) -> Iterable[str]:
        return (groups.parted(layout.source(shard.dataset, shard.digest)),)

    def needs(self, plan: Plan, shard: PartShard) -> tuple[str, ...]:
        return (shards.moments_of(shard.of),) if shard.parts else ()

    def run(self, context: Context, shard: PartShard) -> Done:
        chosen = context.nodes_of(shard.of.model, shard.nodes).parted
        assert chosen is not None
        how = chosen.how
        read = files.parts(context, shards.MOMENTS, shard.parts)
        moments = fold(files.moments_in("features", p) for p in read) if shard.parts else None
        site = shard.of.site
        wanted = Wanted(how.partition, chosen.blocks[site], how.chains, how.seed)
        with threadpool_limits(context.config.execution.threads):
            found = found_in(wanted, shard, moments)
        tensors = {"regions": torch.as_tensor(found)}
        told: dict[str, Any] = {
            "n_regions": int(found.max()) + 1,
            "n_dead": int(np.sum(found < 0)),
        }
        return [files.write_at(context, layout.regions(self.name, shard.key), tensors)], told

    def passes(self, plan: Plan, shard: PartShard) -> Passes:
        chosen = plan.resolved.nodes[shard.of.model, shard.nodes].parted
        assert chosen is not None
        chains = {"sbm": chosen.how.chains}.get(chosen.how.partition, 0.1 * bool(shard.parts))
        return Passes(seconds=chains * CHAIN_S * (shard.of.n_features / 1500) ** CHAIN_POWER)

    def alike(self, shard: PartShard) -> str:
        return shard.digest

    def whose(self, plan: Plan, shard: PartShard) -> str:
        return _whose(plan, shard)
