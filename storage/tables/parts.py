"""Rows of a cell as soon as they are known, so that the page of a running run has curves.

tables/parts/<cell>.<table>.parquet, vouched for by tables/parts/<cell>.json, a sealed record with
the size and sha256 of each, which is written after them. A part that its record does not vouch for
is not there. The tables of a run are files of their own that the manifest vouches for; once it
does, parts are not looked at, and the driver takes them away. It does so too before it un-commits
anything, since they may be of that (`storage.manifest.remove_parts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from edgesweep.storage import layout
from edgesweep.storage.commits import CommitLog
from edgesweep.storage.errors import StorageError
from edgesweep.storage.manifest import entry, vouched
from edgesweep.storage.records import read_record, seal
from edgesweep.storage.rundir import RunDirectory
from edgesweep.storage.stores import Missing, Place
from edgesweep.storage.tables.parquet import Rows, from_parquet, in_order, no_rows, to_parquet
from edgesweep.storage.tables.registry import Table


def write_parts(log: CommitLog, cell: str, tables: Mapping[Table, Rows]) -> None:
    """Writes what is known of a cell before the run ends. Driver only.

    To be called once the last shard that the cell's rows are made of is committed, and, by a driver
    that resumes, for each cell of which that is already so (`has_parts` says which need nothing).
    Done again with the same rows it changes nothing.

    Args:
        log: of the driver.
        cell: its key.
        tables: rows of this cell alone; those without a row have no part. Nor have tables that
            compare cells.

    Raises:
        Fenced: a newer driver has started.
        StorageError: they cannot be written.
        ValueError: see `to_parquet`.
    """
    files = {table.file: to_parquet(table, rows) for table, rows in tables.items() if len(rows)}
    for file, data in files.items():
        log.check_fence()
        (log.root / layout.part(cell, file)).write(data)
    log.check_fence()
    vouched_for = {file: entry(data) for file, data in files.items()}
    record = seal({"cell": cell, "files": vouched_for})
    (log.root / layout.parts_record(cell)).write(record)


def has_parts(run: RunDirectory, cell: str) -> bool:
    """Whether a cell's parts are there and as they were written."""
    record = _files(run.root / layout.parts_record(cell))
    return bool(record) and all(_part(run, cell, file, record) is not None for file in record)


def read_table(run: RunDirectory, table: Table) -> pd.DataFrame:
    """A table of a run: all of it once a driver has ended, and before that the rows of cells that
    are done. No rows where none is. Raises StorageError for a table that is not as it was written;
    a part that is not is left out."""
    found = _whole(run, table)
    if found is None:
        parts = list(_parts(run, table))
        found = _whole(run, table)  # a driver that has ended meanwhile has taken parts away
        if found is None:
            return in_order(table, pd.concat(parts)) if parts else no_rows(table)
    return found


def _whole(run: RunDirectory, table: Table) -> pd.DataFrame | None:
    """What the manifest vouches for: Parquet decodes most flipped bits without a word."""
    data = vouched(run, table.file)
    return None if data is None else from_parquet(data)


def _parts(run: RunDirectory, table: Table) -> Iterator[pd.DataFrame]:
    for info in (run.root / layout.PARTS).list():
        if info.key.endswith(".json"):
            record = run.root / info.key
            cell = record.name.removesuffix(".json")
            data = _part(run, cell, table.file, _files(record))
            if data is not None:
                yield from_parquet(data)


def _files(record: Place) -> Mapping[str, Mapping[str, object]]:
    """What a cell's record vouches for; nothing where there is none that is as it was written."""
    try:
        return dict(read_record(record)["files"])
    except StorageError:
        return {}


def _part(
    run: RunDirectory, cell: str, file: str, files: Mapping[str, Mapping[str, object]]
) -> bytes | None:
    if file not in files:
        return None
    try:
        data = (run.root / layout.part(cell, file)).read()
    except Missing:
        return None
    return data if entry(data) == files[file] else None
