"""Rows of a table as Parquet: same rows, same bytes.

Rows are sorted, columns have the table's types, and nothing that depends on time, machine or
attempt is written. A run's table is written some cells at a time, so that no more of its rows are
in memory than a row group has.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from edgesweep.storage.tables.registry import Table

Rows = pd.DataFrame | Sequence[Mapping[str, Any]]

#: a row group has at least so many, and ends with the rows of a cell
ROWS_A_GROUP = 16_384
#: so many are typed together: a frame of a few rows weighs a hundred times what it says
FRAMES_A_BATCH = 32
_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
_PANDAS = {"str": "str", "int": "int64", "float": "float64", "bool": "bool"}


def give_memory_back() -> None:
    """Lets Arrow take this process's memory from the C library, now and later: its own allocator
    keeps all that it ever had, of a driver that makes tables tens of MB."""
    pa.set_memory_pool(pa.system_memory_pool())


def to_parquet(table: Table, rows: Rows) -> bytes:
    """`rows` sorted by the table's key (the rest of the columns break ties).

    A value may be missing (None) only in float columns, where it becomes NaN. Raises ValueError
    for a row with a missing, unknown or wrongly typed column.
    """
    writer = TableWriter(table)
    writer.add(rows)
    return writer.finish()


class TableWriter:
    """The Parquet of a table whose rows come bit by bit, in order from one `add` to the next."""

    def __init__(self, table: Table) -> None:
        self._table, self._buffer = table, io.BytesIO()
        schema = pa.schema([(name, _TYPES[kind]) for name, kind in table.columns.items()])
        self._writer = pq.ParquetWriter(self._buffer, schema, compression="zstd")
        self._waiting: list[pd.DataFrame] = []
        self._typed: list[pa.Table] = []
        self._last: Any = None

    def add(self, rows: Rows) -> None:
        """Adds rows, in any order. Raises ValueError for rows with other columns, and for some that
        belong before those of an earlier call; what `to_parquet` refuses beside, at the latest when
        the table is finished."""
        table, frame = self._table, rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
        if not len(frame):
            return
        if wrong := set(frame.columns) ^ set(table.columns):
            raise ValueError(f"rows of {table.name}: columns missing or unknown: {sorted(wrong)}")
        lead = frame[table.key[0]]
        if self._last is not None and lead.min() < self._last:
            raise ValueError(f"rows of {table.name}: {lead.min()} comes after {self._last}")
        self._last = lead.max()
        self._waiting.append(frame)
        is_full = sum(map(len, self._waiting)) + sum(map(len, self._typed)) >= ROWS_A_GROUP
        if is_full or len(self._waiting) >= FRAMES_A_BATCH:
            self._type()
        if is_full:
            self._write()

    def finish(self) -> bytes:
        """The bytes of the table; nothing can be added any more."""
        if self._waiting:
            self._type()
        if self._typed:
            self._write()
        self._writer.close()
        return self._buffer.getvalue()

    def _type(self) -> None:
        frame = pd.concat(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting = []
        columns = self._table.columns
        arrays = [_column(self._table, name, frame[name]) for name in columns]
        self._typed.append(pa.Table.from_arrays(arrays, names=list(columns)).combine_chunks())

    def _write(self) -> None:
        rows, self._typed = pa.concat_tables(self._typed), []
        order = [(name, "ascending") for name in _order(self._table)]
        self._writer.write_table(rows.take(pc.sort_indices(rows, sort_keys=order)))


def from_parquet(data: bytes) -> pd.DataFrame:
    """What `to_parquet` was given, sorted and typed."""
    return pq.read_table(io.BytesIO(data)).to_pandas()


def in_order(table: Table, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows as the table sorts them."""
    return frame.sort_values(_order(table), kind="stable", ignore_index=True)


def _order(table: Table) -> list[str]:
    """The key, then the rest, which breaks ties."""
    return [*table.key, *(name for name in table.columns if name not in table.key)]


def no_rows(table: Table) -> pd.DataFrame:
    columns = {n: pd.Series(dtype=_PANDAS[kind]) for n, kind in table.columns.items()}
    return pd.DataFrame(columns)


def _column(table: Table, name: str, values: pd.Series) -> pa.Array:
    kind, where = table.columns[name], f"{table.name}: {name}"
    if kind == "float":
        return pa.array(values.astype("float64").to_numpy(), type=pa.float64())
    if len(values) == 0:
        return pa.array([], type=_TYPES[kind])
    if values.isna().any():
        raise ValueError(f"{where} has a missing value; only float columns may")
    try:
        if values.dtype.kind == {"int": "i", "bool": "b"}.get(kind) or isinstance(
            values.dtype, pd.StringDtype
        ):
            return pa.array(values, type=_TYPES[kind])
        if kind == "int" and values.dtype.kind == "f":
            return pa.array(values.tolist()).cast(pa.int64())  # refuses what is not whole
        return pa.array(values.tolist(), type=_TYPES[kind])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{where} is not all {kind}: {error}") from error
