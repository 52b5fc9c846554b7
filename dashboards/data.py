"""What a page needs of a run directory, read once through `storage`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.dashboards.facts import Facts, facts_of
from edgesweep.dashboards.kinds import Kind
from edgesweep.dashboards.names import cell_names, circuit_names, is_search, method_names
from edgesweep.dashboards.style import Mark, marks
from edgesweep.storage import CommitLog, RunDirectory, layout, readers
from edgesweep.storage.graphs import GraphTables, has_graph, read_graph
from edgesweep.storage.layout import AGGREGATES, EVALUATIONS, REPORT
from edgesweep.storage.manifest import check
from edgesweep.storage.status import status
from edgesweep.storage.tables import (
    BLOCKS,
    CIRCUITS,
    INTERPOLATION,
    KNOWN,
    MEASURES,
    MINIMALITY,
    OVERLAP,
    RESULTS,
    ROC,
    read_table,
)

#: how a ranking of edges becomes circuits
RANKED_BY = ("aggregation", "selection")


@dataclass(frozen=True)
class RunData:
    """Everything that the report shows.

    Attributes:
        results, circuits, blocks, commits: the run's tables; empty where not yet written. Rows of
            results have their cell's `method_name`, and those of a search no selection.
        measures, roc, overlap, minimality, interpolation, known: the derived tables, in the same
            way; empty in a run that has none.
        histograms: cell -> aggregated scores of all inputs, of edges or of nodes.
        aggregation: the aggregation that the histograms show.
        graphs: cell -> names.
        log: events of log.jsonl.
        quarantined: stage/shard -> the error for which it was given up.
        facts: what a run with dictionaries noted beside its scores.
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
    measures: pd.DataFrame = field(default_factory=pd.DataFrame)
    roc: pd.DataFrame = field(default_factory=pd.DataFrame)
    overlap: pd.DataFrame = field(default_factory=pd.DataFrame)
    minimality: pd.DataFrame = field(default_factory=pd.DataFrame)
    interpolation: pd.DataFrame = field(default_factory=pd.DataFrame)
    known: pd.DataFrame = field(default_factory=pd.DataFrame)
    histograms: Mapping[str, np.ndarray] = field(default_factory=dict)
    graphs: Mapping[str, GraphTables] = field(default_factory=dict)
    log: tuple[Mapping[str, Any], ...] = ()
    quarantined: Mapping[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)

    @cached_property
    def cells(self) -> dict[str, Mapping[str, Any]]:
        """The plan's cells by key."""
        return {str(cell["key"]): cell for cell in self.plan["cells"]}

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """The run's kinds of nodes by name, in the order of its cells."""
        return _kinds(self.plan)

    def kind(self, cell: str) -> Kind:
        """What a cell's nodes are."""
        return self.kinds[self.cells[cell]["nodes"]]

    @cached_property
    def cell_names(self) -> dict[str, str]:
        """Names of the run's cells by key."""
        return cell_names(self.plan["cells"], self.kinds)

    @cached_property
    def circuit_names(self) -> dict[str, str]:
        """Names of its circuits by key."""
        of_nodes = set(filter(self.scores_nodes, self.cells))
        return circuit_names(self.circuits, self.cell_names, of_nodes)

    @cached_property
    def marks(self) -> dict[str, Mark]:
        """Colour and symbol of every method_name of the run."""
        names = method_names(self.plan["cells"], self.kinds)
        return marks({name: self.cells[cell]["method"] for cell, name in names.items()})

    @cached_property
    def ran(self) -> pd.DataFrame:
        """The edges of circuits that ran under the first evaluation patch."""
        patch = self.config["evaluate"]["eval_patch"][0]
        ran = self.circuits["ran"].str.split("+").map(lambda patches: patch in patches)
        return self.circuits[ran.astype(bool)]

    def scores_nodes(self, cell: str) -> bool:
        """Whether a cell's scores are of nodes."""
        return self.cells[cell]["scores"] == "nodes"

    def true(self, cell: str) -> np.ndarray:
        """Which of a cell's scores belong to the known circuit: its edges, or the nodes that they
        start from. Bool, as long as the scores; empty if no circuit is known or nothing scored."""
        scores, about = self.histograms.get(cell), self.cells[cell]
        if scores is None or self.known.empty or cell not in self.graphs:
            return np.zeros(0, bool)
        of_task = (self.known["model"] == about["model"]) & (self.known["task"] == about["task"])
        known, graph = self.known[of_task], self.graphs[cell]
        if not set(known["source"]) & set(graph.sources):
            return np.zeros(0, bool)  # it is a circuit of another kind of nodes
        if self.scores_nodes(cell):
            return np.isin(graph.sources, known["source"])
        return np.isin(np.arange(len(scores)), known["edge"])


def load_run(path: Path, state: str | None = None) -> RunData:
    """Read a run, finished or not.

    Args:
        state: what it is about to be, of a run whose driver writes its page.

    Raises:
        StorageError: there is none, or a file of it is not what its driver wrote.
    """
    run = RunDirectory.open(path)
    check(run, but=(REPORT,))
    cells = [cell["key"] for cell in run.plan["cells"]]
    aggregation = str(run.config["evaluate"]["aggregation"][0])
    committed = readers.Committed(run)
    written, commits = committed.arrays(AGGREGATES), readers.commits(run)
    reduced = [cell for cell in cells if layout.folded(cell, aggregation) in written]
    ran = tuple(committed.arrays(EVALUATIONS))
    graphs = {cell: read_graph(run, cell) for cell in cells if _has_graph(run, cell, ran)}
    found = {cell: _scores(committed, cell, aggregation, graphs) for cell in reduced}
    return RunData(
        path=Path(path),
        plan=run.plan,
        config=run.config,
        status=status(run, but=(REPORT,)) | ({"state": state} if state else {}),
        results=_told(read_table(run, RESULTS), run.plan),
        circuits=_told(read_table(run, CIRCUITS), run.plan),
        blocks=read_table(run, BLOCKS),
        commits=commits,
        aggregation=aggregation,
        measures=_told(read_table(run, MEASURES), run.plan),
        roc=_told(read_table(run, ROC), run.plan),
        overlap=read_table(run, OVERLAP),
        minimality=read_table(run, MINIMALITY),
        interpolation=read_table(run, INTERPOLATION),
        known=read_table(run, KNOWN),
        histograms={cell: scores for cell, scores in found.items() if scores is not None},
        graphs=graphs,
        log=tuple(run.read_log()),
        quarantined=_quarantined(CommitLog(run)),
        facts=facts_of(committed, commits, run.plan["cells"]),
    )


def _told(table: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    """Rows with the name of their cell's method. A search has no ranking that could be aggregated
    or selected from in another way, so what the table says of that is left out, or the menus would
    offer it as a choice."""
    cells = plan["cells"]
    names = method_names(cells, _kinds(plan))
    searches = {str(cell["key"]) for cell in cells if is_search(cell)}
    nodes = {str(cell["key"]): cell["nodes"] for cell in cells}
    table = table.assign(method_name=table["cell"].map(names).astype(str))
    if "nodes" not in table:
        table = table.assign(nodes=table["cell"].map(nodes).astype(str))
    blank = {c: table[c].mask(table["cell"].isin(searches), "") for c in RANKED_BY if c in table}
    return table.assign(**blank)


def _quarantined(log: CommitLog) -> dict[str, str]:
    return {
        f"{stage}/{shard}": str(record.get("error", "no error recorded"))
        for stage in log.stages()
        for shard, record in log.quarantined(stage).items()
    }


def _scores(
    committed: readers.Committed, cell: str, aggregation: str, graphs: Mapping[str, GraphTables]
) -> np.ndarray | None:
    """Aggregated scores; of lists of edges, those that were found and not the room for more."""
    scores = committed.aggregate(cell, aggregation)
    cells = committed.run.plan["cells"]
    listed = any(about["key"] == cell and about.get("keep") for about in cells)
    if scores is None or not listed:
        return scores
    return scores[: graphs[cell].n_edges] if cell in graphs else None


def _has_graph(run: RunDirectory, cell: str, ran: tuple[str, ...]) -> bool:
    """Whether a cell's graph must be there: before one of its circuits has run (`ran`: arrays of
    values) it may not be known."""
    return has_graph(run, cell) or any(array.startswith(f"{cell}-") for array in ran)


def _kinds(plan: Mapping[str, Any]) -> dict[str, Kind]:
    names = dict.fromkeys(cell["nodes"] for cell in plan["cells"])
    return {nodes: Kind.of(plan["kinds"][nodes]) for nodes in names}
