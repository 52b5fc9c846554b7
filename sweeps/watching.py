"""How far a run is, as a person and `status --json` are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from storage import RunDirectory, StorageError, status
from sweeps.config import ConfigError


def run_status(path: Path) -> dict[str, Any]:
    """The store's status, and `left_out`: stages that the last driver could not do here. A run that
    lacks nothing but these is done. Raises ConfigError where there is no run."""
    try:
        run = RunDirectory.open(path)
        found = status(run)
    except StorageError as error:
        raise ConfigError(str(error)) from None
    started = [event for event in run.read_log() if event["event"] == "driver_started"]
    left_out = dict(started[-1].get("left_out", {})) if started else {}
    missing = sum(s["total"] - s["committed"] for s in found["stages"].values())
    excused = sum(
        s["total"] - s["committed"] for stage, s in found["stages"].items() if stage in left_out
    )
    if found["state"] == "stopped" and missing == excused and run.results.exists():
        found["state"] = "done"
    return {**found, "left_out": left_out}
