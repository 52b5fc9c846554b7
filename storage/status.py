"""How far a run is, from its directory alone: no driver is asked, none need be alive. Nothing is
written, and what decides the state are records that know when they are damaged."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from edgesweep.storage.commits import CommitLog
from edgesweep.storage.manifest import unsound
from edgesweep.storage.rundir import RunDirectory

#: events of the log that executors tell
POOL_EVENTS = ("node_shut_out", "node_lost", "backup")


def status(run: RunDirectory, but: Collection[str] = ()) -> dict[str, Any]:
    """`run_id`, `state`, `shards` {total, committed, quarantined}, `stages` {name: the same},
    `left_out` {stage: why the newest driver could not do it here}, `damaged` (how many records and
    lines of the log are not as they were written), `pool` {shut_out [{host, error}], lost, backups}
    (nodes that were given no more works, nodes that went away, works that were begun twice).

    state: "running" (its driver lives); "done" (nothing is left but what is left out, and all files
    are as the manifest says); "quarantined" (what is left was given up; resume tries it again);
    "stopped" (work is left, or the last files, and nobody is at it).
    The totals come from the plan: `plan["stages"]` maps a stage to its shard keys, or their number.

    Args:
        but: files of the manifest that are not looked at.
    """
    log = CommitLog(run)
    planned = dict(run.plan.get("stages", {}))
    names = [*planned, *(name for name in log.stages() if name not in planned)]
    stages = {name: _stage(log, name, planned.get(name)) for name in names}
    newest = log.epochs.newest()
    left_out = dict((log.epochs.began(newest) or {}).get("left_out", {}))
    return {
        "run_id": run.run_id,
        "path": run.url,
        "state": _state(run, log, stages, left_out, but),
        "epoch": newest,
        "shards": _sums(stages),
        "stages": stages,
        "left_out": left_out,
        "damaged": len(log.epochs.damaged()) + run.damaged_log_lines() + log.damaged(),
        "pool": _pool(run.read_log()),
    }


def _pool(log: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What happened to nodes, of all drivers."""
    of = {kind: [e for e in log if e["event"] == kind] for kind in POOL_EVENTS}
    shut_out = [{"host": e["host"], "error": e["error"]} for e in of["node_shut_out"]]
    return {"shut_out": shut_out, "lost": len(of["node_lost"]), "backups": len(of["backup"])}


def _stage(log: CommitLog, name: str, planned: Any) -> dict[str, int]:
    """Its counts."""
    committed, quarantined = log.index(name), log.quarantined(name)
    if planned is None:
        total = len(committed | set(quarantined))
    elif isinstance(planned, int):
        total = planned
    else:
        total = len(planned)
        committed &= set(planned)
    return {"total": total, "committed": len(committed), "quarantined": len(quarantined)}


def _sums(stages: dict[str, dict[str, int]]) -> dict[str, int]:
    kinds = ("total", "committed", "quarantined")
    return {kind: sum(stage[kind] for stage in stages.values()) for kind in kinds}


def _state(
    run: RunDirectory,
    log: CommitLog,
    stages: dict[str, dict[str, int]],
    left_out: dict[str, str],
    but: Collection[str],
) -> str:
    """A run that lacks nothing but stages that were left out is done."""
    if log.epochs.driver() is not None:
        return "running"
    left = sum(s["total"] - s["committed"] for name, s in stages.items() if name not in left_out)
    if unsound(run, but):
        return "stopped"
    if left == 0:
        return "done"
    if _sums(stages)["quarantined"] and _ran_to_its_end(log):
        return "quarantined"
    return "stopped"


def _ran_to_its_end(log: CommitLog) -> bool:
    """Whether the newest driver did all it could: what is left was given up, or needs what was."""
    end = log.epochs.ended(log.epochs.newest())
    return end is not None and end.get("stopped") is False
