"""How far a run is, as a person and `status --json` are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgesweep.storage import RunDirectory, StorageError, status
from edgesweep.sweeps.config.fields import ConfigError


def run_status(path: Path) -> dict[str, Any]:
    """The store's status. Raises ConfigError where there is no run."""
    try:
        return status(RunDirectory.open(path))
    except StorageError as error:
        raise ConfigError(str(error)) from None


def pool_lines(pool: Mapping[str, Any]) -> Iterator[str]:
    """What happened to nodes, of the store's status; nothing where nothing did."""
    for node in pool["shut_out"]:
        yield f"shut out: node {node['host']} ({node['error']})"
    if pool["lost"]:
        yield f"nodes that went away: {pool['lost']}; what was in work there was done elsewhere"
    if pool["backups"]:
        yield f"shards begun a second time: {pool['backups']}"
