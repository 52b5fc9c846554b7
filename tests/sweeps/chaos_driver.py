"""A driver for the chaos test: the tiny run with workers that take their time, so that there is
something to kill. Run as a module: the run directory, the seconds that a shard takes, and the file
of another config."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.sweeps.actor.context import WorkerSettings
from edgesweep.sweeps.actor.worker import Task, make_worker
from edgesweep.sweeps.command import cli
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import start
from tests.sweeps.helpers import BLOCKS, FURTHER, HELD_AGAINST, tiny

SECONDS_A_SHARD = 0.2


def chaos_config(executor: str) -> dict[str, Any]:
    """Some 250 shards of every stage; caps so high that no kill makes a shard look poisonous."""
    return tiny(
        sweep={"build_patch": ["counterfactual", "zero"]},
        evaluate={
            "eval_patch": ["counterfactual", "mean"],
            "threshold": [5, 20, 40],
            "ablation": "edge",
            **FURTHER["evaluate"],
        },
        data={"mean_positions": "pooled"},
        measures=FURTHER["measures"],
        blocks={**BLOCKS, **HELD_AGAINST} if find_interpreter() else {},
        execution={
            "executor": executor,
            "actors": 2,
            "max_attempts": 100,
            "max_slot_deaths": 200,
            "circuits_per_batch": 2,
        },
    )


def slow_worker(settings: WorkerSettings, seconds_a_shard: float = SECONDS_A_SHARD) -> Any:
    """The real worker, after a pause."""
    worker = make_worker(settings)

    def work(task: Task, attempt: int) -> dict[str, Any]:
        time.sleep(seconds_a_shard)
        return worker(task, attempt)

    return work


if __name__ == "__main__":
    raw = json.loads(Path(sys.argv[3]).read_text()) if len(sys.argv) > 3 else chaos_config("ray")
    launch = start(parse_config(raw), Path(sys.argv[1]))
    pause = float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS_A_SHARD
    factory = partial(slow_worker, seconds_a_shard=pause)
    sys.exit(cli.drive_and_tell(launch, factory, page=None))
