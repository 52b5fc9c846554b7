"""`edgesweep verify`: every byte that is committed is read and held against its record, by works of
the pool. Nothing is un-committed: what is found is noted in the run, and the next resume, which
reads the noted shards again, redoes those that are not sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesweep.engine.runtime import Executor, ExecutorError, Failure, Work
from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.storage.blocks import why_unsound
from edgesweep.sweeps.soundness.noted import note

if TYPE_CHECKING:
    from edgesweep.sweeps.progress import Progress

#: of one work: a receipt names each that is unsound, and must be small
SHARDS_A_WORK = 64


@dataclass(frozen=True)
class Check:
    """Shards of a stage, and what the record of each says was written."""

    stage: str
    writes: Mapping[str, tuple[Mapping[str, Any], ...]]


@dataclass
class Verified:
    """What was found: shards that were read, and why some are not sound, by stage/shard; and how
    many lines of commits are damaged, of which it is not known whose they are."""

    n_shards: int = 0
    n_lines: int = 0
    unsound: dict[str, str] = field(default_factory=dict)


class Checker:
    """The worker: reads, and says which shards are not what was committed, and why."""

    def __init__(self, path: Path | str) -> None:
        self._run = RunDirectory.open(path)

    def __call__(self, check: Check, attempt: int) -> dict[str, Any]:
        why = {s: why_unsound(self._run, {"writes": w}) for s, w in check.writes.items()}
        return {"unsound": {shard: reason[:400] for shard, reason in why.items() if reason}}


def checker(path: Path | str) -> partial[Checker]:
    """What each actor makes its worker with."""
    return partial(Checker, path)


def verify(run: RunDirectory, executor: Executor, progress: Progress) -> Verified:
    """Reads all that is committed, and notes what is not sound.

    Raises:
        ExecutorError: the pool cannot go on, or gave up a part.
        StorageError.
    """
    log, found = CommitLog(run), Verified()
    works = list(_works(log, found))
    progress.begin({"verify": "verification"}, {"verify": len(works)}, {"verify": 0})

    def done(work: Work, receipt: dict[str, Any]) -> None:
        unsound = receipt["unsound"]
        found.unsound |= {f"{work.payload.stage}/{shard}": why for shard, why in unsound.items()}
        progress.tick("verify")

    def failed(work: Work, failure: Failure) -> None:
        raise ExecutorError(f"what is committed was not read to its end: {failure}")

    try:
        executor.run(works, done, failed, lambda: False)
    finally:
        progress.end()
    note(run, found.unsound)
    found.n_lines = log.damaged()
    return found


def _works(log: CommitLog, found: Verified) -> Iterator[Work]:
    """What is to be read."""
    for stage in log.stages():
        records = log.records(stage)
        while some := list(islice(records, SHARDS_A_WORK)):
            writes = {r["shard"]: tuple(r.get("writes", ())) for r in some}
            yield Work(f"verify.{stage}.{found.n_shards:08d}", Check(stage, writes), "verify")
            found.n_shards += len(some)
