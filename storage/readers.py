"""What pages and analyses read: committed data only, also while the run goes on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.storage import layout
from edgesweep.storage.arrays import Array, Columns, has_array
from edgesweep.storage.blocks import checked_rows, columns_of, opened
from edgesweep.storage.commits import CommitLog
from edgesweep.storage.errors import StorageError
from edgesweep.storage.layout import AGGREGATES, ATTRIBUTIONS, EVALUATIONS
from edgesweep.storage.packing.masks import read_masks
from edgesweep.storage.rundir import RunDirectory


def commits(run: RunDirectory) -> pd.DataFrame:
    """One row a committed shard: stage, shard, and what its record says of how it was done."""
    log = CommitLog(run)
    fields = (
        *("stage", "shard", "rows", "seconds", "attempt", "micro_batch", "device", "epoch"),
        *("versions", "n_bad", "bad", "fit", "dropped_share"),  # only some have the last four
    )
    records = (record for stage in log.stages() for record in log.records(stage))
    rows = [{name: record.get(name) for name in fields} for record in records]
    found = pd.DataFrame(rows, columns=list(fields))
    return found.sort_values(["stage", "shard"], ignore_index=True)


class Committed:
    """The committed blocks of all arrays, by one reading of the log: what is committed later is not
    seen, unless it is added. Each block that is read must match the crc of its record. Blocks
    of other `stores` than are asked for take no memory; None asks for all."""

    def __init__(
        self,
        run: RunDirectory,
        log: CommitLog | None = None,
        stores: Collection[str] | None = None,
    ) -> None:
        self.run, self._stores = run, stores
        self._writes: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        log = log or CommitLog(run)
        for stage in log.stages():
            for record in log.records(stage):
                self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """A driver tells of a record that it has just committed."""
        for write in record.get("writes", ()):
            if "array" in write and (self._stores is None or write["store"] in self._stores):
                key = write["store"], write["array"]
                self._writes.setdefault(key, []).append(write)

    def has(self, store: str, array: str) -> bool:
        """Whether a block of it is committed."""
        return (store, array) in self._writes

    def arrays(self, store: str) -> set[str]:
        """Arrays with at least one committed block."""
        return {array for where, array in self._writes if where == store}

    def blocks(
        self, store: str, array: str, columns: Columns | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (first row, rows) of each committed block, by row, a block at a time; of some
        columns only, where they are given. Raises StorageError for one that is missing or not what
        was committed."""
        if writes := self._writes.get((store, array)):
            there = opened(self.run, store, array)
            for start in sorted({write["start"] for write in writes}):
                mine = [write for write in writes if write["start"] == start]
                rows = _joined(there, mine, columns)
                if rows is not None:
                    yield start, rows

    def n_blocks(self, store: str, array: str) -> int:
        """How many blocks of it are committed."""
        return len(self._writes.get((store, array), ()))

    def read(self, store: str, array: str, *, partly: bool = False) -> np.ndarray:
        """All rows. With `partly` those that no shard committed are NaN (of integers 0); else they
        are a StorageError, as are blocks that are missing or not what was committed."""
        there = opened(self.run, store, array)
        fill = np.nan if there.dtype.kind == "f" else 0
        values = np.full(there.shape, fill, there.dtype)
        missing = values.size
        for write in self._writes.get((store, array), ()):
            place: tuple[slice, ...] = (slice(write["start"], write["start"] + write["rows"]),)
            if (columns := columns_of(write)) is not None:
                place = (*place, slice(*columns))
            block = checked_rows(there, write)
            values[place] = block
            missing -= block.size
        if missing and not partly:
            n = -(-missing * len(values) // values.size)
            raise StorageError(
                f"{self.run.root / store / array}: {n} of {len(values)} rows are not "
                "committed; resume the run to have them"
            )
        return values

    def row(self, store: str, array: str, row: int) -> np.ndarray:
        """One row. StorageError if no shard has committed it, or it is not what was committed."""
        writes = self._writes.get((store, array), ())
        mine = [w for w in writes if w["start"] <= row < w["start"] + w["rows"]]
        if mine:
            rows = _joined(opened(self.run, store, array), mine, None)
            if rows is not None:
                return rows[row - mine[0]["start"]]
        raise StorageError(
            f"{self.run.root / store / array}: row {row} is not committed; resume the run to have "
            "it"
        )

    def aggregate(self, group: str, aggregation: str) -> np.ndarray | None:
        """A folded array [E] of aggregates.zarr (`group` is the cell, or cell/subset); None if it
        is not committed."""
        name = layout.folded(group, aggregation)
        return self.read(AGGREGATES, name) if (AGGREGATES, name) in self._writes else None


def _joined(
    array: Array, writes: list[Mapping[str, Any]], columns: Columns | None
) -> np.ndarray | None:
    """The same rows of several writes of columns, side by side; None if they have not all columns
    that are asked for."""
    low, high = columns or (0, array.shape[1] if array.ndim > 1 else 1)
    parts = {columns_of(write) or (0, high): write for write in writes}
    mine = [span for span in sorted(parts) if span[0] < high and span[1] > low]
    if not mine or mine[0][0] > low or sum(b - a for a, b in mine) < high - low:
        return None
    if columns is None:
        rows = [checked_rows(array, parts[span]) for span in mine]
    else:
        rows = [checked_rows(array, parts[a, b], (max(a, low), min(b, high))) for a, b in mine]
    return rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)


def committed_rows(run: RunDirectory, store: str, array: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, rows) of each committed block of one array (see `Committed.blocks`)."""
    yield from Committed(run).blocks(store, array)


def scores(run: RunDirectory, cell: str) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers int64 [n] and scores float32 [n, E] of a cell's committed inputs. All in memory:
    for one cell of a small run; else use `committed_rows`. StorageError where not all are kept."""
    if (keep := keep_of(run)) != "all":
        raise StorageError(
            f"{run.url}: scores.keep is {keep}, so not all scores are stored; those that are: "
            "edgesweep.open(…).scores"
        )
    return _stacked(run, ATTRIBUTIONS, layout.scores(cell))


def keep_of(run: RunDirectory) -> str | float:
    """Which scores a run keeps: `scores.keep` of its config."""
    keep: str | float = run.config.get("scores", {}).get("keep", "all")
    return keep


def stored_scores(
    committed: Committed, cell: str, n_scores: int, prompt: int | None = None
) -> np.ndarray:
    """Scores `[input, scored]`, or `[scored]` of one input, as they are stored: NaN where an input
    is not committed, or a score was not kept. Raises StorageError where none are stored, or the one
    input is not committed."""
    keep = keep_of(committed.run)
    if keep == "none":
        raise StorageError(
            f"{committed.run.url}: scores.keep is none, so scores of single prompts are not "
            "stored; means and other aggregates are, and a run with scores.keep all has both"
        )
    if keep == "all":
        return _read(committed, layout.scores(cell), prompt)
    gaps, scores = (_read(committed, layout.kept(cell, n), prompt) for n in ("gap", "score"))
    edges = np.cumsum(gaps, axis=-1, dtype=np.int64)
    found = np.full((*scores.shape[:-1], n_scores), np.nan, np.float32)
    np.put_along_axis(found, edges, scores, -1)
    return found


def _read(committed: Committed, name: str, prompt: int | None) -> np.ndarray:
    if prompt is None:
        return committed.read(ATTRIBUTIONS, name, partly=True)
    return committed.row(ATTRIBUTIONS, name, prompt)


def evaluation(
    run: RunDirectory, circuit: str, condition: str, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers int64 [n] and per-input values float64 [n] of a circuit's committed inputs."""
    cells = [str(about["key"]) for about in run.plan["cells"]]
    cell = next(key for key in cells if circuit.startswith(f"{key}-"))
    place = read_masks(run, layout.ran(cell, condition)).circuits.index(circuit)
    columns, metrics = (place, place + 1), run.config["evaluate"]["metric"]
    rows, values = _stacked(run, EVALUATIONS, layout.values(cell, condition), columns)
    return rows, values.reshape(len(rows), -1)[:, metrics.index(metric)]


def _stacked(
    run: RunDirectory, store: str, array: str, columns: Columns | None = None
) -> tuple[np.ndarray, np.ndarray]:
    parts = list(Committed(run).blocks(store, array, columns))
    if not parts:
        there = has_array(run.root / store, array)
        shape = opened(run, store, array).shape if there else (0,)
        return np.zeros(0, np.int64), np.zeros((0, *shape[1:]), np.float32)
    rows = np.concatenate([np.arange(start, start + len(part)) for start, part in parts])
    return rows, np.concatenate([part for _, part in parts])


def aggregate(run: RunDirectory, group: str, aggregation: str) -> np.ndarray | None:
    """One folded array (see `Committed.aggregate`)."""
    return Committed(run).aggregate(group, aggregation)
