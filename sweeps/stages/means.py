"""Mean patches: the mean that stands in for the prompts of one group, of what every node writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.patches import mean_groups
from edgesweep.storage import layout
from edgesweep.storage.arrays import Planned
from edgesweep.storage.blocks import write_block
from edgesweep.sweeps.actor.halving import with_halving
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.canonical import slug
from edgesweep.sweeps.stages.base import Done, Passes, Stage

if TYPE_CHECKING:
    from edgesweep.storage import RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan


@dataclass(frozen=True)
class MeanShard:
    """The mean over one group of build prompts, the `index`-th. `nodes` is the name of the way in
    which the model is taken apart, `digest` that way's digest."""

    dataset: str
    group: str
    index: int
    nodes: str = "heads"
    digest: str = ""

    @property
    def key(self) -> str:
        return f"{self.source}.{self.index:04d}-{slug(self.group)}"

    @property
    def source(self) -> str:
        """The values that it is a mean of."""
        return layout.source(self.dataset, self.digest)


class Means(Stage[MeanShard]):
    """Only where a mean patch is used."""

    name = "means"
    title = "mean patches"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[MeanShard]:
        if not plan.mean_is_used:
            return
        for dataset in plan.resolved.datasets.values():
            for name, nodes in plan.ways(dataset.model):
                for index, group in enumerate(dataset.build_groups(plan.config.data.pooled)):
                    yield MeanShard(dataset.key, group, index, name, nodes.digest)

    def groups(self, plan: Plan, shard: MeanShard) -> Iterable[str]:
        return (groups.means(shard.source),)

    def needs(self, plan: Plan, shard: MeanShard) -> tuple[str, ...]:
        return plan.trained(shard.digest)

    def arrays(self, run: RunDirectory, plan: Plan) -> Iterator[Planned]:
        config, datasets = plan.config, {d.key: d for d in plan.resolved.datasets.values()}
        dtype = "float64" if config.execution.dtype == "float64" else "float32"
        for shard in plan.stages[self.name]:
            dataset = datasets[shard.dataset]
            rows, columns = plan.resolved.nodes[dataset.model, shard.nodes].mean_shape()
            positions = 1 if config.data.pooled else dataset.group_lengths[shard.group]
            shape, name = (rows, positions, columns), layout.mean(shard.source, shard.index)
            yield Planned(run.root / layout.MEANS, name, shape, shape, dtype)

    def run(self, context: Context, shard: MeanShard) -> Done:
        """In the model's precision."""
        config, prompts = context.config, context.prompts(shard.dataset, "build")
        named = mean_groups(prompts, pooled=config.data.pooled)
        mine = [p for p, group in zip(prompts, named, strict=True) if group == shard.group]
        nodes = context.nodes_of(context.datasets[shard.dataset].model, shard.nodes)
        partials = nodes.mean_partials(context)
        how = {"pooled": config.data.pooled, "over": config.data.mean_over}

        def compute(micro_batch: int) -> np.ndarray:
            return partials(mine, **how, micro_batch=micro_batch)[shard.group].mean()

        mean, micro_batch = with_halving(context.micro_batch, compute)
        context.check_alive()
        name = layout.mean(shard.source, shard.index)
        table = mean.astype("float64" if config.execution.dtype == "float64" else "float32")
        write = write_block(context.run, layout.MEANS, name, 0, table)
        return [write], {"micro_batch": micro_batch}

    def passes(self, plan: Plan, shard: MeanShard) -> Passes:
        return Passes(1.0)

    def alike(self, shard: MeanShard) -> str:
        return shard.source
