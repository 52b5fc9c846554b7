"""The run directory: plan, Zarr arrays, commit log, tables, readers. The only place that imports
zarr."""

from edgesweep.storage.commits import CommitLog
from edgesweep.storage.errors import Busy, Fenced, OtherRunError, Refused, StorageError
from edgesweep.storage.rundir import RunDirectory, differences
from edgesweep.storage.status import status

__all__ = [
    "Busy",
    "CommitLog",
    "Fenced",
    "OtherRunError",
    "Refused",
    "RunDirectory",
    "StorageError",
    "differences",
    "status",
]
