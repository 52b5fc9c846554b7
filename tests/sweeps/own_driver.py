"""A driver with a stage and a kind of nodes of its own, which no file of edgesweep knows. Run as a
module: the run directory, the folder of a feed-forward network."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesweep.storage.atomic import to_json
from edgesweep.storage.blocks import write_file
from edgesweep.sweeps.actor.context import Context, WorkerSettings
from edgesweep.sweeps.actor.worker import make_worker
from edgesweep.sweeps.circuits import read_selected
from edgesweep.sweeps.command import cli
from edgesweep.sweeps.config.features import Features
from edgesweep.sweeps.config.load import Config, parse_config
from edgesweep.sweeps.granularity.features import FeaturesKind
from edgesweep.sweeps.granularity.kinds import add_kind
from edgesweep.sweeps.launch import start
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.plan.cells import Cell
from edgesweep.sweeps.plan.plan import Plan
from edgesweep.sweeps.stages.base import Done, Stage, Task
from edgesweep.sweeps.stages.registry import STAGES
from tests.sweeps.helpers import tiny

SECONDS_A_SHARD = 0.1


@dataclass(frozen=True)
class CountShard:
    cell: Cell
    circuit: str

    @property
    def key(self) -> str:
        return self.circuit


class Counts(Stage[CountShard]):
    """How many edges each circuit has, in a file of its own."""

    name, title = "counts", "counting of edges"

    def shards(self, plan: Plan) -> Iterator[CountShard]:
        return (CountShard(cell, c.key) for cell in plan.cells for c in plan.circuits(cell))

    def needs(self, plan: Plan, shard: CountShard) -> tuple[str, ...]:
        return (groups.circuits(shard.cell.key),)

    def run(self, context: Context, shard: CountShard) -> Done:
        n = int(read_selected(context.run, shard.cell)[shard.circuit].sum())
        return [write_file(context.run, f"counts/{shard.key}.json", to_json({"n": n}))], {}


class Neurons(FeaturesKind):
    """Every neuron of a network, at each of its sites, is a node."""

    def check(self, config: Config, nodes: str) -> None:
        """Nothing to refuse."""

    def resolve(self, config: Config, nodes: str, model: Any, datasets: Sequence[Any]) -> Any:
        sites = ["input", *model.source.sites.named("hidden*")]
        whole = Features(dictionaries=dict.fromkeys(sites, "identity"), keep=900, edges=900)
        named = config.model_copy(update={"features": {nodes: whole}})
        return super().resolve(named, nodes, model, datasets)


def own_config(model: str, executor: str) -> dict[str, Any]:
    return tiny(
        sweep={"model": model, "task": "digits", "nodes": "neurons", "method": ["eap", "node_ap"]},
        evaluate={"threshold": [60, 400], "node_threshold": [8, 30], "ablation": "edge"},
        execution={"executor": executor, "max_attempts": 100, "max_slot_deaths": 200},
    )


def know_both() -> None:
    STAGES[Counts.name] = Counts()
    add_kind("neurons", Neurons())


def own_worker(settings: WorkerSettings) -> Any:
    """The real worker, after a pause."""
    worker = make_worker(settings)

    def work(task: Task, attempt: int) -> dict[str, Any]:
        time.sleep(SECONDS_A_SHARD)
        return worker(task, attempt)

    return work


if __name__ == "__main__":
    know_both()
    launch = start(parse_config(own_config(sys.argv[2], "ray")), Path(sys.argv[1]))
    sys.exit(cli.drive_and_tell(launch, own_worker, page=None))
