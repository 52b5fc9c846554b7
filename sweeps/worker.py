"""The worker that an actor holds: it looks at the kind of shard and calls the one who does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from edgesweep.storage.blocks import make_receipt
from edgesweep.sweeps.context import Context, WorkerSettings
from edgesweep.sweeps.granularity.featurework import train_dictionary
from edgesweep.sweeps.notfinite import plain
from edgesweep.sweeps.plan.cells import (
    AttributeShard,
    BlockShard,
    BootstrapShard,
    DictionaryShard,
    EvaluateShard,
    MeanShard,
    ProbeShard,
    ReduceShard,
    ReferenceShard,
    Shard,
)
from edgesweep.sweeps.stages.attribution import run_attribute, run_bootstrap, run_mean, run_reduce
from edgesweep.sweeps.stages.evaluation import run_blocks, run_evaluate, run_reference
from edgesweep.sweeps.stages.probes import run_probe

DOERS: dict[type, Callable[[Context, Any], tuple[list[dict[str, Any]], dict[str, Any]]]] = {
    DictionaryShard: train_dictionary,
    MeanShard: run_mean,
    AttributeShard: run_attribute,
    ReduceShard: run_reduce,
    ReferenceShard: run_reference,
    EvaluateShard: run_evaluate,
    ProbeShard: run_probe,
    BootstrapShard: run_bootstrap,
    BlockShard: run_blocks,
}


class SweepWorker:
    """Does shards of every stage; one lives in each actor."""

    def __init__(self, settings: WorkerSettings) -> None:
        # Never the machine's number: 1 and 2 threads differ in bits.
        torch.set_num_threads(settings.threads)
        self.context = Context(settings)

    def __call__(self, shard: Shard, attempt: int) -> dict[str, Any]:
        """Compute, write, and say what was written; the driver alone commits."""
        began = time.monotonic()
        writes, extra = DOERS[type(shard)](self.context, shard)
        extra = plain({"micro_batch": 0, **extra})
        return make_receipt(
            writes,
            attempt=attempt,
            device=self.context.device_name,
            seconds=time.monotonic() - began,
            **extra,
        )


def make_worker(settings: WorkerSettings) -> SweepWorker:
    """The factory that each actor calls once."""
    return SweepWorker(settings)
