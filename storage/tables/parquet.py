"""Rows of a table as Parquet: same rows, same bytes.

Rows are sorted, columns have the table's types, and nothing that depends on time, machine or
attempt is written.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from edgesweep.storage.tables.registry import Table

Rows = pd.DataFrame | Sequence[Mapping[str, Any]]

_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
_PANDAS = {"str": "str", "int": "int64", "float": "float64", "bool": "bool"}


def to_parquet(table: Table, rows: Rows) -> bytes:
    """`rows` sorted by the table's key (the rest of the columns break ties).

    A value may be missing (None) only in float columns, where it becomes NaN. Raises ValueError
    for a row with a missing, unknown or wrongly typed column.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if len(frame.columns) == 0:
        frame = no_rows(table)
    if wrong := set(frame.columns) ^ set(table.columns):
        raise ValueError(f"rows of {table.name}: columns missing or unknown: {sorted(wrong)}")
    frame = in_order(table, frame)
    arrays = [_column(table, name, frame[name]) for name in table.columns]
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays(arrays, names=list(table.columns)), buffer, compression="zstd"
    )
    return buffer.getvalue()


def from_parquet(data: bytes) -> pd.DataFrame:
    """What `to_parquet` was given, sorted and typed."""
    return pq.read_table(io.BytesIO(data)).to_pandas()


def in_order(table: Table, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows as the table sorts them."""
    order = [*table.key, *(name for name in table.columns if name not in table.key)]
    return frame.sort_values(order, kind="stable", ignore_index=True)


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
        if kind == "int" and values.dtype.kind == "f":
            return pa.array(values.tolist()).cast(pa.int64())  # refuses what is not whole
        return pa.array(values.tolist(), type=_TYPES[kind])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{where} is not all {kind}: {error}") from error
