"""Whether a worker is where it should be, before it has any work: a fault of its node is to be no
fault of a shard.

1. The worker looks whether the run directory is the driver's and not one of the same name, by the
   nonce in the driver's lease; whether what makes numbers has the driver's versions; whether there
   is room.
2. It leaves a file there, and the driver looks for it: so both write to one disk.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgesweep.storage import RunDirectory, StorageError
from edgesweep.storage.atomic import TMP_PREFIX
from edgesweep.storage.epochs import read_lease
from edgesweep.storage.layout import EPOCHS
from edgesweep.storage.stores import place
from edgesweep.sweeps.actor.place import host, versions

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import WorkerSettings

PACKAGES = ("edgesweep", "torch", "transformers")
LEAST_FREE_BYTES = 100 * 10**6
#: network disks are late to show what another machine has written
SEEN_WITHIN_S = 5.0


class WrongPlace(RuntimeError):
    """A worker cannot do any shard of its run where it is."""


def decisive_versions() -> dict[str, str]:
    """Of what makes numbers, here."""
    found = versions()
    python = ".".join(found["python"].split(".")[:2])
    return {"python": python, **{name: found.get(name, "missing") for name in PACKAGES}}


def check_place(settings: WorkerSettings) -> str:
    """In the worker. Returns the name of the file that the driver should see. Raises WrongPlace."""
    _check_run(settings.run, settings.nonce)
    for name, there in settings.versions.items():
        if (here := decisive_versions()[name]) != there:
            raise WrongPlace(f"{name} is {here} here, and {there} where the driver runs")
    if isinstance(settings.run, Path):
        free = shutil.disk_usage(settings.run).free
        if free < LEAST_FREE_BYTES:
            raise WrongPlace(f"the disk of {settings.run} has {free / 1e6:.0f} MB free")
    name = f"{EPOCHS}/{TMP_PREFIX}seen-{host()}-{os.getpid()}-{secrets.token_hex(4)}"
    (place(settings.run) / name).write(b"")
    return name


def _check_run(run: Path | str, nonce: str) -> None:
    try:
        lease = read_lease(place(run))
    except StorageError as error:
        raise WrongPlace(f"{run} is not there, or not the run: {error}") from None
    if lease["nonce"] != nonce:
        raise WrongPlace(
            f"{run} is another folder of that name than the driver's, or has a newer driver"
        )


def check_seen(run: RunDirectory, name: str | None) -> None:
    """In the driver: sees what a worker wrote, and takes it away. Raises WrongPlace."""
    if name is None:  # a worker of somebody's own, who did not look
        return
    probe, until = run.root / name, time.monotonic() + SEEN_WITHIN_S
    while not probe.exists():
        if time.monotonic() > until:
            raise WrongPlace(f"what it writes in {run.url} is not seen by the driver")
        time.sleep(0.1)
    probe.delete()
