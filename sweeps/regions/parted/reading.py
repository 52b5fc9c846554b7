"""What is committed of partitions of features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.regions.graph import PartitionedGraph, Partitions
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.regions.parted.shards import PARTS, part_key

if TYPE_CHECKING:
    from edgesweep.storage import CommitLog, RunDirectory
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.granularity.regionsets import RegionSet


def partitions_of(
    context: Context, chosen: RegionSet, dataset: str
) -> tuple[Partitions, PartitionedGraph]:
    """How the features of a set are parted on a dataset, and the complete graph of that."""
    features = context.feature_model(chosen)
    of = {
        site.site: _regions(context, part_key(chosen.digest, dataset, site.site))
        for site in chosen.parted()
    }
    found = Partitions(features, of)
    return found, found.complete()


def sizes_of(run: RunDirectory, log: CommitLog, chosen: RegionSet, dataset: str) -> dict[str, int]:
    """How many nodes each site has: the regions that were found, and a rest where something may be
    in none of them (`Partitions.has_rest`)."""
    found = dict.fromkeys(chosen.sizes, 1)
    for site in chosen.parted():
        told = log.record(PARTS, part_key(chosen.digest, dataset, site.site))
        has_rest = told["n_dead"] > 0 or site.source != "identity"
        found[site.site] = told["n_regions"] + has_rest
    return found


def _regions(context: Context, key: str) -> np.ndarray:
    return files.read_tensors(context.run, context.log, PARTS, key)["regions"].numpy()
