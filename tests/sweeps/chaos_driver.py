"""A driver for the chaos test: the tiny run with workers that take their time, so that there is
something to kill. Run as a module with the run directory as its argument."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from engine.blockmodel import find_interpreter
from sweeps.cells import Shard
from sweeps.config import parse_config
from sweeps.context import WorkerSettings
from sweeps.launch import drive, start
from sweeps.progress import PlainProgress
from sweeps.work import make_worker
from tests.sweeps.helpers import BLOCKS, tiny

SECONDS_A_SHARD = 0.25


def chaos_config(executor: str) -> dict[str, Any]:
    """Some 150 shards of every stage; caps so high that no kill makes a shard look poisonous."""
    return tiny(
        sweep={"build_patch": ["counterfactual", "zero"]},
        evaluate={"eval_patch": ["counterfactual", "mean"], "threshold": [5, 20, 40]},
        data={"mean_positions": "pooled"},
        blocks=BLOCKS if find_interpreter() else {},
        execution={
            "executor": executor,
            "actors": 2,
            "max_attempts": 100,
            "max_slot_deaths": 200,
            "circuits_per_batch": 2,
        },
    )


def slow_worker(settings: WorkerSettings) -> Any:
    """The real worker, after a pause."""
    worker = make_worker(settings)

    def work(shard: Shard, attempt: int) -> dict[str, Any]:
        time.sleep(SECONDS_A_SHARD)
        return worker(shard, attempt)

    return work


if __name__ == "__main__":
    launch = start(parse_config(chaos_config("ray")), Path(sys.argv[1]))
    sys.exit(drive(launch, PlainProgress(), slow_worker).exit_code)
