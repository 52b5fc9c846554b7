"""Stored attribution scores as arrays with named edges or nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray

from edgesweep.storage import RunDirectory, layout
from edgesweep.storage.arrays import has_array, open_array
from edgesweep.storage.graphs import read_graph
from edgesweep.storage.layout import ATTRIBUTIONS
from edgesweep.storage.packing.prompts import PromptRows
from edgesweep.storage.readers import Committed, stored_scores


def read_scores(run: RunDirectory, cell: Mapping[str, Any], prompt: int | None) -> xarray.DataArray:
    """What `edgesweep.runs.Run.scores` says; `cell` is the plan's entry."""
    key = str(cell["key"])
    n_prompts = len(PromptRows(run, str(cell["dataset"]), "build", dict))
    if prompt is not None and not 0 <= prompt < n_prompts:
        raise ValueError(f"prompt {prompt} is none of the {n_prompts} of cell {key}, from 0 on")
    committed = Committed(run)
    if has_array(run.attributions, layout.listed(key, "target")):
        return _of_list(committed, cell, n_prompts, prompt)
    n_scores = open_array(run.aggregates, layout.partials(key)).shape[1]
    values = stored_scores(committed, key, n_scores, prompt)
    what, names = _scored(run, cell, values.shape[-1])
    return _named(values, what, names, cell)


def _scored(run: RunDirectory, cell: Mapping[str, Any], n: int) -> tuple[str, Sequence[str]]:
    """What a cell's scores are of, edges or nodes, and the names of these."""
    if cell["features"]:
        return "node", _Numbers(run, cell).names(np.arange(n))
    graph = read_graph(run, str(cell["key"]))
    return ("edge", graph.edges) if cell["scores"] == "edges" else ("node", graph.sources)


class _Numbers:
    """How the nodes of a cell over features are numbered: site by site, features and then the error
    node; last the logits."""

    def __init__(self, run: RunDirectory, cell: Mapping[str, Any]) -> None:
        sites = run.plan["kinds"][cell["nodes"]]["sites"]
        mine = [site for site in sites if site["model"] == cell["model"]]
        self._sites = [site["site"] for site in mine]
        self._first = np.cumsum([0, *(_n_nodes(site) for site in mine)])
        self._words = [site.get("word", "f") for site in mine]

    def names(self, numbers: np.ndarray) -> list[str]:
        """`resid3/f120`, `resid3/err`, `logits`."""
        site = np.searchsorted(self._first, numbers, side="right") - 1
        return [self._name(s, n) for s, n in zip(site.tolist(), numbers.tolist(), strict=True)]

    def _name(self, site: int, number: int) -> str:
        if site == len(self._sites):
            return "logits"
        is_error = number + 1 == self._first[site + 1]
        tail = "err" if is_error else f"{self._words[site]}{number - self._first[site]}"
        return f"{self._sites[site]}/{tail}"


def _n_nodes(site: Mapping[str, Any]) -> int:
    """Features, or regions of them, and the error node."""
    return int(site.get("n_nodes", site["n_features"])) + 1


def _of_list(
    committed: Committed, cell: Mapping[str, Any], n_prompts: int, prompt: int | None
) -> xarray.DataArray:
    """The largest edges of one prompt, each once: the sum over its blocks of target positions."""
    run, key = committed.run, str(cell["key"])
    if prompt is None:
        raise ValueError(
            f"cell {key} has a list of edges for each prompt; give prompt=0 to {n_prompts - 1}"
        )
    n_rows = open_array(run.attributions, layout.listed(key, "target")).shape[0]
    rows = range(prompt, n_rows, n_prompts)
    source, target, weight = (
        np.concatenate([committed.row(ATTRIBUTIONS, layout.listed(key, name), r) for r in rows])
        for name in ("source", "target", "weight")
    )
    listed = target >= 0
    pairs = np.stack([target[listed], source[listed]], axis=1)
    edges, place = np.unique(pairs, axis=0, return_inverse=True)
    values = np.zeros(len(edges), dtype=weight.dtype)
    np.add.at(values, place, weight[listed])
    numbers = _Numbers(run, cell)
    ends = zip(numbers.names(edges[:, 1]), numbers.names(edges[:, 0]), strict=True)
    return _named(values, "edge", [f"{s}->{t}" for s, t in ends], cell)


def _named(
    values: np.ndarray, what: str, names: Sequence[str], cell: Mapping[str, Any]
) -> xarray.DataArray:
    coords: dict[str, Any] = {what: list(names)}
    if what == "edge":
        ends = [name.split("->") for name in names]
        coords["source"] = "edge", [source for source, _ in ends]
        coords["target"] = "edge", [target for _, target in ends]
    dims = (what,) if values.ndim == 1 else ("prompt", what)
    return xarray.DataArray(values, coords, dims, name="score", attrs=dict(cell))
