"""The run directory: plan, Zarr arrays, commit log, tables, readers. The only place that imports
zarr."""

from storage.commits import CommitLog
from storage.errors import Fenced, OtherRunError, StorageError
from storage.rundir import RunDirectory, differences
from storage.status import status

__all__ = [
    "CommitLog",
    "Fenced",
    "OtherRunError",
    "RunDirectory",
    "StorageError",
    "differences",
    "status",
]
