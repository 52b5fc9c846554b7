"""Whether a run is finished, told by its records alone: neither its plan is made nor a model looked
for, nothing is written, and of a bucket some twenty objects are asked for.

Of a large run only; a small one is read as a whole whenever it is resumed.
"""

from __future__ import annotations

from edgesweep.storage import RunDirectory, StorageError
from edgesweep.storage.epochs import Epochs
from edgesweep.storage.manifest import is_whole
from edgesweep.sweeps.soundness.noted import noted

#: of a run that is small, if its data is too (`plan.estimates.is_small`)
SMALL_SHARDS = 20_000


def is_finished(run: RunDirectory) -> bool:
    """False also where a driver is at work."""
    planned = run.plan.get("stages", {}).values()
    if sum(n if isinstance(n, int) else len(n) for n in planned) <= SMALL_SHARDS:
        return False
    try:
        return Epochs(run.root).driver() is None and noted(run) == set() and is_whole(run)
    except StorageError:
        return False
