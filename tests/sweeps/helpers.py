"""A small run for the engine's tests, and the ways in which tests hurt it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.storage.tables import CIRCUITS, RESULTS, read_table
from edgesweep.sweeps.actor.context import WorkerSettings
from edgesweep.sweeps.actor.worker import Task, make_worker
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.driver import Outcome
from edgesweep.sweeps.launch import drive, start
from edgesweep.sweeps.progress import Silence

TINY: dict[str, Any] = {
    "name": "tiny",
    "sweep": {"model": "tiny-random", "task": "ioi+agreement", "method": ["eap", "ig_inputs"]},
    "evaluate": {
        "threshold": [5, 40],
        "ablation": ["edge", "node"],
        "metric": ["logit_diff", "kl"],
    },
    "data": {"n_build": 4, "n_eval": 4},
    "execution": {"executor": "serial", "micro_batch": 2, "shard_inputs": 2},
}
BLOCKS = {
    "fit": "flat",
    "chains": 2,
    "n_edges": 40,
    "method": "eap",
    "patience": 1,
    "n_iter": 2,
    "shuffles": 0,
    "halves": False,
    "draws": 0,
}


def tiny(**changes: dict[str, Any]) -> dict[str, Any]:
    """The tiny config; each keyword is a section whose keys are changed."""
    raw = copy.deepcopy(TINY)
    for section, values in changes.items():
        raw[section] = {**raw.get(section, {}), **values}
    return raw


def run_tiny(
    out: Path,
    raw: dict[str, Any] | None = None,
    factory: Any = make_worker,
    take_over: bool = False,
) -> Outcome:
    """Start or resume the tiny run to its end."""
    launch = start(parse_config(raw or tiny()), out)
    return drive(launch, Silence(), factory, take_over=take_over)


def contents(run: Path, *parts: str) -> dict[str, str]:
    """A hash of every file under the given parts of a run directory."""
    files = [f for part in parts for f in _files(run / part)]
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    yield from sorted(f for f in path.rglob("*") if f.is_file())


DATA = (
    "attributions.zarr",
    "aggregates.zarr",
    "evaluations.zarr",
    "circuits.parquet",
    "results.parquet",
    "blocks.parquet",
    "prompts",
)
#: of stages that a tiny run leaves out unless they are asked for: searches, other build prompts,
#: and what block models and circuits are held against
FURTHER = {
    "evaluate": {"reach": {"faithfulness": 0.6, "metric": "kl"}},
    "measures": {"rebuild": 2, "rewired": 2},
}
HELD_AGAINST = {"shuffles": 1, "halves": True, "draws": 1}
FURTHER_DATA = tuple(f"{name}.parquet" for name in ("reach", "rebuilt", "pairs", "drawn"))
NULLS_DATA = ("nulls", "nulls.parquet", "structure.parquet")


def committed(run: Path) -> dict[str, list[str]]:
    """Committed shards by stage."""
    log = CommitLog(RunDirectory.open(run))
    return {stage: log.keys(stage) for stage in log.stages()}


def uncommit(run: Path, stage: str, wanted: Callable[[str], bool]) -> None:
    """Some shards of a stage are to be done again."""
    log = CommitLog(RunDirectory.open(run))
    with log.driving():
        found = [shard for shard in log.keys(stage) if wanted(shard)]
        assert found
        for shard in found:
            log.uncommit(stage, shard, "a test")


@dataclass
class Faulty:
    """A worker around the real one: counts what it is asked for, and fails where it is told to.

    Attributes:
        poison: key of a shard that always raises.
        before: called with every shard before it is done.
    """

    poison: str = ""
    before: Any = None
    asked: list[str] = field(default_factory=list)

    def __call__(self, settings: WorkerSettings) -> Any:
        worker = make_worker(settings)

        def work(task: Task, attempt: int) -> dict[str, Any]:
            self.asked.append(task.key)
            if self.before is not None:
                self.before(task)
            if task.key == self.poison:
                raise ValueError("this shard is poison")
            return worker(task, attempt)

        return work


class FailsStages:
    """To be called before a shard is done: fails every shard of some stages, and notes which of
    them it met."""

    def __init__(self, stages: tuple[str, ...]) -> None:
        self.stages, self.met = stages, set()

    def __call__(self, task: Task) -> None:
        if task.stage in self.stages:
            self.met.add(task.stage)
            raise OSError("the disk is gone")


def flip_a_bit(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def assert_ran_is_what_was_counted(run: RunDirectory) -> None:
    """Of every circuit and patch, as many edges of circuits.parquet ran as the results count."""
    edges, table = read_table(run, CIRCUITS), read_table(run, RESULTS)
    rows = table[(table["ablation"] == "edge") & (table["blocks"] == "all")]
    assert set(edges["circuit"]) <= set(rows["circuit"])
    for (circuit, patch), counted in rows.groupby(["circuit", "eval_patch"])["n_edges"]:
        ran = edges.loc[edges["circuit"] == circuit, "ran"].str.split("+")
        assert ran.map(lambda told, patch=patch: patch in told).sum() == counted.iloc[0]
        assert counted.nunique() == 1
