"""What a page needs of a run directory, read once through `storage`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.dashboards.feature_data import FeatureFacts, feature_facts
from edgesweep.dashboards.names import (
    FEATURES,
    NODE_METHODS,
    cell_names,
    circuit_names,
    is_search,
    method_names,
    node_cells,
)
from edgesweep.dashboards.style import Mark, marks
from edgesweep.storage import CommitLog, RunDirectory, layout, readers
from edgesweep.storage.arrays import has_array, read_static
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
class GraphTables:
    """Names of a cell's graph: nodes, and which nodes each target (port) belongs to, as pairs."""

    nodes: tuple[str, ...]
    targets: tuple[str, ...]
    ends: np.ndarray
    sources: tuple[str, ...] = ()
    edge_source: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    edge_target: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    @property
    def n_edges(self) -> int:
        return len(self.edge_target)

    def edge_name(self, edge: int) -> str:
        """`source → target` of an edge by its place in the graph's order."""
        return f"{self.sources[self.edge_source[edge]]} → {self.targets[self.edge_target[edge]]}"

    def nodes_of_target(self, target: str) -> list[str]:
        """A port's nodes: one head, or under grouped-query attention all heads of its group."""
        return self._nodes_of_targets[target]

    @cached_property
    def _nodes_of_targets(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {name: [] for name in self.targets}
        for target, node in self.ends.tolist():
            found[self.targets[target]].append(self.nodes[node])
        return found


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
        features: what a run over features noted beside its scores.
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
    features: FeatureFacts = field(default_factory=FeatureFacts)

    @cached_property
    def cells(self) -> dict[str, Mapping[str, Any]]:
        """The plan's cells by key."""
        return {str(cell["key"]): cell for cell in self.plan["cells"]}

    @cached_property
    def marks(self) -> dict[str, Mark]:
        """Colour and symbol of every method_name of the run."""
        names = method_names(self.plan["cells"])
        return marks({name: self.cells[cell]["method"] for cell, name in names.items()})

    @cached_property
    def ran(self) -> pd.DataFrame:
        """The edges of circuits that ran under the first evaluation patch."""
        patch = self.config["evaluate"]["eval_patch"][0]
        ran = self.circuits["ran"].str.split("+").map(lambda patches: patch in patches)
        return self.circuits[ran.astype(bool)]

    def scores_nodes(self, cell: str) -> bool:
        """Whether a cell's scores are of nodes."""
        return self.cells[cell]["method"] in NODE_METHODS

    def true(self, cell: str) -> np.ndarray:
        """Which of a cell's scores belong to the known circuit: its edges, or the nodes that they
        start from. Bool, as long as the scores; empty if no circuit is known or nothing scored."""
        scores, about = self.histograms.get(cell), self.cells[cell]
        over_features = about.get("nodes") == FEATURES  # no circuit of these is known
        if scores is None or self.known.empty or cell not in self.graphs or over_features:
            return np.zeros(0, bool)
        of_task = (self.known["model"] == about["model"]) & (self.known["task"] == about["task"])
        known = self.known[of_task]
        if known.empty:
            return np.zeros(0, bool)
        if self.scores_nodes(cell):
            return np.isin(self.graphs[cell].sources, known["source"])
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
    written = committed.arrays(AGGREGATES)
    reduced = [cell for cell in cells if layout.folded(cell, aggregation) in written]
    ran = tuple(committed.arrays(EVALUATIONS))
    graphs = {cell: graph for cell in cells if (graph := _graph(run, cell, ran)) is not None}
    found = {cell: _scores(committed, cell, aggregation, graphs) for cell in reduced}
    return RunData(
        path=Path(path),
        plan=run.plan,
        config=run.config,
        status=status(run, but=(REPORT,)) | ({"state": state} if state else {}),
        results=_told(read_table(run, RESULTS), run.plan),
        circuits=_told(read_table(run, CIRCUITS), run.plan),
        blocks=read_table(run, BLOCKS),
        commits=readers.commits(run),
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
        features=feature_facts(run, run.plan["cells"]),
    )


def named_circuits(data: RunData) -> dict[str, str]:
    """Names of a run's circuits by key."""
    cells = data.plan["cells"]
    return circuit_names(data.circuits, cell_names(cells), node_cells(cells))


def _told(table: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    """Rows with the name of their cell's method. A search has no ranking that could be aggregated
    or selected from in another way, so what the table says of that is left out, or the menus would
    offer it as a choice."""
    cells = plan["cells"]
    searches = {str(cell["key"]) for cell in cells if is_search(cell)}
    nodes = {str(cell["key"]): cell["nodes"] for cell in cells if "nodes" in cell}
    table = table.assign(method_name=table["cell"].map(method_names(cells)).astype(str))
    if "nodes" not in table and nodes:
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


def _graph(run: RunDirectory, cell: str, ran: tuple[str, ...]) -> GraphTables | None:
    """None before there is one: over features that is known once scores are reduced. It is there
    before a circuit of the cell has run (`ran`: arrays of values)."""
    has_run = any(array.startswith(f"{cell}-") for array in ran)
    if not has_run and not has_array(run.attributions, layout.graph(cell, "ends")):
        return None
    table, about = read_static(run.attributions, layout.graph(cell, "ends"))
    into, targets = read_static(run.attributions, layout.graph(cell, "edge_target"))
    out_of, sources = read_static(run.attributions, layout.graph(cell, "edge_source"))
    names = tuple(about["nodes"]), tuple(targets["names"])
    return GraphTables(*names, table, tuple(sources["names"]), out_of, into)
