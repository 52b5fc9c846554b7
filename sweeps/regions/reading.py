"""What is committed of regions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgesweep.engine.regions.ablation import Regions
from edgesweep.engine.regions.weighted import Partition
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.regions import shards

if TYPE_CHECKING:
    from edgesweep.storage import CommitLog, RunDirectory
    from edgesweep.sweeps.regions.sites import PartitionOf


def read_chain(run: RunDirectory, log: CommitLog, key: str) -> Partition:
    """A chain of the block model."""
    found = files.read_tensors(run, log, shards.CHAINS, key)
    return Partition(found["blocks"].numpy(), float(found["length"]))


def read_regions(
    run: RunDirectory, log: CommitLog, which: PartitionOf
) -> tuple[Regions, np.ndarray, np.ndarray]:
    """A committed partition: the regions, their classes, and what they say of each class
    `[classes, regions]`."""
    found = files.read_tensors(run, log, shards.PARTITIONS, which.key)
    return Regions(found["regions"].numpy()), found["labels"].numpy(), found["means"].numpy()
