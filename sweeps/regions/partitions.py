"""Partitions of the units of a site: chains of the block model, what graph-tool says of them, and
all that is run beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgesweep.engine.blockmodel import BlockModelError, chain_seeds
from edgesweep.engine.regions.ablation import Regions, class_labels
from edgesweep.engine.regions.baselines import clustered, shuffled
from edgesweep.engine.regions.encodings import fit_encoded
from edgesweep.engine.regions.judge import judge
from edgesweep.engine.regions.weighted import Partition, fit_blocks
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.regions import shards
from edgesweep.sweeps.regions.cost import n_layers
from edgesweep.sweeps.regions.reading import read_chain
from edgesweep.sweeps.regions.shards import ChainShard, JudgeShard, PartitionShard
from edgesweep.sweeps.regions.sites import partitions_of
from edgesweep.sweeps.regions.stage import OfUnits
from edgesweep.sweeps.stages.base import Done, Passes
from edgesweep.sweeps.stages.blockmodels.blocks import why_no_graph_tool

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.regions.sites import UnitsOf

#: a chain's seconds at 1,500 units, and how they grow with their number (benchmarks/regions.py)
CHAIN_S, CHAIN_POWER = 15.0, 2.0
#: the same of graph-tool's
ITS_CHAIN_S, ITS_CHAIN_POWER = 550.0, 2.6


def _seconds(of: UnitsOf) -> float:
    return CHAIN_S * (of.n_units / 1500) ** CHAIN_POWER


def is_judged(plan: Plan) -> bool:
    """Whether graph-tool has a look: at the engine's own fits."""
    return bool(plan.rois) and plan.config.rois.judge and plan.config.rois.how.is_ours


class RegionChains(OfUnits[ChainShard]):
    """One shard a chain."""

    name = shards.CHAINS
    title = "block models of units"
    reads_blocks = True

    def shards(self, plan: Plan) -> Iterator[ChainShard]:
        for of in plan.rois:
            yield from shards.chain_shards(plan, of)

    def groups(self, plan: Plan, shard: ChainShard) -> Iterable[str]:
        return (shards.chains_of(shard.of),)

    def needs(self, plan: Plan, shard: ChainShard) -> tuple[str, ...]:
        return (shards.ties_of(shard.of),)

    def work(self, context: Context, shard: ChainShard) -> Done:
        found = _fitted(context, _ties(context, shard.of), shard.seed)
        tensors = {
            "blocks": torch.as_tensor(found.blocks),
            "length": torch.tensor(found.length, dtype=torch.float64),
        }
        return self.written(context, shard, tensors)

    def passes(self, plan: Plan, shard: ChainShard) -> Passes:
        rois, of = plan.config.rois, shard.of
        if rois.how.is_ours:
            return Passes(seconds=_seconds(of))
        layers = max(1, n_layers(plan.config, of))
        return Passes(seconds=layers * ITS_CHAIN_S * (of.n_units / 1500) ** ITS_CHAIN_POWER)


def _fitted(context: Context, ties: files.Tensors, seed: int) -> Partition:
    """A partition of the live units; graph-tool's where the block model is not the engine's."""
    how = context.config.rois.how
    if how.is_ours:
        return fit_blocks(ties["z"].numpy(), seed)
    z = ties["z" if how.layers == "none" else "layers"].numpy()
    return fit_encoded(z, how, seed, context.interpreter).partition


def _ties(context: Context, of: UnitsOf) -> files.Tensors:
    return files.read_tensors(context.run, context.log, shards.TIES, of.key)


def shortest(context: Context, keys: Iterable[str]) -> Partition:
    """The shortest of some chains, of equal ones the first."""
    chains = (read_chain(context.run, context.log, key) for key in keys)
    return min(chains, key=lambda chain: chain.length)


class RegionJudge(OfUnits[JudgeShard]):
    """graph-tool's length of the shortest chain, and what its own moves make of it. Nothing waits
    for it: a run has the same regions where there is no graph-tool."""

    name = shards.JUDGE
    title = "graph-tool's judgement"

    def shards(self, plan: Plan) -> Iterator[JudgeShard]:
        for of in plan.rois if is_judged(plan) else ():
            yield JudgeShard(of, shards.chain_keys(plan, of))

    def needs(self, plan: Plan, shard: JudgeShard) -> tuple[str, ...]:
        return (shards.ties_of(shard.of), shards.chains_of(shard.of))

    def lacks(self, plan: Plan) -> str:
        return why_no_graph_tool(plan) if is_judged(plan) else ""

    def work(self, context: Context, shard: JudgeShard) -> Done:
        best = shortest(context, shard.chains)
        if not best.length:
            raise BlockModelError("all weights are alike; there is nothing to judge")
        found = judge(_ties(context, shard.of)["z"].numpy(), best, context.interpreter)
        tensors = {
            "blocks": torch.as_tensor(found.partition.blocks),
            "length": torch.tensor(found.partition.length, dtype=torch.float64),
            "given": torch.tensor(found.given, dtype=torch.float64),
        }
        return self.written(context, shard, tensors, engine=found.engine)

    def passes(self, plan: Plan, shard: JudgeShard) -> Passes:
        return Passes(seconds=4 * _seconds(shard.of))


class Partitions(OfUnits[PartitionShard]):
    """One shard a partition, and of random blocks one a draw: the region of each unit, its class,
    and what it says of each class."""

    name = shards.PARTITIONS
    title = "partitions of units"
    reads_blocks = True

    def shards(self, plan: Plan) -> Iterator[PartitionShard]:
        for of in plan.rois:
            chains, parts = shards.chain_keys(plan, of), shards.part_keys(plan, of)
            for which in partitions_of(plan.config, of):
                read = parts if which.partition == "cocluster" else ()
                yield PartitionShard(of, which, chains, read)

    def groups(self, plan: Plan, shard: PartitionShard) -> Iterable[str]:
        return (shards.parted(shard.which),)

    def needs(self, plan: Plan, shard: PartitionShard) -> tuple[str, ...]:
        return (shards.ties_of(shard.of), shards.chains_of(shard.of))

    def work(self, context: Context, shard: PartitionShard) -> Done:
        ties = _ties(context, shard.of)
        live = ties["live"].numpy()
        blocks = _blocks(context, shard, ties["z"].numpy(), live)
        regions = Regions.among(shard.of.n_units, live, blocks)
        means = regions.scores(ties["attributions"].numpy(), context.config.rois.score)
        tensors = {
            "regions": torch.as_tensor(regions.of),
            "labels": torch.as_tensor(class_labels(means)),
            "means": torch.as_tensor(means),
        }
        return self.written(context, shard, tensors, n_regions=regions.n)

    def passes(self, plan: Plan, shard: PartitionShard) -> Passes:
        seconds = 0.0 if shard.which.partition in ("sbm", "random", "singletons") else 0.1
        return Passes(seconds=seconds * _seconds(shard.of))


def _blocks(context: Context, shard: PartitionShard, z: np.ndarray, live: np.ndarray) -> np.ndarray:
    """The block of each live unit."""
    which, seed = shard.which, context.datasets[shard.dataset].seed
    if which.partition == "singletons":
        return np.arange(len(live))
    model = shortest(context, shard.chains)
    if which.partition == "sbm":
        return model.blocks
    if which.partition == "random":
        sizes = np.arange(len(live)) % which.asked if which.asked else model.blocks
        return shuffled(sizes, chain_seeds(seed + 1, which.draw + 1)[-1])
    read = files.parts(context, shards.MOMENTS, shard.parts)
    parts = [part["attributions"].double().numpy()[:, live] for part in read]
    samples = np.concatenate(parts) if parts else np.zeros((0, len(live)))
    return clustered(which.partition, z, samples, which.asked or model.n_blocks, seed)
