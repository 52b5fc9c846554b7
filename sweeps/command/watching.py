"""How far a run is, as a person and `status --json` are told."""

from __future__ import annotations

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
