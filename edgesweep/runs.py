"""A run directory as Python values: tables, scores with named edges, circuits. Reads committed data
only, also while the run goes on, and writes nothing."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from edgesweep.engine.graph.circuit import Circuit
from edgesweep.storage import RunDirectory, status
from edgesweep.storage.graphs import read_graph
from edgesweep.storage.packing.prompts import PromptRows
from edgesweep.storage.tables import (
    BLOCKS,
    CIRCUITS,
    DIRECTIONS,
    DRAWN,
    EDGES_NEEDED,
    EQUAL_PHI,
    HEADLINES,
    INTERACTIONS,
    INTERPOLATION,
    KNOWN,
    LABELS,
    MEASURES,
    MINIMALITY,
    MODULARITY,
    MODULES,
    NEEDED_PAIRS,
    NETWORK_SCORES,
    NULLS,
    OVERLAP,
    PAIRS,
    REACH,
    REBUILT,
    REGION_ABLATION,
    REGION_AREAS,
    REGION_CLASSES,
    REGION_FITS,
    REGION_PICTURES,
    REGION_VIEWS,
    REGIONS,
    RESULTS,
    ROC,
    SECTION_CURVES,
    SPECTRA,
    STRUCTURE,
    Table,
    read_table,
)

if TYPE_CHECKING:
    import xarray

    from edgesweep.layered import InteractionGraph

#: of a measured point, what `Run.circuit` may be told; else what the run names first
_CHOICES = ("aggregation", "selection", "ablation", "eval_patch", "metric")
#: what a circuit says of how it was found, and what it reached
_SELECTED = (
    *("cell", "nodes", "method", "steps", "build_patch", "build_metric", "aggregation"),
    *("selection", "threshold", "ablation", "eval_patch", "metric", "faithfulness"),
)


def open_run(path: str | Path) -> Run:
    """The run in a directory, finished or not. Raises StorageError where there is none."""
    return Run(RunDirectory.open(path))


class _Read:
    """A table, read when it is asked for."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.__doc__ = f"A row is {table.row}."

    def __get__(self, run: Run, owner: type[Run]) -> pd.DataFrame:
        return read_table(run.directory, self._table)


class Run:
    """A run. `open_run` makes it.

    Attributes:
        directory: where it lies, as `edgesweep.storage` reads it.
        results, circuits, blocks, measures, roc, overlap, minimality, interpolation, known,
            edges_needed, needed_pairs, section_curves, directions, spectra, interactions, labels,
            network_scores, modules, modularity, nulls, structure, reach, drawn, headlines,
            equal_phi, rebuilt, pairs, regions, region_ablation, region_areas, region_classes,
            region_fits, region_views, region_pictures: its tables, without rows before they are
            written (`edgesweep.storage.tables.registry`).
    """

    results = _Read(RESULTS)
    circuits = _Read(CIRCUITS)
    blocks = _Read(BLOCKS)
    measures = _Read(MEASURES)
    roc = _Read(ROC)
    overlap = _Read(OVERLAP)
    minimality = _Read(MINIMALITY)
    interpolation = _Read(INTERPOLATION)
    known = _Read(KNOWN)
    edges_needed = _Read(EDGES_NEEDED)
    needed_pairs = _Read(NEEDED_PAIRS)
    section_curves = _Read(SECTION_CURVES)
    directions = _Read(DIRECTIONS)
    spectra = _Read(SPECTRA)
    network_scores = _Read(NETWORK_SCORES)
    interactions = _Read(INTERACTIONS)
    labels = _Read(LABELS)
    modules = _Read(MODULES)
    modularity = _Read(MODULARITY)
    nulls = _Read(NULLS)
    structure = _Read(STRUCTURE)
    reach = _Read(REACH)
    drawn = _Read(DRAWN)
    headlines = _Read(HEADLINES)
    equal_phi = _Read(EQUAL_PHI)
    rebuilt = _Read(REBUILT)
    pairs = _Read(PAIRS)
    regions = _Read(REGIONS)
    region_ablation = _Read(REGION_ABLATION)
    region_areas = _Read(REGION_AREAS)
    region_classes = _Read(REGION_CLASSES)
    region_fits = _Read(REGION_FITS)
    region_views = _Read(REGION_VIEWS)
    region_pictures = _Read(REGION_PICTURES)

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory

    def __repr__(self) -> str:
        return f"Run({self.directory.url!r}, {self.directory.run_id}, {len(self.cells)} cells)"

    @property
    def path(self) -> Path:
        return self.directory.path

    @property
    def config(self) -> dict[str, Any]:
        """As resolved, all defaults filled in."""
        return self.directory.config

    @property
    def status(self) -> dict[str, Any]:
        """How far it is: what `edgesweep status --json` says."""
        return status(self.directory)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """A row a cell: key, model, task, nodes, method, steps, …"""
        return pd.DataFrame(self.directory.plan["cells"])

    def prompts(self, cell: str, split: str = "build") -> pd.DataFrame:
        """The prompts of a cell's task, a row each: `clean_text`, `patch_text`, token ids, …

        Args:
            split: "build", whose numbers `scores` takes, or "eval".
        """
        dataset = self._cell(cell)["dataset"]
        return pd.DataFrame(list(PromptRows(self.directory, dataset, split, dict)))

    def scores(self, cell: str, prompt: int | None = None) -> xarray.DataArray:
        """Attribution scores as they are stored, with names: `[prompt, edge]`, or `[edge]` of one
        prompt; of methods that score nodes `node` in place of `edge`.

        Args:
            cell: its key, or the beginning of one, such as its method.
            prompt: number of a build prompt. None: all; those not yet committed are NaN. Over
                features every prompt has its own list of edges, and one must be given. With
                `scores.keep` a share, what was not kept is NaN.

        Raises:
            ValueError: no such cell or prompt.
            StorageError: the prompt is not committed, or not what was committed; `scores.keep` is
                none, so that none are stored.
        """
        from edgesweep.scores import read_scores

        return read_scores(self.directory, self._cell(cell), prompt)

    def interaction_graph(self, basis: str, **choices: Any) -> InteractionGraph:
        """An interaction graph: its bases, interactions, and as a circuit those that are needed.

        Args:
            basis: lib, gib or pca.
            choices: `model`, `task`, `steps`, `rule`, where the run has several.

        Raises:
            ValueError: no graph is so, or several.
        """
        from edgesweep.layered import interaction_graph

        return interaction_graph(self.directory, {"basis": basis, **choices})

    # --- circuits ------------------------------------------------------------------------------
    def circuit(
        self,
        cell: str,
        *,
        phi: float | None = None,
        n_edges: int | None = None,
        threshold: float | None = None,
        ran: bool = False,
        **choices: str,
    ) -> Circuit:
        """A circuit of a cell: one of `phi`, `n_edges` and `threshold` says which.

        Args:
            cell: its key, or the beginning of one, such as its method.
            phi: the smallest circuit that is at least so faithful, over all inputs; of those that
                only a search has measured (`evaluate.reach`), its answers alone are kept.
            n_edges: the circuit that runs a number of edges nearest to this.
            threshold: the circuit of this threshold.
            ran: only the edges that ran under `eval_patch`; else all that were selected.
            choices: `aggregation`, `selection`, `ablation`, `eval_patch`, `metric`; else what the
                run names first.

        Raises:
            ValueError: no such cell, or no circuit that is so.
        """
        about, given = self._cell(cell), (phi, n_edges, threshold)
        if sum(value is not None for value in given) != 1:
            raise ValueError("give one of phi, n_edges and threshold")
        points = self._points(str(about["key"]), choices)
        if phi is not None:
            found = points[points["faithfulness"] >= phi].sort_values("n_edges", kind="stable")
        elif n_edges is not None:
            order = (points["n_edges"] - n_edges).abs().sort_values(kind="stable").index
            found = points.loc[order]
        else:
            found = points[points["threshold"] == threshold]
        if found.empty:
            raise ValueError(_none_is_so(points, phi, threshold))
        return self._circuit(about, found.iloc[0], ran)

    def _points(self, cell: str, choices: dict[str, str]) -> pd.DataFrame:
        """The measured points of a cell's whole circuits over all inputs, one a circuit."""
        if unknown := set(choices) - set(_CHOICES):
            raise ValueError(f"unknown {sorted(unknown)[0]!r}; allowed: {', '.join(_CHOICES)}")
        rows = self.results.query("cell == @cell and subset == 'all' and blocks == 'all'")
        kept = rows["circuit"].isin(set(self.circuits["circuit"]))
        rows = rows[kept | (rows["n_edges"] == 0)]
        for name in _CHOICES if len(rows) else ():
            there = rows[name].unique().tolist()
            first = [value for value in self.config["evaluate"][name] if value in there] or there
            chosen = choices.get(name, first[0])
            if chosen not in there:
                raise ValueError(f"{name}: {chosen!r} was not run; there is {', '.join(there)}")
            rows = rows[rows[name] == chosen]
        if rows.empty:
            raise ValueError(f"cell {cell} has no results yet; see Run.status")
        return rows

    def _circuit(self, about: dict[str, Any], point: pd.Series, ran: bool) -> Circuit:
        key, patch = str(point["circuit"]), str(point["eval_patch"])
        rows = self.circuits.query("circuit == @key")
        if ran:
            rows = rows[[patch in patches.split("+") for patches in rows["ran"]]]
        weights = [float(w) if np.isfinite(w) else None for w in rows["weight"]]
        edges = dict(zip(rows["source"] + "->" + rows["target"], weights, strict=True))
        graph = read_graph(self.directory, str(about["key"]))
        selected = {name: _plain(point[name]) for name in _SELECTED}
        told = {"model": str(about["model"]), "task": str(about["task"])}
        joins = graph.joins(rows["target"])
        return Circuit(edges, joins, key, **told, selected={**selected, "ran": ran})

    def _cell(self, cell: str) -> dict[str, Any]:
        """The one cell of that key, or whose key begins so."""
        cells = {str(about["key"]): about for about in self.directory.plan["cells"]}
        found = [cell] if cell in cells else [key for key in cells if key.startswith(cell)]
        if len(found) != 1:
            what = "no cell begins" if not found else f"{len(found)} cells begin"
            raise ValueError(f"{what} with {cell!r}; cells: {', '.join(found or cells)}")
        return dict(cells[found[0]])


def _none_is_so(points: pd.DataFrame, phi: float | None, threshold: float | None) -> str:
    if phi is not None:
        best = points["faithfulness"].max()
        return f"no circuit is faithful to {phi:g}; the best reaches {best:.3g}"
    there = ", ".join(f"{t:g}" for t in sorted(points["threshold"]))
    return f"no circuit has threshold {threshold:g}; thresholds: {there}"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
