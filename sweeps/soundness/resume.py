"""Which committed shards a driver reads before it goes on.

Whoever reads data checks it, so that a resume need not: but what it un-commits is redone at once,
and not after a stage has failed on it. So a small run is read as a whole. Of a large one are read

    1. what a verification has noted (`soundness.verify`)
    2. what shards that were given up read: their error may be of that
    3. a share of each stage, drawn by the run's id and the epoch

and all of it, if the last driver ended on an error of the store, or if one of these is damaged.
A large run that is done is not read at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgesweep.sweeps.plan.canonical import digest
from edgesweep.sweeps.soundness.noted import noted

if TYPE_CHECKING:
    from edgesweep.storage import CommitLog, RunDirectory
    from edgesweep.sweeps.plan.plan import Plan

#: of each stage of a large one, and no fewer than
SHARE, LEAST = 0.01, 20

#: keys by stage
Chosen = Mapping[str, set[str]]


def ended_well(log: CommitLog) -> bool:
    """Whether the driver before this one came to its end, and killed nobody at work."""
    return "left" in (log.epochs.ended(_before(log)) or {})


def _before(log: CommitLog) -> int:
    assert log.epoch is not None
    return log.epoch - 1


def is_done(run: RunDirectory, plan: Plan, log: CommitLog, left_out: Collection[str]) -> bool:
    """Whether nothing is left to do of a run whose manifest is sound: its tables are of what is
    committed, or the manifest would not be there."""
    if noted(run) != set():
        return False
    stages = ((name, shards) for name, shards in plan.stages.items() if name not in left_out)
    return all({s.key for s in shards} <= set(log.keys(name)) for name, shards in stages)


def to_read(run: RunDirectory, plan: Plan, log: CommitLog) -> Chosen | None:
    """The shards of a large run that are read now; None for all of them."""
    suspects = noted(run)
    before = log.epochs.ended(_before(log)) or {}
    if suspects is None or "error" in before:
        return None
    drawn = int(digest([run.run_id, log.epoch])[:8], 16)
    found = {stage: _drawn(log.keys(stage), drawn) for stage in plan.stages}
    for suspect in suspects:
        stage, _, shard = suspect.partition("/")
        found.setdefault(stage, set()).add(shard)
    for stage, keys in _read_by_failures(plan, log).items():
        found[stage] |= keys
    return found


def _drawn(keys: list[str], seed: int) -> set[str]:
    n = min(len(keys), max(LEAST, round(SHARE * len(keys))))
    places = np.random.default_rng(seed).choice(len(keys), n, replace=False) if n else ()
    return {keys[place] for place in places}


def _read_by_failures(plan: Plan, log: CommitLog) -> dict[str, set[str]]:
    """The shards of the groups that those shards need which were given up."""
    needed: set[str] = set()
    for name, stage in plan.all_stages.items():
        if failed := log.quarantined(name, _before(log)) if _before(log) else {}:
            shards = (shard for shard in plan.stages[name] if shard.key in failed)
            needed.update(group for shard in shards for group in stage.needs(plan, shard))
    if not needed:
        return {}
    return {
        name: {s.key for s in plan.stages[name] if needed.intersection(stage.groups(plan, s))}
        for name, stage in plan.all_stages.items()
    }
