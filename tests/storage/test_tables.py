"""Tables: same rows, same bytes; wrong rows refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from storage import RunDirectory, StorageError
from storage.readers import blocks, circuits, results
from storage.tables import (
    CIRCUITS_COLUMNS,
    CIRCUITS_KEY,
    RESULTS_COLUMNS,
    RESULTS_KEY,
    read_table,
    write_table,
)

COLUMNS = {"name": "str", "n": "int", "value": "float", "kept": "bool"}
ROWS: list[dict[str, Any]] = [
    {"name": f"r{i % 3}", "n": i, "value": i / 3, "kept": i % 2 == 0} for i in range(30)
]


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, ROWS, COLUMNS, ["name"])
    before = path.read_bytes()
    for seed in range(5):
        shuffled = random.Random(seed).sample(ROWS, len(ROWS))
        write_table(path, shuffled, COLUMNS, ["name"])
        assert path.read_bytes() == before
    write_table(path, pd.DataFrame(ROWS)[["kept", "value", "n", "name"]], COLUMNS, ["name"])
    assert path.read_bytes() == before


def test_rows_come_back_sorted_and_typed(tmp_path: Path) -> None:
    write_table(tmp_path / "t", ROWS, COLUMNS, ["name", "n"])
    found = read_table(tmp_path / "t")
    expected = sorted(ROWS, key=lambda row: (row["name"], row["n"]))
    assert found.to_dict("records") == expected
    assert list(found.columns) == list(COLUMNS)
    assert found["n"].dtype == np.int64


def test_floats_may_be_nan(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "value": float("nan")}, {**ROWS[1], "value": None}]
    write_table(tmp_path / "t", rows, COLUMNS, ["name"])
    assert read_table(tmp_path / "t")["value"].isna().all()


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
def test_wrong_rows_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_table(tmp_path / "t", [{**ROWS[0], **change}], COLUMNS, ["name"])
    assert list(tmp_path.iterdir()) == []


def test_no_rows(tmp_path: Path) -> None:
    write_table(tmp_path / "t", [], COLUMNS, ["name"])
    found = read_table(tmp_path / "t")
    assert (len(found), list(found.columns)) == (0, list(COLUMNS))


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(StorageError, match="t is damaged"):
        read_table(tmp_path / "t")


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
