"""How the units of a site go together, by blocks of build inputs, and of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgesweep.engine.bases.moments import Folding, Moments, Sums
from edgesweep.engine.regions.correlation import correlation, layer, moments_of
from edgesweep.sweeps.config.fields import UnfitError
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.regions import shards
from edgesweep.sweeps.regions.loading import BUILD, Units, site_of, units_of
from edgesweep.sweeps.regions.shards import TiesShard, UnitShard
from edgesweep.sweeps.regions.sites import UnitsOf, check_layers, partitions_of
from edgesweep.sweeps.regions.stage import OfUnits
from edgesweep.sweeps.stages.base import Done, Passes

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan


class UnitMeans(OfUnits[UnitShard]):
    """What a mean patch is the mean of: a site's numbers on one side of the build inputs."""

    name = shards.MEANS
    title = "means of units"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[UnitShard]:
        for of in plan.rois:
            yield from shards.mean_shards(plan, of)

    def groups(self, plan: Plan, shard: UnitShard) -> Iterable[str]:
        return shards.means_of(shard.of, "mean")

    def work(self, context: Context, shard: UnitShard) -> Done:
        rows, config = shard.rows, context.config
        examples = context.prompts(shard.dataset, BUILD)[rows.start : rows.stop]
        values = site_of(context, shard.of).values(examples, config.data.mean_over).double().cpu()
        sums = Sums(len(values), {"values": values.sum(0)})
        return self.written(context, shard, files.of_sums("values", sums))

    def passes(self, plan: Plan, shard: UnitShard) -> Passes:
        return Passes(plan.batches(shard.rows))


class UnitMoments(OfUnits[UnitShard]):
    """Moments, of all inputs and of layers, sums by class, and the attributions themselves, which
    co-clustering reads."""

    name = shards.MOMENTS
    title = "moments of units"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[UnitShard]:
        for of in plan.rois:
            yield from shards.unit_shards(plan, of)

    def groups(self, plan: Plan, shard: UnitShard) -> Iterable[str]:
        return (shards.moments_of(shard.of),)

    def needs(self, plan: Plan, shard: UnitShard) -> tuple[str, ...]:
        return shards.means_of(shard.of, shard.of.build_patch)

    def work(self, context: Context, shard: UnitShard) -> Done:
        units = units_of(context, shard.of, BUILD, shard.means, shard.rows)
        found = units.attributions()
        samples = found if shard.of.of == "attribution" else units.samples()
        tensors = {
            **(_by_layer(units, samples) if context.config.rois.layers != "none" else {}),
            **files.of_moments("units", moments_of(samples)),
            **files.of_sums("class", _by_class(units, found)),
            "attributions": torch.as_tensor(found.astype(np.float32)),
            "classes": torch.as_tensor(units.classes),
        }
        return self.written(context, shard, tensors, n_bad=0)

    def passes(self, plan: Plan, shard: UnitShard) -> Passes:
        rows, width = shard.rows.stop - shard.rows.start, shard.of.n_units
        batches = plan.batches(shard.rows)
        return Passes(batches, shard.of.steps * batches, flop=2.0 * rows * width**2)


def _by_layer(units: Units, samples: np.ndarray) -> files.Tensors:
    """Moments over the inputs of each class that has any."""
    found: files.Tensors = {}
    for number in range(units.of.n_classes):
        if len(mine := samples[units.classes == number]):
            found |= files.of_moments(f"layer{number}", moments_of(mine))
    return found


def _by_class(units: Units, attributions: np.ndarray) -> Sums:
    """Sums over the inputs of each class that is attributed."""
    n = units.of.n_classes
    total, count = np.zeros((n, attributions.shape[1])), np.zeros(n)
    known = units.classes < n  # an output that is no class of the task may be the largest
    np.add.at(total, units.classes[known], attributions[known])
    np.add.at(count, units.classes[known], 1.0)
    sums = {"attributions": torch.as_tensor(total), "count": torch.as_tensor(count)}
    return Sums(len(attributions), sums)


@dataclass(frozen=True)
class _Both:
    """Moments and sums that fold side by side."""

    moments: Moments
    sums: Sums

    def merged(self, other: _Both) -> _Both:
        return _Both(self.moments.merged(other.moments), self.sums.merged(other.sums))


class UnitTies(OfUnits[TiesShard]):
    """Fisher's z of the live units' correlations, of all inputs and, where they are layers, of each
    class; each unit's mean attribution by class."""

    name = shards.TIES
    title = "correlations of units"

    def shards(self, plan: Plan) -> Iterator[TiesShard]:
        for of in plan.rois:
            yield TiesShard(of, shards.part_keys(plan, of))

    def groups(self, plan: Plan, shard: TiesShard) -> Iterable[str]:
        return (shards.ties_of(shard.of),)

    def needs(self, plan: Plan, shard: TiesShard) -> tuple[str, ...]:
        return (shards.moments_of(shard.of),)

    def work(self, context: Context, shard: TiesShard) -> Done:
        read = files.parts(context, shards.MOMENTS, shard.parts)
        both, layers = _folded(read, shard.of.n_classes)
        ties = correlation(both.moments, context.config.rois.cut)
        _check_blocks(context, shard.of, len(ties.live))
        sums = both.sums.sums
        tensors = {
            "live": torch.as_tensor(ties.live),
            "z": torch.as_tensor(ties.z),
            "attributions": sums["attributions"] / sums["count"][:, None],
        }
        if context.config.rois.layers != "none":
            check_layers(sums["count"].numpy().astype(int), UnfitError)
            cut = context.config.rois.cut
            found = [layer(of_class.whole(), ties.live, cut) for of_class in layers]
            tensors["layers"] = torch.as_tensor(np.stack(found))
        told = {"n_dead": ties.n_dead, "n_clipped": ties.n_clipped, "n_live": len(ties.live)}
        return self.written(context, shard, tensors, **told)

    def passes(self, plan: Plan, shard: TiesShard) -> Passes:
        return Passes(flop=20.0 * len(shard.parts) * shard.of.n_units**2)


def _folded(parts: Iterable[files.Tensors], n_classes: int) -> tuple[_Both, list[Folding[Moments]]]:
    """Of all inputs; of each class what is there of it."""
    both: Folding[_Both] = Folding()
    layers: list[Folding[Moments]] = [Folding() for _ in range(n_classes)]
    for part in parts:
        both.add(_Both(files.moments_in("units", part), files.sums_in("class", part)))
        for number, of_class in enumerate(layers):
            if f"layer{number}/n" in part:
                of_class.add(files.moments_in(f"layer{number}", part))
    return both.whole(), layers


def _check_blocks(context: Context, of: UnitsOf, n_live: int) -> None:
    """Before anything is made of the correlations: how many units live is known here first."""
    asked = (which.asked for which in partitions_of(context.config, of))
    if (most := max(asked)) > n_live:
        raise UnfitError(
            f"rois.blocks: {most} of {n_live} live units at {of.site!r} of {of.model!r} on "
            f"{of.task!r} ({of.n_units - n_live} of {of.n_units} do not vary); allowed: 1 to "
            f"{n_live}"
        )
