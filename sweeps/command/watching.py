"""How far a run is, as a person and `status --json` are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgesweep.storage import RunDirectory, StorageError, status
from edgesweep.sweeps.config.fields import ConfigError


def run_status(path: Path | str) -> dict[str, Any]:
    """The store's status. Raises ConfigError where there is no run."""
    try:
        return status(RunDirectory.open(path))
    except StorageError as error:
        raise ConfigError(str(error)) from None


def status_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The store's status as a person reads it."""
    yield f"{found['run_id']}: {found['state']}"
    for stage, n in {**found["stages"], "all": found["shards"]}.items():
        bad = f", {n['quarantined']} quarantined" if n["quarantined"] else ""
        yield f"  {stage:<16}{n['committed']:>6} of {n['total']}{bad}"
    for stage, reason in found["left_out"].items():
        yield f"  left out: {stage} ({reason})"
    yield from (f"  {line}" for line in pool_lines(found["pool"]))
    if found["damaged"]:
        yield f"  damaged records: {found['damaged']}; resume the run to mend them"


def pool_lines(pool: Mapping[str, Any]) -> Iterator[str]:
    """What happened to nodes, of the store's status; nothing where nothing did."""
    for node in pool["shut_out"]:
        yield f"shut out: node {node['host']} ({node['error']})"
    if pool["lost"]:
        yield f"nodes that went away: {pool['lost']}; what was in work there was done elsewhere"
    if pool["backups"]:
        yield f"shards begun a second time: {pool['backups']}"
