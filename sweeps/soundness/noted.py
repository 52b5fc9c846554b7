"""What a verification found, for the resume that comes after it."""

from __future__ import annotations

from collections.abc import Mapping

from edgesweep.storage import RunDirectory
from edgesweep.storage.errors import DamagedRecord
from edgesweep.storage.layout import UNSOUND
from edgesweep.storage.records import read_record, seal
from edgesweep.storage.stores import Missing


def note(run: RunDirectory, unsound: Mapping[str, str]) -> None:
    """Leaves `stage/shard` -> why in the run, in place of what was noted before."""
    if unsound:
        (run.root / UNSOUND).write(seal({"shards": dict(unsound)}))
    else:
        forget(run)


def noted(run: RunDirectory) -> set[str] | None:
    """What the last verification found; None if its note is damaged."""
    try:
        return set(read_record(run.root / UNSOUND)["shards"])
    except Missing:
        return set()
    except DamagedRecord:
        return None


def forget(run: RunDirectory) -> None:
    """The noted shards have been looked at."""
    (run.root / UNSOUND).delete()
