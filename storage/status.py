"""How far a run is, from its directory alone: no driver is asked, none need be alive."""

from __future__ import annotations

import socket
import time
from typing import Any

from storage.commits import CommitLog, process_began
from storage.rundir import LOG, RunDirectory

REMOTE_SILENCE_S = 120.0


def status(run: RunDirectory) -> dict[str, Any]:
    """`run_id`, `state`, `shards` {total, committed, quarantined}, `stages` {name: the same}.

    state: "done"; "running" (its driver lives); "quarantined" (what is left was given up; resume
    tries it again); "stopped" (work is left, or the last tables, and nobody is at it).
    The totals come from the plan: `plan["stages"]` maps a stage to its shard keys, or their number.
    """
    log = CommitLog(run)
    planned = dict(run.plan.get("stages", {}))
    names = [*planned, *(name for name in log.stages() if name not in planned)]
    stages = {name: _stage(log, name, planned.get(name)) for name in names}
    shards = {
        kind: sum(stage[kind] for stage in stages.values())
        for kind in ("total", "committed", "quarantined")
    }
    return {
        "run_id": run.run_id,
        "path": str(run.path),
        "state": _state(run, log, shards),
        "epoch": log.newest_epoch(),
        "shards": shards,
        "stages": stages,
    }


def _stage(log: CommitLog, name: str, planned: Any) -> dict[str, int]:
    committed = set(log.keys(name))
    quarantined = set(log.quarantined(name))
    if planned is None:
        total = len(committed | quarantined)
    elif isinstance(planned, int):
        total = planned
    else:
        total = len(planned)
        committed &= set(planned)
    return {"total": total, "committed": len(committed), "quarantined": len(quarantined)}


def _state(run: RunDirectory, log: CommitLog, shards: dict[str, int]) -> str:
    if driver_alive(run, log):
        return "running"
    left = shards["total"] - shards["committed"]
    if left == 0 and run.results.exists():
        return "done"
    if left and shards["quarantined"] and _ran_to_its_end(run, log):
        return "quarantined"
    return "stopped"


def _ran_to_its_end(run: RunDirectory, log: CommitLog) -> bool:
    """Whether the newest driver did all it could: what is left was given up, or needs what was."""
    ended = [e for e in run.read_log() if e.get("event") == "driver_ended"]
    newest = bool(ended) and ended[-1]["epoch"] == log.newest_epoch()
    return newest and not ended[-1]["stopped"]


def driver_alive(run: RunDirectory, log: CommitLog | None = None) -> bool:
    """Whether the newest driver is at work: by its process on this machine; if it is on another,
    by the log having grown of late."""
    log = log or CommitLog(run)
    newest = log.newest_epoch()
    if newest == 0:
        return False
    record = log.epoch_record(newest)
    if record["host"] == socket.gethostname():
        return process_began(record["pid"]) == record["process_began"] is not None
    path = run.path / LOG
    return path.exists() and time.time() - path.stat().st_mtime < REMOTE_SILENCE_S
