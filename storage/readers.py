"""What pages and analyses read: committed data only, also while the run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from storage.arrays import has_array, open_array, read_rows
from storage.blocks import read_block
from storage.commits import CommitLog
from storage.rundir import AGGREGATES, ATTRIBUTIONS, EVALUATIONS, RunDirectory
from storage.tables import (
    BLOCKS_COLUMNS,
    CIRCUITS_COLUMNS,
    INTERPOLATION_COLUMNS,
    KNOWN_COLUMNS,
    MEASURES_COLUMNS,
    MINIMALITY_COLUMNS,
    OVERLAP_COLUMNS,
    RESULTS_COLUMNS,
    ROC_COLUMNS,
    read_table,
)


def results(run: RunDirectory) -> pd.DataFrame:
    """results.parquet; no rows before it is written."""
    return read_table(run.results, RESULTS_COLUMNS)


def circuits(run: RunDirectory) -> pd.DataFrame:
    """circuits.parquet; no rows before it is written."""
    return read_table(run.circuits, CIRCUITS_COLUMNS)


def blocks(run: RunDirectory) -> pd.DataFrame:
    """blocks.parquet; no rows before it is written."""
    return read_table(run.blocks, BLOCKS_COLUMNS)


def measures(run: RunDirectory) -> pd.DataFrame:
    """measures.parquet, what curves and rankings come to; empty if there is none."""
    return read_table(run.measures, MEASURES_COLUMNS)


def roc(run: RunDirectory) -> pd.DataFrame:
    """roc.parquet, how rankings find a known circuit; empty if there is none."""
    return read_table(run.roc, ROC_COLUMNS)


def overlap(run: RunDirectory) -> pd.DataFrame:
    """overlap.parquet, how far two cells' scores agree; empty if there is none."""
    return read_table(run.overlap, OVERLAP_COLUMNS)


def minimality(run: RunDirectory) -> pd.DataFrame:
    """minimality.parquet, what each edge of a circuit is needed for; empty if there is none."""
    return read_table(run.minimality, MINIMALITY_COLUMNS)


def interpolation(run: RunDirectory) -> pd.DataFrame:
    """interpolation.parquet, single edges moved from clean to patch; empty if there is none."""
    return read_table(run.interpolation, INTERPOLATION_COLUMNS)


def known(run: RunDirectory) -> pd.DataFrame:
    """known.parquet, the true edges; empty if there is none."""
    return read_table(run.known, KNOWN_COLUMNS)


def commits(run: RunDirectory) -> pd.DataFrame:
    """One row a committed shard: stage, shard, and what its record says of how it was done."""
    log = CommitLog(run)
    fields = (
        *("stage", "shard", "rows", "seconds", "attempt", "micro_batch", "device", "epoch"),
        *("versions", "n_bad", "bad"),  # only some records have the last two
    )
    records = [record for stage in log.stages() for record in log.committed(stage).values()]
    rows = [{name: record.get(name) for name in fields} for record in records]
    return pd.DataFrame(rows, columns=list(fields))


def committed_writes(run: RunDirectory, store: str, array: str) -> list[dict[str, Any]]:
    """The committed blocks of rows of an array, by start."""
    log = CommitLog(run)
    found = [
        write
        for stage in log.stages()
        for record in log.committed(stage).values()
        for write in record.get("writes", ())
        if write.get("store") == store and write.get("array") == array
    ]
    return sorted(found, key=lambda write: write["start"])


def committed_arrays(run: RunDirectory, store: str) -> set[str]:
    """Arrays of a store with at least one committed block, by one reading of the log."""
    log = CommitLog(run)
    return {
        str(write["array"])
        for stage in log.stages()
        for record in log.committed(stage).values()
        for write in record.get("writes", ())
        if write.get("store") == store
    }


def committed_rows(run: RunDirectory, store: str, array: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, rows) of each committed block, a block at a time, each checked against its
    crc. Raises StorageError for one that is damaged."""
    for write in committed_writes(run, store, array):
        yield write["start"], read_block(run, write)


def scores(run: RunDirectory, cell: str) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers int64 [n] and scores float32 [n, E] of a cell's committed inputs. All in memory:
    for one cell of a small run; else use `committed_rows`."""
    return _stacked(run, ATTRIBUTIONS, f"{cell}/scores")


def evaluation(run: RunDirectory, circuit: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers int64 [n] and per-input values of a circuit's committed inputs."""
    return _stacked(run, EVALUATIONS, f"{circuit}/{metric}")


def _stacked(run: RunDirectory, store: str, array: str) -> tuple[np.ndarray, np.ndarray]:
    parts = list(committed_rows(run, store, array))
    if not parts:
        shape = (
            open_array(run.path / store, array).shape
            if has_array(run.path / store, array)
            else (0,)
        )
        return np.zeros(0, np.int64), np.zeros((0, *shape[1:]), np.float32)
    rows = np.concatenate([np.arange(start, start + len(part)) for start, part in parts])
    return rows, np.concatenate([part for _, part in parts])


def aggregate(run: RunDirectory, group: str, aggregation: str) -> np.ndarray | None:
    """A folded array [E] of aggregates.zarr (`group` is the cell, or cell/subset); None if
    there is none. Raises StorageError if it is there and not yet written."""
    name = f"{group}/{aggregation}"
    if not has_array(run.path / AGGREGATES, name):
        return None
    array = open_array(run.path / AGGREGATES, name)
    return read_rows(array, 0, array.shape[0])
