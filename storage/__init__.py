"""The run directory: plan, Zarr arrays, commit log, tables, readers. The only place that imports
zarr."""

from storage.commits import CommitLog
from storage.errors import Busy, Fenced, OtherRunError, Refused, StorageError
from storage.rundir import RunDirectory, differences
from storage.status import status

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
