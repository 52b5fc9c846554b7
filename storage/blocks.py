"""What a worker writes, and the receipt that lets anyone check it later.

A receipt's `writes` lists every block: {"store", "array", "start", "rows", "crc"} for rows of an
array, with {"column", "columns"} where it has some columns only, and {"step", "crcs"} where it lies
in several chunks of so many columns, each with a crc; {"file", "bytes", "crc"} for a small file of
its own (a block model's memberships).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgesweep.storage.arrays import (
    Array,
    Columns,
    address_of,
    crc_of,
    open_array,
    read_rows,
    write_rows,
)
from edgesweep.storage.commits import CommitLog
from edgesweep.storage.errors import StorageError
from edgesweep.storage.rundir import RunDirectory

Write = dict[str, Any]


def write_block(
    run: RunDirectory,
    store: str,
    array: str,
    start: int,
    values: np.ndarray,
    column: int | None = None,
) -> Write:
    """Writes rows of `store`/`array` (see arrays.write_rows) and says what was written."""
    there = opened(run, store, array)
    crc = write_rows(there, start, values, column)
    write = {"store": store, "array": array, "start": start, "rows": len(values), "crc": crc}
    if column is not None:
        return {**write, "column": column, "columns": values.shape[1]}
    if there.ndim > 1 and (step := there.chunks[1]) < values.shape[1]:
        spans = range(0, values.shape[1], step)
        return {**write, "step": step, "crcs": [crc_of(values[:, i : i + step]) for i in spans]}
    return write


def write_file(run: RunDirectory, name: str, data: bytes) -> Write:
    """Writes a file of the run, whole or not at all, and says what was written."""
    (run.root / name).write(data)
    return {"file": name, "bytes": len(data), "crc": zlib.crc32(data)}


def read_block(
    run: RunDirectory, write: Mapping[str, Any], columns: Columns | None = None
) -> np.ndarray:
    """The rows of a write, or some columns of them, checked against its crc. Raises StorageError if
    they differ."""
    _check_inside(run, write["store"], write["array"])
    return checked_rows(opened(run, write["store"], write["array"]), write, columns)


def opened(run: RunDirectory, store: str, array: str) -> Array:
    """An array's metadata is read once by whoever holds the run: a write is one request then."""
    key = f"{store}/{array}"
    if key not in run.opened:
        run.opened[key] = open_array(run.root / store, array, "r+")
    return run.opened[key]


def checked_rows(
    array: Array, write: Mapping[str, Any], columns: Columns | None = None
) -> np.ndarray:
    """The same of an array that is open. Of a write in several chunks only those are read that hold
    the columns."""
    if columns is None:
        return _checked(array, write, columns_of(write), write["crc"])
    if "crcs" not in write:
        first, _ = columns_of(write) or (0, 0)
        whole = checked_rows(array, write)
        return whole[:, columns[0] - first : columns[1] - first]
    low, step = columns[0] // write["step"], write["step"]
    high = -(-columns[1] // step)
    parts = [
        _checked(array, write, (i * step, min((i + 1) * step, array.shape[1])), write["crcs"][i])
        for i in range(low, high)
    ]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return whole[:, columns[0] - low * step : columns[1] - low * step]


def _checked(
    array: Array, write: Mapping[str, Any], columns: Columns | None, crc: int
) -> np.ndarray:
    start, rows = write["start"], write["rows"]
    values = read_rows(array, start, start + rows, columns)
    if crc_of(values) != crc:
        raise StorageError(
            f"{address_of(array)}: rows {start}..{start + rows} are not what was committed; resume "
            "the run to redo them"
        )
    return values


def columns_of(write: Mapping[str, Any]) -> tuple[int, int] | None:
    """The columns that a write has, from the first to before the last; None for all."""
    first = write.get("column")
    return None if first is None else (first, first + write["columns"])


def read_file(run: RunDirectory, write: Mapping[str, Any]) -> bytes:
    """The bytes of a write, checked against its crc. Raises StorageError if they differ."""
    _check_inside(run, write["file"])
    place = run.root / write["file"]
    data = place.read()
    if zlib.crc32(data) != write["crc"]:
        raise StorageError(f"{place} is not what was committed; resume the run to redo it")
    return data


def _check_inside(run: RunDirectory, *names: str) -> None:
    """A record may come from somebody else: it names nothing outside of the run's folder."""
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise StorageError(f"a commit record names {name!r}, which is not in {run.url}")


def make_receipt(
    writes: Iterable[Write],
    *,
    attempt: int,
    micro_batch: int,
    device: str,
    seconds: float,
    **extra: Any,
) -> dict[str, Any]:
    """A receipt with the fields that a commit record needs; `rows` and `crc` are the first
    write's. `extra` must be small and JSON."""
    writes = list(writes)
    first = writes[0] if writes else {"crc": 0}
    return {
        "attempt": attempt,
        "micro_batch": micro_batch,
        "device": device,
        "seconds": round(seconds, 4),
        "rows": first.get("rows", 0),
        "crc": first["crc"],
        "writes": writes,
        **extra,
    }


def is_sound(run: RunDirectory, record: Mapping[str, Any]) -> bool:
    """Whether everything that a record lists is on disk as it was when it was committed."""
    return not why_unsound(run, record)


def why_unsound(run: RunDirectory, record: Mapping[str, Any]) -> str:
    """In one line what is not as it was when it was committed; "" if nothing."""
    try:
        for write in record.get("writes", ()):
            (read_file if "file" in write else read_block)(run, write)
    except StorageError as error:
        run.opened.clear()  # it may be metadata that is damaged, which is mended later
        return str(error)
    except (KeyError, TypeError):
        return "the record does not say what was written"
    return ""


def move_unsound(
    run: RunDirectory, log: CommitLog, stage: str, among: Collection[str] | None = None
) -> list[str]:
    """Checks committed shards of a stage, all or those `among` some, and un-commits those whose
    data is not what was committed. Returns them; they are to be redone. Reads all that they wrote,
    a shard at a time."""
    read = (r for r in log.records(stage) if among is None or r["shard"] in among)
    bad = [record["shard"] for record in read if not is_sound(run, record)]
    for shard in bad:
        log.uncommit(stage, shard, "the data does not match the crc of the record")
    log.flush()
    return bad
