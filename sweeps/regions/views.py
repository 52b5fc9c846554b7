"""What regions see: the numbers of an input that make their attribution, and the inputs that have
most of it. Of the strongest regions of each class, on build inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgesweep.engine.regions.ablation import Regions
from edgesweep.engine.regions.seen import seen
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.regions import shards
from edgesweep.sweeps.regions.loading import BUILD, Units, units_of
from edgesweep.sweeps.regions.reading import read_regions
from edgesweep.sweeps.regions.shards import ViewShard
from edgesweep.sweeps.regions.sites import partitions_of
from edgesweep.sweeps.regions.stage import OfUnits
from edgesweep.sweeps.stages.base import Done, Passes

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan

#: inputs of a class that a picture is the mean of, and the strongest that are told
AVERAGED, STRONGEST = 64, 6


class RegionViews(OfUnits[ViewShard]):
    """One shard a site: of the block model, or of the first partition that a run has. Its file has
    the `regions` and their `labels`, `pictures` `[region, *shape]` (means over the class's inputs,
    0 without any), and the `strongest` build inputs `[region, place]` with their `scores`."""

    name = shards.VIEWS
    title = "what regions see"
    runs_model = True
    reads_blocks = True

    def shards(self, plan: Plan) -> Iterator[ViewShard]:
        for of in plan.rois if plan.config.rois.views else ():
            which = next(partitions_of(plan.config, of))
            means = shards.mean_keys(plan, of, of.build_patch)
            yield ViewShard(of, which, means, shards.part_keys(plan, of))

    def needs(self, plan: Plan, shard: ViewShard) -> tuple[str, ...]:
        return (shards.parted(shard.which),)

    def work(self, context: Context, shard: ViewShard) -> Done:
        regions, labels, means = read_regions(context.run, context.log, shard.which)
        chosen = strongest_of(means, labels, context.config.rois.views)
        scores = _scores(context, shard, regions)[:, chosen]
        order = np.argsort(-scores, axis=0, kind="stable")[:STRONGEST].T
        units = units_of(context, shard.of, BUILD, shard.means)
        pictures = [_picture(units, regions, region, int(labels[region])) for region in chosen]
        tensors = {
            "regions": torch.as_tensor(chosen),
            "labels": torch.as_tensor(labels[chosen]),
            "pictures": torch.stack(pictures).cpu(),
            "strongest": torch.as_tensor(order.copy()),
            "scores": torch.as_tensor(np.take_along_axis(scores.T, order, 1)),
        }
        return self.written(context, shard, tensors)

    def passes(self, plan: Plan, shard: ViewShard) -> Passes:
        batches = -(-plan.n_inputs("build") // plan.config.execution.micro_batch)
        views = plan.config.rois.views * shard.of.n_classes
        each = -(-AVERAGED // plan.config.execution.micro_batch)
        return Passes(batches + views * each, views * each)


def strongest_of(means: np.ndarray, labels: np.ndarray, n: int) -> np.ndarray:
    """Of each class the n regions of it that say most of it, class by class."""
    own = means[labels, np.arange(len(labels))]
    classes = [np.flatnonzero(labels == number) for number in range(len(means))]
    return np.concatenate([mine[np.argsort(-own[mine], kind="stable")[:n]] for mine in classes])


def _scores(context: Context, shard: ViewShard, regions: Regions) -> np.ndarray:
    """Attributions of regions on all build inputs, `[inputs, regions]`."""
    read = files.parts(context, shards.MOMENTS, shard.parts)
    how = context.config.rois.score
    return np.concatenate([regions.scores(p["attributions"].double().numpy(), how) for p in read])


def _picture(units: Units, regions: Regions, region: int, label: int) -> torch.Tensor:
    """What a region sees in inputs of its class, in the mean."""
    mine = np.flatnonzero(units.classes == label)[:AVERAGED]
    some = units.rows(mine)
    inside = torch.as_tensor(regions.of == region, device=units.values.device)
    weights = some.slopes() * inside[torch.as_tensor(units.site.unit_of)]
    return seen(units.site, some.examples, weights).double().mean(0)
