"""What a run asks of this machine, where its workers are to live, and of the folder that they are
all to see; refused before all else."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from edgesweep.engine.runtime import AddressError, check_address
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import Config


def check_machine(config: Config) -> None:
    """Raises ConfigError if no worker can have what the config gives it. A cluster is asked when it
    is joined."""
    execution = config.execution
    if is_elsewhere(config):
        try:
            check_address(execution.address)
        except AddressError as error:
            raise ConfigError(str(error)) from None
        return
    n_gpus = torch.cuda.device_count()
    if execution.gpus > n_gpus:
        key = "gpus_per_actor" if execution.gpus_per_actor > 1 else "num_gpus"
        raise ConfigError(
            f"execution.{key}: {execution.gpus:g} for each actor, and this machine has "
            f"{n_gpus} CUDA devices; allowed: 0 (the model then runs on the CPU) to {n_gpus}, or "
            "name a cluster that has them by execution.address"
        )
    has_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    if execution.executor == "ray" and (execution.memory_gb or 0) > has_gb:
        raise ConfigError(
            f"execution.memory_gb: {execution.memory_gb:g} for each actor, and this machine has "
            f"{has_gb:.1f}; allowed: less than that, or name a cluster by execution.address"
        )


def is_elsewhere(config: Config) -> bool:
    """Whether workers may live on other machines."""
    return config.execution.executor == "ray" and config.execution.address not in (None, "local")


#: disks in memory: no other machine sees them, and no restart survives on them
IN_MEMORY = ("tmpfs", "ramfs")
#: where Ray unpacks what a job was submitted with, on each node for itself
WORKING_DIRS = "working_dir_files"


def check_folder(config: Config, where: Path | str) -> None:
    """Raises ConfigError for a run directory that no other machine, or process, can see, if some
    are to."""
    if isinstance(where, str):
        if where.startswith("memory://") and config.execution.executor == "ray":
            raise ConfigError(
                f"{where} is in this process alone, and Ray's actors are others: name a folder or "
                "a bucket, or set execution.executor=serial"
            )
        return
    if not is_elsewhere(config):
        return
    folder = where.resolve()
    must = "all nodes must see the run directory, and it must outlive them: name another by --out"
    if WORKING_DIRS in folder.parts:
        raise ConfigError(f"{folder} lies in the job's own copy of its working directory; {must}")
    if (kind := _kind_of_disk(folder)) in IN_MEMORY:
        raise ConfigError(f"{folder} lies in this machine's memory ({kind}); {must}")


def _kind_of_disk(folder: Path) -> str:
    """Of the disk that is mounted nearest above a folder; "" where the system does not say."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    mounts = {Path(at.replace("\\040", " ")): kind for _, at, kind, *_ in map(str.split, lines)}
    above = [at for at in mounts if at == folder or at in folder.parents]
    return mounts[max(above, key=lambda at: len(at.parts))] if above else ""
