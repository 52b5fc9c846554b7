"""What a page needs of a run directory, read once through `storage`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from storage import CommitLog, RunDirectory, readers
from storage.arrays import has_array, read_static
from storage.status import status


@dataclass(frozen=True)
class GraphTables:
    """Names of a cell's graph: nodes, and which nodes each target (port) belongs to."""

    nodes: tuple[str, ...]
    targets: tuple[str, ...]
    target_nodes: np.ndarray

    def nodes_of_target(self, target: str) -> list[str]:
        """A port's nodes: one head, or under grouped-query attention all heads of its group."""
        row = self.target_nodes[self.targets.index(target)]
        return [self.nodes[i] for i in np.flatnonzero(row)]


@dataclass(frozen=True)
class RunData:
    """Everything that the report shows.

    Attributes:
        results, circuits, blocks, commits: the run's tables; empty where not yet written.
        histograms: cell -> aggregated edge scores of all inputs.
        aggregation: the aggregation that the histograms show.
        graphs: cell -> names.
        log: events of log.jsonl.
        quarantined: stage/shard -> the error for which it was given up.
    """

    path: Path
    plan: Mapping[str, Any]
    config: Mapping[str, Any]
    status: Mapping[str, Any]
    results: pd.DataFrame
    circuits: pd.DataFrame
    blocks: pd.DataFrame
    commits: pd.DataFrame
    aggregation: str
    histograms: Mapping[str, np.ndarray] = field(default_factory=dict)
    graphs: Mapping[str, GraphTables] = field(default_factory=dict)
    log: tuple[Mapping[str, Any], ...] = ()
    quarantined: Mapping[str, str] = field(default_factory=dict)


def load_run(path: Path) -> RunData:
    """Read a run, finished or not. Raises StorageError if there is none."""
    run = RunDirectory.open(path)
    cells = [cell["key"] for cell in run.plan["cells"]]
    aggregation = str(run.config["evaluate"]["aggregation"][0])
    found = {cell: readers.aggregate(run, cell, aggregation) for cell in cells}
    return RunData(
        path=Path(path),
        plan=run.plan,
        config=run.config,
        status=status(run),
        results=readers.results(run),
        circuits=readers.circuits(run),
        blocks=readers.blocks(run),
        commits=readers.commits(run),
        aggregation=aggregation,
        histograms={cell: scores for cell, scores in found.items() if scores is not None},
        graphs={cell: graph for cell in cells if (graph := _graph(run, cell)) is not None},
        log=tuple(run.read_log()),
        quarantined=_quarantined(CommitLog(run)),
    )


def _quarantined(log: CommitLog) -> dict[str, str]:
    return {
        f"{stage}/{shard}": str(record.get("error", "no error recorded"))
        for stage in log.stages()
        for shard, record in log.quarantined(stage).items()
    }


def _graph(run: RunDirectory, cell: str) -> GraphTables | None:
    if not has_array(run.attributions, f"{cell}/graph/target_nodes"):
        return None
    table, about = read_static(run.attributions, f"{cell}/graph/target_nodes")
    _, targets = read_static(run.attributions, f"{cell}/graph/edge_target")
    return GraphTables(tuple(about["nodes"]), tuple(targets["names"]), table)
