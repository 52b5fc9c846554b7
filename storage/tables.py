"""Parquet tables: same rows, same bytes, whole or not at all.

Rows are sorted, columns have the types given, and nothing that depends on time, machine or attempt
is written.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

Columns = Mapping[str, str]  # name -> str | int | float | bool

_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}

RESULTS_COLUMNS: Columns = {
    "cell": "str",
    "circuit": "str",
    "model": "str",
    "task": "str",
    "subset": "str",
    "split": "str",
    "nodes": "str",
    "method": "str",
    "steps": "int",
    "build_patch": "str",
    "build_metric": "str",
    "aggregation": "str",
    "selection": "str",
    "threshold": "float",
    "ablation": "str",
    "eval_patch": "str",
    "pruned": "bool",
    "blocks": "str",
    "n_nodes": "int",
    "n_edges": "int",
    "n_edges_possible": "int",
    "average_degree": "float",
    "density": "float",
    "metric": "str",
    "value": "float",
    "value_full": "float",
    "value_empty": "float",
    "faithfulness": "float",
    "n_inputs": "int",
}
RESULTS_KEY = ("circuit", "split", "ablation", "eval_patch", "metric", "subset", "blocks")

CIRCUITS_COLUMNS: Columns = {
    "circuit": "str",
    "cell": "str",
    "aggregation": "str",
    "selection": "str",
    "threshold": "float",
    "edge": "int",
    "source": "str",
    "target": "str",
    "weight": "float",
    "ran": "str",
}
CIRCUITS_KEY = ("circuit", "edge")

BLOCKS_COLUMNS: Columns = {
    "circuit": "str",
    "cell": "str",
    "fit": "str",
    "degree_corrected": "bool",
    "level": "int",
    "node": "str",
    "block": "int",
    "label": "str",
    "description_length": "float",
}
BLOCKS_KEY = ("circuit", "fit", "degree_corrected", "level", "node")

MEASURES_COLUMNS: Columns = {
    "cell": "str",
    "model": "str",
    "task": "str",
    "method": "str",
    "steps": "int",
    "rule": "str",
    "build_patch": "str",
    "build_metric": "str",
    "aggregation": "str",
    "selection": "str",
    "ablation": "str",
    "eval_patch": "str",
    "metric": "str",
    "subset": "str",
    "measure": "str",
    "value": "float",
    "low": "float",
    "high": "float",
    "n_inputs": "int",
}
MEASURES_KEY = (
    "cell",
    "aggregation",
    "selection",
    "ablation",
    "eval_patch",
    "metric",
    "subset",
    "measure",
)

ROC_COLUMNS: Columns = {
    "cell": "str",
    "model": "str",
    "task": "str",
    "method": "str",
    "steps": "int",
    "build_patch": "str",
    "build_metric": "str",
    "aggregation": "str",
    "selection": "str",
    "known": "str",
    "point": "int",
    "threshold": "float",
    "fpr": "float",
    "tpr": "float",
    "precision": "float",
}
ROC_KEY = ("cell", "aggregation", "selection", "point")

OVERLAP_COLUMNS: Columns = {
    "across": "str",
    "model": "str",
    "aggregation": "str",
    "cell_a": "str",
    "cell_b": "str",
    "method_a": "str",
    "method_b": "str",
    "task_a": "str",
    "task_b": "str",
    "subset_a": "str",
    "subset_b": "str",
    "seed_a": "int",
    "seed_b": "int",
    "measure": "str",
    "size": "int",
    "value": "float",
    "chance": "float",
    "n": "int",
}
OVERLAP_KEY = (
    "across",
    "model",
    "aggregation",
    "cell_a",
    "cell_b",
    "subset_a",
    "subset_b",
    "measure",
    "size",
)

MINIMALITY_COLUMNS: Columns = {
    "circuit": "str",
    "cell": "str",
    "edge": "int",
    "source": "str",
    "target": "str",
    "metric": "str",
    "drop": "float",
    "low": "float",
    "high": "float",
}
MINIMALITY_KEY = ("circuit", "metric", "edge")

INTERPOLATION_COLUMNS: Columns = {
    "cell": "str",
    "model": "str",
    "task": "str",
    "edge": "int",
    "source": "str",
    "target": "str",
    "metric": "str",
    "fraction": "float",
    "change": "float",
    "estimate": "float",
    "n_inputs": "int",
}
INTERPOLATION_KEY = ("cell", "metric", "edge", "fraction")

KNOWN_COLUMNS: Columns = {
    "model": "str",
    "task": "str",
    "known": "str",
    "level": "str",
    "edge": "int",
    "source": "str",
    "target": "str",
}
KNOWN_KEY = ("model", "task", "edge")


def table_bytes(
    name: str,
    rows: pd.DataFrame | Sequence[Mapping[str, Any]],
    columns: Columns,
    sort_by: Sequence[str],
) -> bytes:
    """`rows` as Parquet, sorted by `sort_by` (the rest of the columns break ties).

    A value may be missing (None) only in float columns, where it becomes NaN. Raises ValueError
    for a row with a missing, unknown or wrongly typed column.
    """
    buffer = io.BytesIO()
    pq.write_table(_table(rows, columns, sort_by, name), buffer, compression="zstd")
    return buffer.getvalue()


def _table(
    rows: pd.DataFrame | Sequence[Mapping[str, Any]],
    columns: Columns,
    sort_by: Sequence[str],
    table: str,
) -> pa.Table:
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if len(frame.columns) == 0:
        frame = pd.DataFrame(columns=list(columns))
    wrong = set(frame.columns) ^ set(columns)
    if wrong:
        raise ValueError(f"rows of {table}: columns missing or unknown: {sorted(wrong)}")
    order = [*sort_by, *(name for name in columns if name not in sort_by)]
    frame = frame.sort_values(order, kind="stable", ignore_index=True)
    arrays = [_column(frame[name], kind, f"{table}: {name}") for name, kind in columns.items()]
    return pa.Table.from_arrays(arrays, names=list(columns))


def _column(values: pd.Series, kind: str, where: str) -> pa.Array:
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


def table_of(data: bytes) -> pd.DataFrame:
    """What `table_bytes` was given, sorted and typed."""
    return pq.read_table(io.BytesIO(data)).to_pandas()


def empty_table(columns: Columns) -> pd.DataFrame:
    """No rows."""
    return pd.DataFrame({name: pd.Series(dtype=_pandas_type(columns[name])) for name in columns})


def _pandas_type(kind: str) -> str:
    return {"str": "str", "int": "int64", "float": "float64", "bool": "bool"}[kind]
