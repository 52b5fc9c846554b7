"""What is measured of regions, and what every row of their tables says of what it is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesweep.engine.regions.ablation import METRICS, Ablation, ablations

if TYPE_CHECKING:
    from edgesweep.sweeps.config.load import Config
    from edgesweep.sweeps.regions.sites import PartitionOf, UnitsOf
    from edgesweep.sweeps.stages.base import Row


def metrics_of(config: Config) -> tuple[str, ...]:
    """What is measured without regions: accuracy, and what else is asked for and can be had."""
    asked = (name for name in config.evaluate.metric if name in METRICS)
    return tuple(dict.fromkeys(("accuracy", *asked)))


def planned(config: Config, of: UnitsOf) -> list[Ablation]:
    """All that is run of each partition, in order."""
    return ablations(config.rois.tau, of.n_classes)


def of_units(of: UnitsOf) -> Row:
    """Of a site's units."""
    told = {"units": of.key, "model": of.model, "task": of.task, "site": of.site}
    return told | {"build_patch": of.build_patch, "steps": of.steps, "rule": of.rule}


def of_partition(which: PartitionOf, n_blocks: int) -> Row:
    """Of a partition of them."""
    told = {"partition": which.partition, "asked": which.asked, "draw": which.draw}
    return {**of_units(which.of), **told, "n_blocks": n_blocks}
