"""Values that are not finite: a worker counts them, a record keeps the count, and a person is told
at the end. They are the fault of one model or one method, and no reason to stop the others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from edgesweep.storage import CommitLog
from edgesweep.sweeps.plan.cells import ReferenceShard
from edgesweep.sweeps.plan.plan import Plan


def counted(values: Iterable[tuple[str, np.ndarray]]) -> dict[str, Any]:
    """For a receipt: how many values of each metric are not finite."""
    bad: Counter[str] = Counter()
    for metric, rows in values:
        bad[metric] += int((~np.isfinite(rows)).sum())
    return {"n_bad": bad.total(), "bad": {metric: n for metric, n in bad.items() if n}}


def plain(value: Any) -> Any:
    """JSON, which has no such numbers: None in their place."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def told(plan: Plan, log: CommitLog) -> Iterator[str]:
    """A line for each cell, model or task of whose committed values some are not finite."""
    found: dict[str, Counter[str]] = {}
    for stage in ("attribute", "refine", "evaluate", "block_evaluate"):
        shards = {shard.key: shard for shard in plan.stages[stage]}
        for key, record in log.committed(stage).items():
            if record.get("n_bad") and key in shards:
                bad = record.get("bad") or {"scores": record["n_bad"]}
                found.setdefault(_whose(plan, shards[key]), Counter()).update(bad)
    for whose, bad in found.items():
        what = ", ".join(f"{n} values of {metric}" for metric, n in sorted(bad.items()))
        yield f"warning: {what} are not finite in {whose}"


def _whose(plan: Plan, shard: Any) -> str:
    if not isinstance(shard, ReferenceShard):
        return f"cell {shard.cell.key} ({shard.cell.model}, {shard.cell.task})"
    dataset = next(d for d in plan.resolved.datasets.values() if d.key == shard.dataset)
    return f"the full or the empty {dataset.model} on {dataset.task}"
