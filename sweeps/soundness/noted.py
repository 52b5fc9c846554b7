"""What a verification found, for the resume that comes after it."""

from __future__ import annotations

from collections.abc import Mapping

from edgesweep.storage import RunDirectory
from edgesweep.storage.atomic import replace
from edgesweep.storage.errors import DamagedRecord, storage_errors
from edgesweep.storage.layout import UNSOUND
from edgesweep.storage.records import read_record, seal


def note(run: RunDirectory, unsound: Mapping[str, str]) -> None:
    """Leaves `stage/shard` -> why in the run, in place of what was noted before."""
    if unsound:
        replace(run.path / UNSOUND, seal({"shards": dict(unsound)}))
    else:
        forget(run)


def noted(run: RunDirectory) -> set[str] | None:
    """What the last verification found; None if its note is damaged."""
    path = run.path / UNSOUND
    if not path.exists():
        return set()
    try:
        return set(read_record(path)["shards"])
    except DamagedRecord:
        return None


def forget(run: RunDirectory) -> None:
    """The noted shards have been looked at."""
    with storage_errors(run.path / UNSOUND):
        (run.path / UNSOUND).unlink(missing_ok=True)
