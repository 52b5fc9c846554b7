"""What a run asks of this machine, where its workers are to live; refused before all else."""

from __future__ import annotations

import os

import torch

from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import Config


def check_machine(config: Config) -> None:
    """Raises ConfigError if no worker can have what the config gives it. A cluster is asked when it
    is joined."""
    execution = config.execution
    if execution.executor == "ray" and execution.address is not None:
        return
    n_gpus = torch.cuda.device_count()
    if execution.num_gpus > n_gpus:
        raise ConfigError(
            f"execution.num_gpus: {execution.num_gpus:g} for each actor, and this machine has "
            f"{n_gpus} CUDA devices; allowed: 0 (the model then runs on the CPU) to {n_gpus}, or "
            "name a cluster that has them by execution.address"
        )
    has_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    if execution.executor == "ray" and (execution.memory_gb or 0) > has_gb:
        raise ConfigError(
            f"execution.memory_gb: {execution.memory_gb:g} for each actor, and this machine has "
            f"{has_gb:.1f}; allowed: less than that, or name a cluster by execution.address"
        )
