"""What one actor of four that is ten times slower costs a run, without backups and with them.

    python -m benchmarks.slow_actor

A real sweep of the tiny model over Ray, each shard of which takes 0.5 s, of the slow actor 5 s.
Printed is how much of the ideal is reached: the seconds that all shards take, divided among actors
by their speed, over those from the first shard that begins to the last commit.
"""

import functools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from edgesweep.storage import CommitLog
from edgesweep.sweeps.actor.context import WorkerSettings
from edgesweep.sweeps.actor.worker import Task, make_worker
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import drive, start
from edgesweep.sweeps.progress import Silence

ACTORS, SHARD_S, SLOWER = 4, 0.5, 10


def config(backup: bool) -> dict[str, Any]:
    """Some 170 shards of two cells."""
    return {
        "name": "slow-actor",
        "sweep": {"model": "tiny-random", "task": "ioi", "method": ["eap", "ig_inputs"]},
        "evaluate": {"threshold": [5, 20], "ablation": "edge", "metric": "logit_diff"},
        "data": {"n_build": 64, "n_eval": 64},
        "blocks": {"fit": "none"},
        "execution": {"actors": ACTORS, "shard_inputs": 2, "micro_batch": 2, "backup": backup},
    }


class Paced:
    """The real worker; each shard takes as long as is told, of the actor that came first ten times
    that, if one is to be slow."""

    def __init__(self, settings: WorkerSettings, one_is_slow: bool) -> None:
        self._work = make_worker(settings)
        self._run = settings.run
        self._pace = SHARD_S * (SLOWER if one_is_slow and self._is_first("slow") else 1)

    def _is_first(self, name: str) -> bool:
        try:
            os.close(os.open(self._run.with_name(name), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def __call__(self, task: Task, attempt: int) -> dict[str, Any]:
        began = time.monotonic()
        if self._is_first("begun"):
            self._run.with_name("begun").write_text(str(time.time()))
        receipt = self._work(task, attempt)
        time.sleep(max(0.0, self._pace - (time.monotonic() - began)))
        return receipt

    @property
    def greeting(self) -> Any:
        return getattr(self._work, "greeting", None)


def reached(one_is_slow: bool, backup: bool) -> float:
    """The share of the ideal."""
    with tempfile.TemporaryDirectory() as folder:
        launch = start(parse_config(config(backup)), Path(folder) / "run")
        factory = functools.partial(Paced, one_is_slow=one_is_slow)
        assert drive(launch, Silence(), factory).exit_code == 0
        log = CommitLog(launch.run)
        n_shards = sum(len(log.keys(stage)) for stage in log.stages())
        ended = max(
            path.stat().st_mtime for path in (Path(folder) / "run/commits").rglob("*.jsonl")
        )
        took_s = ended - float((Path(folder) / "begun").read_text())
    speed = ACTORS - 1 + 1 / SLOWER if one_is_slow else ACTORS
    return n_shards * SHARD_S / speed / took_s


def main() -> None:
    print(f"{ACTORS} actors: {reached(False, False):.2f} of the ideal")
    print(f"one ten times slower, no backups: {reached(True, False):.2f} of the ideal")
    print(f"one ten times slower, backups: {reached(True, True):.2f} of the ideal")


if __name__ == "__main__":
    main()
