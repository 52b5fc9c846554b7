"""Values that are not finite: a worker counts them, a record keeps the count, and a person is told
at the end. They are the fault of one model or one method, and no reason to stop the others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edgesweep.sweeps.view import View


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


def told(view: View) -> Iterator[str]:
    """A line for each cell, model or task of whose committed values some are not finite."""
    found: dict[str, Counter[str]] = {}
    for name, stage in view.plan.all_stages.items():
        shards = {shard.key: shard for shard in view.plan.stages[name]}
        for record in view.log.records(name):
            key = record["shard"]
            if record.get("n_bad") and key in shards:
                bad = record.get("bad") or {"scores": record["n_bad"]}
                found.setdefault(stage.whose(view.plan, shards[key]), Counter()).update(bad)
    for whose, bad in found.items():
        what = ", ".join(f"{n} values of {metric}" for metric, n in sorted(bad.items()))
        yield f"warning: {what} are not finite in {whose}"
