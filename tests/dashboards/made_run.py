"""The directory of the run made by hand, with every table that a report can show."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from edgesweep.storage import CommitLog, RunDirectory, tables
from edgesweep.storage.arrays import create_array, make_store
from edgesweep.storage.blocks import write_block
from edgesweep.storage.graphs import write_graph
from edgesweep.storage.layout import AGGREGATES
from edgesweep.storage.manifest import entry, write_manifest
from edgesweep.sweeps.granularity.words import HEADS
from tests.dashboards.made import CELLS, GRAPH, SCORES
from tests.dashboards.made_tables import TABLES

RECEIPT = {"attempt": 1, "crc": 0, "rows": 1, "micro_batch": 4, "device": "cpu", "seconds": 0.1}
CONFIG: dict[str, Any] = {
    "name": "made",
    "seed": 0,
    "sweep": {"model": ["toy-lm"], "task": ["ioi"], "method": ["acdc", "eap", "exact"]},
    "evaluate": {
        "aggregation": ["mean"],
        "selection": ["topk_abs"],
        "eval_patch": ["counterfactual"],
    },
    "data": {"n_eval": 8},
    "blocks": {"fit": "none"},
    "measures": {"level": 0.95},
    "execution": {"micro_batch": 4},
}


def make_run(path: Path, *, without: tuple[str, ...] = (), unreduced: str = "") -> RunDirectory:
    """The run, with all of TABLES but those left out, and with a cell that is not reduced yet."""
    plan = {
        "run_id": "made-0123456789ab",
        "identity": {"models": {"toy-lm": "aa"}},
        "stages": {},
        "versions": {"edgesweep": "0"},
        "cells": list(CELLS.values()),
        "kinds": {"heads": {"words": asdict(HEADS)}},
    }
    run = RunDirectory.create(path, CONFIG, plan)
    for name, rows in TABLES.items():
        if name not in without:
            found = rows()
            frame = found if isinstance(found, pd.DataFrame) else pd.DataFrame(list(found))
            table = getattr(tables, name.upper())
            (path / table.file).write_bytes(tables.to_parquet(table, frame))
    _write_arrays(run, unreduced)
    files = sorted(path.glob("*.parquet"))
    write_manifest(run, {file.name: entry(file.read_bytes()) for file in files})
    return run


def _write_arrays(run: RunDirectory, unreduced: str) -> None:
    log = CommitLog(run)
    log.claim_epoch()
    for store in (run.attributions, run.aggregates):
        make_store(store)
    for key, values in SCORES.items():
        create_array(run.aggregates, f"{key}/mean", values.shape, values.shape, "float64")
        if key != unreduced:
            write = write_block(run, AGGREGATES, f"{key}/mean", 0, values)
            log.commit("reduce", f"{key}.all", {**RECEIPT, "writes": [write]})
        write_graph(run, key, GRAPH)
