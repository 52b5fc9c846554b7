"""The worker that an actor holds: it looks up the stage of a shard and does it."""

from __future__ import annotations

import time
from typing import Any

import torch

from edgesweep.storage.blocks import make_receipt
from edgesweep.sweeps.actor.admission import check_place
from edgesweep.sweeps.actor.context import Context, WorkerSettings
from edgesweep.sweeps.actor.place import host, versions
from edgesweep.sweeps.notfinite import plain
from edgesweep.sweeps.stages.base import Task


class SweepWorker:
    """Does shards of every stage; one lives in each actor. `greeting` is what the driver is to see
    of it (sweeps.actor.admission)."""

    def __init__(self, settings: WorkerSettings) -> None:
        # Never the machine's number: 1 and 2 threads differ in bits.
        torch.set_num_threads(settings.config.execution.threads)
        self.context = Context(settings)
        self.greeting: str | None = None

    def __call__(self, task: Task, attempt: int) -> dict[str, Any]:
        """Compute, write, and say what was written; the driver alone commits."""
        began = time.monotonic()
        writes, extra = self.context.settings.stages[task.stage].run(self.context, task.shard)
        extra = plain({"micro_batch": 0, **extra})
        return make_receipt(
            writes,
            attempt=attempt,
            device=self.context.device_name,
            host=host(),
            versions=versions(),
            seconds=time.monotonic() - began,
            **extra,
        )


def make_worker(settings: WorkerSettings) -> SweepWorker:
    """The factory that each actor calls once. Raises WrongPlace."""
    worker = SweepWorker(settings)
    if settings.config.execution.executor == "ray":
        worker.greeting = check_place(settings)
    return worker
