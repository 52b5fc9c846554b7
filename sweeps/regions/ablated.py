"""The evaluation inputs without regions: each input's strongest, and those of a class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgesweep.engine.regions.ablation import HeldOut, run_without
from edgesweep.sweeps.regions import shards
from edgesweep.sweeps.regions.loading import held_out
from edgesweep.sweeps.regions.reading import read_regions
from edgesweep.sweeps.regions.shards import AblationShard
from edgesweep.sweeps.regions.sites import partitions_of
from edgesweep.sweeps.regions.stage import OfUnits
from edgesweep.sweeps.regions.told import metrics_of, planned
from edgesweep.sweeps.stages.base import Done, Passes

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan


class RegionAblation(OfUnits[AblationShard]):
    """One shard a partition and a patch. Its file has `values` `[ablation, input, metric]`, the
    share of each input's units that are gone `[ablation, input]`, and the `labels` of inputs."""

    name = shards.ABLATION
    title = "runs without regions"
    runs_model = True
    reads_blocks = True

    def shards(self, plan: Plan) -> Iterator[AblationShard]:
        for of in plan.rois:
            for which in partitions_of(plan.config, of):
                for patch in plan.config.evaluate.eval_patch:
                    means = shards.mean_keys(plan, of, "mean")
                    read = means if "mean" in (patch, of.build_patch) else ()
                    yield AblationShard(of, which, patch, read)

    def needs(self, plan: Plan, shard: AblationShard) -> tuple[str, ...]:
        means = shards.means_of(shard.of, "mean") if shard.means else ()
        return (shards.parted(shard.which), *means)

    def work(self, context: Context, shard: AblationShard) -> Done:
        regions, labels, _ = read_regions(context.run, context.log, shard.which)
        tested = _tested(context, shard)
        config = context.config
        plan, metrics = planned(config, shard.of), metrics_of(config)
        ran = run_without(regions, labels, tested, plan, metrics, config.rois.score)
        values, shares = zip(*ran, strict=True)
        tensors = {
            "values": torch.as_tensor(np.stack(values).astype(np.float32)),
            "units": torch.as_tensor(np.stack(shares).astype(np.float32)),
            "labels": torch.as_tensor(tested.labels),
        }
        return self.written(context, shard, tensors)

    def passes(self, plan: Plan, shard: AblationShard) -> Passes:
        n = plan.n_inputs("eval")
        batches = -(-n // plan.config.execution.micro_batch)
        return Passes(float(batches * len(planned(plan.config, shard.of))))


def _tested(context: Context, shard: AblationShard) -> HeldOut:
    """What shards of one site and patch have in common."""
    known = f"held out {shard.of.key} {shard.patch}"
    return context.held(known, lambda: held_out(context, shard.of, shard.patch, shard.means))
