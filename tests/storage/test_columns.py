"""Blocks of some columns, as shards of some circuits write them, and circuits as bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgesweep.storage import RunDirectory, StorageError, layout
from edgesweep.storage.arrays import create_array, open_array, write_rows
from edgesweep.storage.blocks import is_sound, read_block, write_block
from edgesweep.storage.packing.masks import read_masks, write_masks
from edgesweep.storage.readers import Committed

STORE, NAME = layout.EVALUATIONS, "c/values"


@pytest.fixture
def run(run: RunDirectory) -> RunDirectory:
    create_array(run.evaluations, NAME, (6, 5, 2), (4, 2, 2), "float64")
    return run


def values(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns, 2))


def chunks(path: Path) -> int:
    return sum(f.is_file() and f.name != "zarr.json" for f in path.rglob("*"))


def test_columns_are_a_block_of_their_own(run: RunDirectory) -> None:
    whole = values(6, 5)
    writes = [
        write_block(run, STORE, NAME, start, whole[start : start + n, first : first + k], first)
        for start, n in ((0, 4), (4, 2))
        for first, k in ((0, 2), (2, 2), (4, 1))
    ]
    assert chunks(run.path / "evaluations.zarr" / NAME) == len(writes) == 6
    assert is_sound(run, {"writes": writes})
    assert read_block(run, writes[1]).tobytes() == np.ascontiguousarray(whole[:4, 2:4]).tobytes()
    committed = Committed(run)
    committed.add({"writes": writes})
    assert (committed.read(STORE, NAME) == whole).all()
    assert (committed.row(STORE, NAME, 5) == whole[5]).all()
    assert [start for start, _ in committed.blocks(STORE, NAME)] == [0, 4]
    for columns in ((0, 5), (1, 3), (4, 5)):
        rows = np.concatenate([r for _, r in committed.blocks(STORE, NAME, columns)])
        assert (rows == whole[:, slice(*columns)]).all()


def test_columns_that_are_not_committed_are_no_numbers(run: RunDirectory) -> None:
    committed = Committed(run)
    committed.add({"writes": [write_block(run, STORE, NAME, 0, values(4, 2), 2)]})
    with pytest.raises(StorageError, match="values: 5 of 6 rows are not committed"):
        committed.read(STORE, NAME)
    partly = committed.read(STORE, NAME, partly=True)
    assert np.isfinite(partly).any(-1).any(0).tolist() == [False, False, True, True, False]
    assert list(committed.blocks(STORE, NAME)) == []
    assert len(list(committed.blocks(STORE, NAME, (3, 4)))) == 1
    with pytest.raises(StorageError, match="row 0 is not committed"):
        committed.row(STORE, NAME, 0)


@pytest.mark.parametrize(("first", "n"), [(1, 2), (0, 3), (4, 2), (3, 2)])
def test_columns_fill_whole_chunks(run: RunDirectory, first: int, n: int) -> None:
    with pytest.raises(ValueError, match=r"columns \d..\d of .* do not fill whole chunks of 2"):
        write_rows(open_array(run.evaluations, NAME, "r+"), 0, values(4, n), first)
    assert chunks(run.path / "evaluations.zarr" / NAME) == 0


@pytest.mark.parametrize("n_edges", [1, 7, 8, 9, 1000])
def test_masks_come_back(run: RunDirectory, n_edges: int) -> None:
    rng = np.random.default_rng(n_edges)
    masks = {f"circuit {i}": rng.random(n_edges) < 0.3 for i in range(3)}
    write_masks(run, "c/selected", masks)
    found = read_masks(run, "c/selected")
    assert found.circuits == tuple(masks)
    assert all((found[key] == mask).all() for key, mask in masks.items())
    with pytest.raises(StorageError, match="no mask of circuit other"):
        found["other"]
