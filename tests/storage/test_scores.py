"""Scores as they are stored: bits, shares, chunks; and partials, packed, folded in two levels."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from edgesweep.storage import RunDirectory, StorageError, fold, layout
from edgesweep.storage.arrays import create_array, create_arrays, open_array
from edgesweep.storage.blocks import is_sound, read_block, write_block
from edgesweep.storage.packing import scores as packing
from edgesweep.storage.packing.scores import chunk_columns, largest, round_bits, write_scores
from edgesweep.storage.readers import Committed, scores, stored_scores
from edgesweep.sweeps.config.schema import Scores
from tests.storage.test_fold import awkward_scores

N, EDGES = 6, 1000


def some_scores(rows: int = N, edges: int = EDGES) -> np.ndarray:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((rows, edges)) * 10.0 ** rng.normal(-3, 1, (rows, edges))
    return scores.astype(np.float32)


# --- bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 4, 7, 10, 22])
def test_rounding_is_to_nearest_and_bounded(bits: int) -> None:
    scores = some_scores()
    rounded = round_bits(scores, bits)
    assert (np.abs(rounded - scores) <= 2.0 ** -(bits + 1) * np.abs(scores)).all()
    assert not (rounded.view(np.uint32) & ((1 << (23 - bits)) - 1)).any()
    assert round_bits(rounded, bits).tobytes() == rounded.tobytes()


def test_rounding_is_half_to_even_and_leaves_what_is_no_number() -> None:
    # with 2 bits: 1, 1.25, 1.5, 1.75, 2, …; 1.125 and 1.375 lie in the middle
    assert round_bits(np.float32([[1.125, 1.375, 1.2]]), 2).tolist() == [[1.0, 1.5, 1.25]]
    strange = np.array([[np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0]], np.float32)
    assert round_bits(strange, 3).tobytes() == strange.tobytes()
    ends = np.float32([[np.finfo(np.float32).max, np.finfo(np.float32).min]])
    assert np.isfinite(round_bits(ends, 3)).all()
    assert round_bits(strange, 23) is strange


# --- shares -----------------------------------------------------------------------------------


def test_the_largest_are_kept_and_the_others_summed() -> None:
    rows = np.float32([[1, -5, 3, 3, 0, -3], [0, 0, 0, 0, 0, 0], [1, np.nan, 2, -np.inf, 3, 4]])
    found = largest(rows, 3)
    assert found["edge"].tolist() == [[1, 2, 3], [0, 1, 2], [1, 3, 5]]
    np.testing.assert_array_equal(found["score"], [[-5, 3, 3], [0, 0, 0], [np.nan, -np.inf, 4]])
    assert found["dropped"].tolist() == [4, 0, 6]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9999])
def test_no_score_that_is_dropped_is_larger_than_one_that_is_kept(share: float) -> None:
    scores = some_scores()
    found = largest(scores, packing.n_kept(Scores(keep=share), EDGES))
    assert found["edge"].shape[1] == round(share * EDGES)
    for row, edges, kept, dropped in zip(scores, *found.values(), strict=True):
        assert (row[edges] == kept).all()
        rest = np.delete(np.abs(row), edges)
        assert (np.diff(edges.astype(int)) > 0).all()
        assert rest.max(initial=0) <= np.abs(kept).min()
        assert dropped == pytest.approx(rest.sum(dtype=np.float64))


# --- in a run ---------------------------------------------------------------------------------


def made(path: Path, how: Scores) -> RunDirectory:
    config = {"name": "toy", "scores": how.model_dump()}
    return RunDirectory.create(path / "run", config, {"run_id": "toy-1", "stages": {}})


def stored(run: RunDirectory, how: Scores, scores: np.ndarray, rows: int = 4) -> np.ndarray:
    """What is read again of scores that were written in blocks of rows."""
    create_arrays(packing.planned_scores(run, "c", scores.shape, rows, how))
    committed = Committed(run)
    for start in range(0, len(scores), rows):
        writes = write_scores(run, "c", start, scores[start : start + rows], how)
        assert is_sound(run, {"writes": writes})
        committed.add({"writes": writes})
    return stored_scores(committed, "c", scores.shape[1])


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("keep", ["all", 0.1])
@pytest.mark.parametrize("bits", [23, 7])
def test_what_is_stored_comes_back(tmp_path: Path, codec: str, keep: object, bits: int) -> None:
    scores, how = some_scores(), Scores(keep=keep, bits=bits, codec=codec)
    found = stored(made(tmp_path, how), how, scores)
    there = np.isfinite(found)
    assert (there.sum(1) == (EDGES if keep == "all" else 100)).all()
    wanted = round_bits(scores, bits)
    assert (found[there] == wanted[there]).all()


def test_fewer_bits_and_edges_are_smaller(tmp_path: Path) -> None:
    """On numbers without any structure; real scores: benchmarks/scores.py."""
    sizes = {}
    for name, how in {
        "all": Scores(),
        "bits": Scores(bits=7, codec="lz4"),
        "share": Scores(keep=0.1, bits=7, codec="lz4"),
    }.items():
        other = made(tmp_path / name, how)
        stored(other, how, some_scores(16, 20_000), rows=16)
        files = [f for f in other.path.rglob("attributions.zarr/**/c/*/*") if f.is_file()]
        sizes[name] = sum(f.stat().st_size for f in files)
    assert sizes["all"] / sizes["bits"] > 1.7
    assert sizes["all"] / sizes["share"] > 8


def test_none_is_nothing_and_says_so(tmp_path: Path) -> None:
    run = made(tmp_path, Scores(keep="none"))
    with pytest.raises(StorageError, match=r"scores\.keep is none, so scores of single prompts"):
        stored(run, Scores(keep="none"), some_scores())
    with pytest.raises(StorageError, match=r"scores\.keep is none, so not all scores are stored"):
        scores(run, "c")
    assert not list(run.path.rglob("attributions.zarr/**/c/*"))


# --- chunks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 16, 256, 10**6])
@pytest.mark.parametrize("columns", [10, 70_651, 16_650_000])
def test_no_chunk_is_large(rows: int, columns: int) -> None:
    step = chunk_columns(rows, columns)
    assert step == columns or 4 * rows * step > 16 * 2**20 or rows * 4 > 16 * 2**20
    assert 4 * rows * step <= 32 * 2**20 or step == 1


def test_a_chunk_has_a_crc_of_its_own(run: RunDirectory) -> None:
    """A range of edges reads its chunks alone, and finds a damaged one among them."""
    scores = some_scores(4, 10)
    create_array(run.attributions, "c/scores", (4, 10), (4, 4))
    write = write_block(run, layout.ATTRIBUTIONS, "c/scores", 0, scores)
    assert write["step"] == 4
    assert len(write["crcs"]) == 3
    for low, high in itertools.combinations(range(11), 2):
        assert (read_block(run, write, (low, high)) == scores[:, low:high]).all()
    assert (read_block(run, write) == scores).all()
    other = some_scores(4, 10)[::-1].copy()
    array = open_array(run.attributions, "c/scores", "r+")
    array[:, 4:8] = other[:, 4:8]
    assert (read_block(run, write, (0, 4)) == scores[:, :4]).all()
    assert (read_block(run, write, (8, 10)) == scores[:, 8:]).all()
    with pytest.raises(StorageError, match="not what was committed"):
        read_block(run, write, (3, 5))
    assert not is_sound(run, {"writes": [write]})


# --- partials ---------------------------------------------------------------------------------


def test_a_packed_partial_is_the_partial() -> None:
    partial = fold.partial(awkward_scores(33, 40, 1))
    words = fold.pack(partial)
    assert words.nbytes == 40 * 40
    assert fold.unpack(words).tobytes() == partial.tobytes()
    empty = fold.empty_partial(3)
    assert fold.unpack(fold.pack(empty)).tobytes() == empty.tobytes()


def leaves(n: int) -> list[np.ndarray]:
    return [fold.partial(awkward_scores(3, 12, seed)) for seed in range(n)]


@pytest.mark.parametrize("n", [1, 2, 5, 8, 13, 21])
@pytest.mark.parametrize("block", [1, 2, 4, 8])
def test_blocks_of_leaves_fold_to_the_same_bits(n: int, block: int) -> None:
    """A shard of some leaves is a node of the tree: however the inputs are cut, however deep, in
    whatever order blocks come, over whatever range of edges."""
    parts = leaves(n)
    whole = fold.fold(enumerate(parts), n, 12)
    blocks = [parts[i : i + block] for i in range(0, n, block)]
    nodes = [fold.fold(enumerate(some), len(some), 12) for some in blocks]
    nodes = [fold.unpack(fold.pack(node)) for node in nodes]
    order = np.random.default_rng(n).permutation(len(nodes)).tolist()
    assert fold.fold(((i, nodes[i]) for i in order), len(nodes), 12).tobytes() == whole.tobytes()
    ranged = [
        fold.fold(((i, node[:, low : low + 5]) for i, node in enumerate(nodes)), len(nodes), 5)
        for low in (0, 5)
    ]
    assert np.concatenate(ranged, axis=1).tobytes() == whole[:, :10].tobytes()
