"""Tables: same rows, same bytes; wrong rows refused."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pandas as pd
import pytest

from edgesweep.storage import RunDirectory, StorageError
from edgesweep.storage.manifest import entry, write_manifest
from edgesweep.storage.readers import blocks, circuits, results
from edgesweep.storage.tables import (
    CIRCUITS_COLUMNS,
    CIRCUITS_KEY,
    RESULTS_COLUMNS,
    RESULTS_KEY,
    table_bytes,
    table_of,
)

COLUMNS = {"name": "str", "n": "int", "value": "float", "kept": "bool"}
ROWS: list[dict[str, Any]] = [
    {"name": f"r{i % 3}", "n": i, "value": i / 3, "kept": i % 2 == 0} for i in range(30)
]


def test_same_rows_same_bytes() -> None:
    before = table_bytes("t", ROWS, COLUMNS, ["name"])
    for seed in range(5):
        shuffled = random.Random(seed).sample(ROWS, len(ROWS))
        assert table_bytes("t", shuffled, COLUMNS, ["name"]) == before
    columns = pd.DataFrame(ROWS)[["kept", "value", "n", "name"]]
    assert table_bytes("t", columns, COLUMNS, ["name"]) == before


def test_rows_come_back_sorted_and_typed() -> None:
    found = table_of(table_bytes("t", ROWS, COLUMNS, ["name", "n"]))
    expected = sorted(ROWS, key=lambda row: (row["name"], row["n"]))
    assert found.to_dict("records") == expected
    assert list(found.columns) == list(COLUMNS)
    assert found["n"].dtype == np.int64


def test_floats_may_be_nan() -> None:
    rows = [{**ROWS[0], "value": float("nan")}, {**ROWS[1], "value": None}]
    assert table_of(table_bytes("t", rows, COLUMNS, ["name"]))["value"].isna().all()


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
        table_bytes("t", [{**ROWS[0], **change}], COLUMNS, ["name"])


def test_no_rows() -> None:
    found = table_of(table_bytes("t", [], COLUMNS, ["name"]))
    assert (len(found), list(found.columns)) == (0, list(COLUMNS))


def test_a_damaged_table_is_one_line(run: RunDirectory) -> None:
    run.log("driver_started")
    write_manifest(run, {run.results.name: entry(b"as it was written")})
    run.results.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(StorageError, match=r"results.parquet is not as it was written; .*resume"):
        results(run)


def test_before_there_are_results(run: RunDirectory) -> None:
    assert list(results(run).columns) == list(RESULTS_COLUMNS)
    assert list(circuits(run).columns) == list(CIRCUITS_COLUMNS)
    assert len(results(run)) == len(circuits(run)) == len(blocks(run)) == 0


def test_the_contracts_columns() -> None:
    contract = (
        "cell circuit model task subset split nodes method steps build_patch build_metric "
        "aggregation selection threshold ablation eval_patch pruned blocks n_nodes n_edges "
        "n_edges_possible average_degree density metric value value_full value_empty faithfulness "
        "n_inputs"
    )
    assert list(RESULTS_COLUMNS) == contract.split()
    assert set(RESULTS_KEY) < set(RESULTS_COLUMNS)
    assert {"cell", "aggregation", "threshold", "source", "target", "weight"} < {*CIRCUITS_COLUMNS}
    assert set(CIRCUITS_KEY) < set(CIRCUITS_COLUMNS)
