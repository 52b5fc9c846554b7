"""Tables: same rows, same bytes; wrong rows refused."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from edgesweep.storage import RunDirectory, StorageError
from edgesweep.storage.manifest import entry, write_manifest
from edgesweep.storage.tables import (
    BLOCKS,
    CIRCUITS,
    RESULTS,
    TABLES,
    Table,
    TableWriter,
    from_parquet,
    read_table,
    to_parquet,
)

TABLE = Table(
    "t", "a row", {"name": "str", "n": "int", "value": "float", "kept": "bool"}, ("name",)
)
ROWS: list[dict[str, Any]] = [
    {"name": f"r{i % 3}", "n": i, "value": i / 3, "kept": i % 2 == 0} for i in range(30)
]


def test_same_rows_same_bytes() -> None:
    before = to_parquet(TABLE, ROWS)
    for seed in range(5):
        shuffled = random.Random(seed).sample(ROWS, len(ROWS))
        assert to_parquet(TABLE, shuffled) == before
    columns = pd.DataFrame(ROWS)[["kept", "value", "n", "name"]]
    assert to_parquet(TABLE, columns) == before


def test_rows_come_back_sorted_and_typed() -> None:
    found = from_parquet(to_parquet(TABLE, ROWS))
    expected = sorted(ROWS, key=lambda row: (row["name"], row["n"]))
    assert found.to_dict("records") == expected
    assert list(found.columns) == list(TABLE.columns)
    assert found["n"].dtype == np.int64


def test_floats_may_be_nan() -> None:
    rows = [{**ROWS[0], "value": float("nan")}, {**ROWS[1], "value": None}]
    assert from_parquet(to_parquet(TABLE, rows))["value"].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": "three"}, "t: n is not all int"),
        ({"n": 1.5}, "t: n is not all int"),
        ({"name": 3}, "t: name is not all str"),
        ({"name": None}, "t: name has a missing value; only float columns may"),
        ({"kept": "yes"}, "t: kept is not all bool"),
        ({"extra": 1}, r"columns missing or unknown: \['extra'\]"),
    ],
)
def test_wrong_rows_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_parquet(TABLE, [{**ROWS[0], **change}])


def test_rows_that_come_bit_by_bit_are_as_those_that_come_together(monkeypatch) -> None:
    monkeypatch.setattr("edgesweep.storage.tables.parquet.ROWS_A_GROUP", 12)
    writer = TableWriter(TABLE)
    for name in ("r0", "r1", "r2"):
        writer.add([row for row in reversed(ROWS) if row["name"] == name])
    found = writer.finish()
    assert pq.ParquetFile(io.BytesIO(found)).num_row_groups == 2
    assert from_parquet(found).equals(from_parquet(to_parquet(TABLE, ROWS)))


def test_rows_that_come_too_late_are_refused() -> None:
    writer = TableWriter(TABLE)
    writer.add(ROWS[1:2])
    with pytest.raises(ValueError, match="rows of t: r0 comes after r1"):
        writer.add(ROWS[:1])


def test_no_rows() -> None:
    found = from_parquet(to_parquet(TABLE, []))
    assert (len(found), list(found.columns)) == (0, list(TABLE.columns))


def test_a_damaged_table_is_one_line(run: RunDirectory) -> None:
    run.log("driver_started")
    write_manifest(run, {RESULTS.file: entry(b"as it was written")})
    (run.path / RESULTS.file).write_bytes(b"PAR1 and nothing more")
    with pytest.raises(StorageError, match=r"results.parquet is not as it was written; .*resume"):
        read_table(run, RESULTS)


def test_before_there_are_results(run: RunDirectory) -> None:
    for table in (RESULTS, CIRCUITS, BLOCKS):
        found = read_table(run, table)
        assert (len(found), list(found.columns)) == (0, list(table.columns))


def test_the_contracts_columns() -> None:
    contract = (
        "cell circuit model task subset split nodes method steps build_patch build_metric "
        "aggregation selection threshold n_selected ablation eval_patch pruned blocks n_nodes "
        "n_edges n_edges_possible average_degree density n_edges_among_found density_among_found "
        "metric value value_full value_empty faithfulness n_inputs"
    )
    assert list(RESULTS.columns) == contract.split()
    assert {"cell", "aggregation", "threshold", "source", "target", "weight"} < {*CIRCUITS.columns}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_is_sorted_by_columns_of_its_own(table: Table) -> None:
    assert set(table.key) < set(table.columns)
    assert set(table.columns.values()) <= {"str", "int", "float", "bool"}
    assert list(from_parquet(to_parquet(table, [])).columns) == list(table.columns)
