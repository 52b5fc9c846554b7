"""Rows on what interaction graphs are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from edgesweep.storage.blocks import read_file
from edgesweep.storage.tables import MODULARITY, MODULES, Table
from edgesweep.sweeps.interactions import shards
from edgesweep.sweeps.stages.base import Row

if TYPE_CHECKING:
    from edgesweep.sweeps.view import View

#: stage -> what its partitions are called
METHODS = {shards.MODULES: "leiden", shards.LAYER_BLOCKS: "sbm"}
NOTHING = float("nan")


def structure_tables(view: View) -> dict[Table, pd.DataFrame]:
    """Modules and what they are worth, if the run has interaction graphs."""
    if not view.plan.graphs:
        return {}
    rows = {MODULES: _modules, MODULARITY: _modularity}
    return {table: pd.DataFrame(list(of(view))) for table, of in rows.items()}


def _found(view: View) -> Iterator[tuple[Row, dict[str, Any], dict[str, Any]]]:
    """(columns, what is told of the graph, a partition of it)."""
    for stage, method in METHODS.items():
        for shard in view.plan.stages.get(stage, ()):
            if shard.key not in view.done[stage]:
                continue
            write = view.log.record(stage, shard.key)["writes"][0]
            told = json.loads(read_file(view.run, write))
            for of in told["partitions"]:
                about = {**shard.of.columns, "method": method, "resolution": of["resolution"]}
                yield about, told, of


def _modules(view: View) -> Iterator[Row]:
    for about, told, of in _found(view):
        for node, module in zip(told["nodes"], of["modules"], strict=True):
            yield {**about, "layer": node.rpartition("/")[0], "node": node, "module": module}


def _modularity(view: View) -> Iterator[Row]:
    for about, told, of in _found(view):
        drawn = of.get("drawn", [])
        sizes = np.bincount(of["modules"])
        yield {
            **about,
            "n_nodes": told["n_linked"],
            "n_edges": told["n_edges"],
            "n_modules": int((sizes > 1).sum()),
            "q": of["q"],
            "agreement": of["agreement"],
            "rewired": float(np.mean(drawn)) if drawn else NOTHING,
            "rewired_largest": max(drawn, default=NOTHING),
            "p": of.get("p", NOTHING),
            "n_rewired": len(drawn),
            "length": of.get("length", NOTHING),
            "one_a_layer": of.get("one_a_layer", NOTHING),
        }
