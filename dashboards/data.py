"""What a page needs of a run directory, read once through `storage`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from edgesweep.dashboards.bycell import ByCell
from edgesweep.dashboards.facts import Facts, facts_of
from edgesweep.dashboards.kinds import Kind
from edgesweep.dashboards.names import cell_names, circuit_names, is_search, method_names
from edgesweep.dashboards.searched import forward
from edgesweep.dashboards.style import Mark, marks
from edgesweep.storage import CommitLog, RunDirectory, layout, readers
from edgesweep.storage.graphs import GraphTables, graphs_of
from edgesweep.storage.layout import AGGREGATES, EVALUATIONS, PAGES, REPORT
from edgesweep.storage.manifest import check, read_manifest
from edgesweep.storage.status import status
from edgesweep.storage.tables import (
    BLOCKS,
    CIRCUITS,
    DRAWN,
    EQUAL_PHI,
    HEADLINES,
    INTERPOLATION,
    KNOWN,
    LAYERED,
    MEASURES,
    MINIMALITY,
    NULLS,
    OVERLAP,
    PAIRS,
    REACH,
    REBUILT,
    RESULTS,
    ROC,
    ROIS,
    STRUCTURE,
    read_table,
)

T = TypeVar("T")

#: tables with rows of cells, and the columns that name these
_CELLS_IN = {
    **dict.fromkeys(("results", "circuits", "blocks", "measures", "roc", "reach"), ("cell",)),
    **dict.fromkeys(("minimality", "interpolation", "nulls", "structure", "drawn"), ("cell",)),
    **dict.fromkeys(("headlines", "equal_phi", "rebuilt"), ("cell",)),
    **dict.fromkeys(("overlap", "pairs"), ("cell_a", "cell_b")),
}
#: how a ranking of edges becomes circuits
RANKED_BY = ("aggregation", "selection")


@dataclass(frozen=True)
class RunData:
    """Everything that the report shows.

    Attributes:
        results, circuits, blocks, commits: the run's tables; empty where not yet written. Rows of
            results have their cell's `method_name`, and those of a search no selection.
        measures, roc, overlap, minimality, interpolation, known, nulls, structure, drawn, reach,
            headlines, equal_phi, rebuilt, pairs: the derived tables, in the same way; empty in a
            run that has none.
        histograms: cell -> aggregated scores of all inputs, of edges or of nodes.
        aggregation: the aggregation that the histograms show.
        graphs: cell -> names.
        log: events of the log.
        quarantined: stage/shard -> the error for which it was given up.
        layered, rois: tables of interaction graphs, and of regions of interest, by name; none in a
            run without them.
        facts: what a run with dictionaries noted beside its scores.
    """

    path: Path | str
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
    nulls: pd.DataFrame = field(default_factory=pd.DataFrame)
    structure: pd.DataFrame = field(default_factory=pd.DataFrame)
    drawn: pd.DataFrame = field(default_factory=pd.DataFrame)
    reach: pd.DataFrame = field(default_factory=pd.DataFrame)
    headlines: pd.DataFrame = field(default_factory=pd.DataFrame)
    equal_phi: pd.DataFrame = field(default_factory=pd.DataFrame)
    rebuilt: pd.DataFrame = field(default_factory=pd.DataFrame)
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    histograms: Mapping[str, np.ndarray] = field(default_factory=dict)
    graphs: Mapping[str, GraphTables] = field(default_factory=dict)
    log: tuple[Mapping[str, Any], ...] = ()
    quarantined: Mapping[str, str] = field(default_factory=dict)
    layered: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    rois: Mapping[str, pd.DataFrame] = field(default_factory=dict)
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
        told = [patches for patches in self.circuits["ran"].unique() if patch in patches.split("+")]
        return self.circuits[self.circuits["ran"].isin(told)]

    def of_cells(self, cells: Collection[str]) -> "RunData":
        """The same of some cells."""
        tables = {}
        for name, columns in _CELLS_IN.items():
            table = getattr(self, name)
            if len(table):
                tables[name] = table[np.logical_and.reduce([table[c].isin(cells) for c in columns])]
        return replace(
            self,
            plan={**self.plan, "cells": [c for c in self.plan["cells"] if c["key"] in cells]},
            histograms=_some(self.histograms, cells),
            graphs=_some(self.graphs, cells),
            **tables,
        )

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


def load_run(path: Path | str, state: str | None = None) -> RunData:
    """Read a run, finished or not.

    Args:
        state: what it is about to be, of a run whose driver writes its page.

    Raises:
        StorageError: there is none, or a file of it is not what its driver wrote.
    """
    run = RunDirectory.open(path)
    own = [REPORT, *_pages(run)]
    check(run, but=own)
    cells = [str(cell["key"]) for cell in run.plan["cells"]]
    aggregation = str(run.config["evaluate"]["aggregation"][0])
    committed = readers.Committed(run)
    written, commits = committed.arrays(AGGREGATES), readers.commits(run)
    ran = {array.partition("/")[0] for array in committed.arrays(EVALUATIONS)}
    graphs = ByCell(*graphs_of(run, cells, ran))
    scored = [cell for cell in cells if layout.folded(cell, aggregation) in written]
    listed = {str(cell["key"]) for cell in run.plan["cells"] if cell.get("keep")}
    scored = [cell for cell in scored if cell in graphs or cell not in listed]
    return RunData(
        path=path,
        plan=run.plan,
        config=run.config,
        status=status(run, but=own) | ({"state": state} if state else {}),
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
        nulls=read_table(run, NULLS),
        structure=read_table(run, STRUCTURE),
        drawn=_told(read_table(run, DRAWN), run.plan),
        reach=read_table(run, REACH),
        headlines=_told(read_table(run, HEADLINES), run.plan),
        equal_phi=_told(read_table(run, EQUAL_PHI), run.plan),
        rebuilt=_told(read_table(run, REBUILT), run.plan),
        pairs=read_table(run, PAIRS),
        histograms=ByCell(
            scored, lambda cell: _scores(committed, cell, aggregation, graphs, cell in listed)
        ),
        graphs=graphs,
        log=tuple(run.read_log()),
        quarantined=_quarantined(CommitLog(run)),
        layered={
            table.name: forward(read_table(run, table), run.plan)
            for table in LAYERED
            if run.plan.get("graphs")
        },
        rois={table.name: read_table(run, table) for table in ROIS if run.plan.get("rois")},
        facts=facts_of(committed, commits, run.plan["cells"]),
    )


def _some(whole: Mapping[str, T], cells: Collection[str]) -> Mapping[str, T]:
    return ByCell((cell for cell in whole if cell in cells), whole.__getitem__)


def _pages(run: RunDirectory) -> list[str]:
    """Those beside the report: they are made of what is read here."""
    return [name for name in read_manifest(run) or () if name.startswith(f"{PAGES}/")]


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
    committed: readers.Committed,
    cell: str,
    aggregation: str,
    graphs: Mapping[str, GraphTables],
    listed: bool,
) -> np.ndarray:
    """Aggregated scores; of lists of edges, those that were found and not the room for more."""
    scores = committed.aggregate(cell, aggregation)
    assert scores is not None
    return scores[: graphs[cell].n_edges] if listed else scores


def _kinds(plan: Mapping[str, Any]) -> dict[str, Kind]:
    names = dict.fromkeys(cell["nodes"] for cell in plan["cells"])
    return {nodes: Kind.of(plan["kinds"][nodes]) for nodes in names}
