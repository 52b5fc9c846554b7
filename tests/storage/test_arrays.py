"""Arrays: aligned blocks, durable chunks, damage found, missing rows never read as data."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from edgesweep.storage import StorageError
from edgesweep.storage.arrays import (
    create_array,
    open_array,
    read_rows,
    read_static,
    verify,
    write_rows,
    write_static,
)
from edgesweep.storage.stores import Place, place


@pytest.fixture
def store(tmp_path: Path) -> Place:
    create_array(place(tmp_path / "a.zarr"), "cell/scores", (10, 6), (4, 6))
    return place(tmp_path / "a.zarr")


def folder(store: Place) -> Path:
    return Path(str(store))


def block(rows: int, seed: int = 0, edges: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, edges)).astype(np.float32)


def chunk(store: Place, name: str = "cell/scores", key: str = "c/0/0") -> Path:
    return folder(store) / name / key


def test_rows_come_back(store: Place) -> None:
    array = open_array(store, "cell/scores", "r+")
    crc = write_rows(array, 4, block(4))
    assert verify(array, 4, 4, crc)
    assert read_rows(array, 4, 8).tobytes() == block(4).tobytes()


def test_missing_rows_are_no_rows(store: Place) -> None:
    array = open_array(store, "cell/scores")
    with pytest.raises(StorageError, match="c/0/0: the chunk is missing; resume the run"):
        read_rows(array, 0, 4)
    nan = np.full((4, 6), np.nan, np.float32)
    assert not verify(array, 0, 4, write_rows(open_array(store, "cell/scores", "r+"), 4, nan))


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_empty_chunks_are_written(store: Place, value: float) -> None:
    """zarr leaves out a chunk that is all fill unless told at every open."""
    array = open_array(store, "cell/scores", "r+")
    crc = write_rows(array, 0, np.full((4, 6), value, np.float32))
    assert chunk(store).exists()
    assert verify(array, 0, 4, crc)


@pytest.mark.parametrize(
    ("start", "rows"), [(1, 4), (0, 3), (4, 2), (2, 2), (8, 3), (8, 1), (-4, 4), (4, 0), (12, 4)]
)
def test_a_block_fills_whole_chunks(store: Place, start: int, rows: int) -> None:
    with pytest.raises(ValueError, match="do not fill whole chunks of 4 rows"):
        write_rows(open_array(store, "cell/scores", "r+"), start, block(rows))
    assert not list(folder(store).rglob("c/*/*"))


@pytest.mark.parametrize(("start", "rows"), [(0, 4), (4, 4), (8, 2), (0, 8), (4, 6), (0, 10)])
def test_aligned_blocks(store: Place, start: int, rows: int) -> None:
    array = open_array(store, "cell/scores", "r+")
    assert verify(array, start, rows, write_rows(array, start, block(rows)))


def test_a_block_has_the_type_and_width_of_the_array(store: Place) -> None:
    array = open_array(store, "cell/scores", "r+")
    with pytest.raises(
        ValueError, match=r"rows \(6,\) of float32; the block has \(6,\) of float64"
    ):
        write_rows(array, 0, block(4).astype(np.float64))
    with pytest.raises(ValueError, match=r"the block has \(5,\) of float32"):
        write_rows(array, 0, block(4)[:, :5])


def test_every_flipped_bit_is_found(store: Place) -> None:
    array = open_array(store, "cell/scores", "r+")
    crc = write_rows(array, 0, block(4))
    sound = chunk(store).read_bytes()
    for bit in range(0, len(sound) * 8, 13):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        chunk(store).write_bytes(damaged)
        assert not verify(array, 0, 4, crc), bit
    chunk(store).write_bytes(sound[:-9])
    assert not verify(array, 0, 4, crc)
    chunk(store).write_bytes(b"")
    assert not verify(array, 0, 4, crc)
    chunk(store).write_bytes(sound)
    assert verify(array, 0, 4, crc)
    chunk(store).unlink()
    assert not verify(array, 0, 4, crc)


def test_damage_is_an_error_that_names_the_place(store: Place) -> None:
    array = open_array(store, "cell/scores", "r+")
    write_rows(array, 0, block(4))
    chunk(store).write_bytes(b"x" * 100)
    with pytest.raises(StorageError, match=r"scores: rows 0\.\.4 are damaged .*resume the run"):
        read_rows(array, 0, 4)


def test_another_shards_bytes_are_not_this_shards(store: Place) -> None:
    """Both chunks are sound by their own checksum; only the record's crc tells them apart."""
    array = open_array(store, "cell/scores", "r+")
    crc = write_rows(array, 0, block(4, seed=1))
    write_rows(array, 4, block(4, seed=2))
    os.replace(chunk(store, key="c/1/0"), chunk(store))
    assert not verify(array, 0, 4, crc)


def test_files_are_synced_before_the_crc_is_returned(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_rows(open_array(store, "cell/scores", "r+"), 0, block(8))
    here = str(store / "cell/scores")
    found = {re.sub(r"\.tmp-.*", "FILE", p.removeprefix(here)) for p in synced}
    assert found == {"", "/c", "/c/0", "/c/1", "/c/0/FILE", "/c/1/FILE"}


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("bool", np.eye(6, dtype=bool)), ("float64", np.eye(6)), ("int64", np.eye(6, dtype=np.int64))],
)
@pytest.mark.parametrize("compress", [False, True])
def test_masks_partials_and_counts(
    tmp_path: Path, dtype: str, values: np.ndarray, compress: bool
) -> None:
    create_array(place(tmp_path), "x", (6, 6), (2, 6), dtype, compress=compress)
    array = open_array(place(tmp_path), "x", "r+")
    crc = write_rows(array, 2, values[2:4])
    assert verify(array, 2, 2, crc)
    zeros = write_rows(array, 4, np.zeros((2, 6), dtype))
    assert verify(array, 4, 2, zeros)


def test_partials_are_chunked_over_edges_and_written_by_shard(tmp_path: Path) -> None:
    create_array(place(tmp_path), "p", (3, 7, 10), (1, 7, 4), "float64")
    array = open_array(place(tmp_path), "p", "r+")
    values = np.random.default_rng(0).standard_normal((1, 7, 10))
    crc = write_rows(array, 1, values)
    found = sorted(
        path.relative_to(tmp_path / "p").as_posix() for path in tmp_path.rglob("c/*/*/*")
    )
    assert found == ["c/1/0/0", "c/1/0/1", "c/1/0/2"]
    assert verify(array, 1, 1, crc)
    (tmp_path / "p/c/1/0/2").unlink()
    assert not verify(array, 1, 1, crc)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "no JSON": lambda data: b"[" * 9999,
    "a list": lambda data: b"[]",
    "nothing in it": lambda data: b"{}",
    "another shape": lambda data: data.replace(b"10,", b"90,"),
    "another kind": lambda data: data.replace(b'"array"', b'"group"'),
    "another type": lambda data: data.replace(b"float32", b"float64"),
    "no type": lambda data: data.replace(b"float32", b"float31"),
    "no codec": lambda data: data.replace(b"crc32c", b"crc33c"),
    "no version": lambda data: data.replace(b'"zarr_format": 3', b'"zarr_format": 7'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_metadata_is_one_line_and_creating_again_mends_it(
    store: Place, damage: str
) -> None:
    """The chunks stay, and what they hold is what counts."""
    crc = write_rows(open_array(store, "cell/scores", "r+"), 0, block(4))
    metadata = folder(store) / "cell/scores/zarr.json"
    sound = metadata.read_bytes()
    metadata.write_bytes(DAMAGE[damage](sound))
    assert metadata.read_bytes() != sound
    if damage == "another shape":  # which the rows that are there do not show
        assert verify(open_array(store, "cell/scores"), 0, 4, crc)
    else:
        with pytest.raises(StorageError, match=r"^[^\n]*resume the run[^\n]*$"):
            read_rows(open_array(store, "cell/scores"), 0, 4)
    for name in ("", "cell"):
        (folder(store) / name / "zarr.json").write_bytes(b"{")
    create_array(store, "cell/scores", (10, 6), (4, 6))
    assert metadata.read_bytes() == sound
    assert verify(open_array(store, "cell/scores"), 0, 4, crc)
    assert np.asarray(zarr.open_group(folder(store), mode="r")["cell/scores"]).shape == (10, 6)


def test_workers_open_what_the_driver_made(store: Place) -> None:
    with pytest.raises(StorageError, match="no such array; resume the run"):
        open_array(store, "cell/other", "r+")
    with pytest.raises(ValueError, match="mode is 'w'"):
        open_array(store, "cell/scores", "w")
    with pytest.raises(ValueError, match="read-only"):
        write_rows(open_array(store, "cell/scores"), 0, block(4))


def test_same_calls_same_bytes_and_nothing_consolidated(tmp_path: Path) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        create_array(place(folder), "b/y", (4, 3), (2, 3), attributes={"z": 1, "a": [2]})
        create_array(place(folder), "a/x", (4, 3), (2, 3))
        write_rows(open_array(place(folder), "a/x", "r+"), 0, block(4, edges=3))
        files = [p for p in folder.rglob("*") if p.is_file()]
        return {str(p.relative_to(folder)): p.read_bytes() for p in files}

    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two
    assert not any(b"consolidated" in data for data in one.values())
    assert b"crc32c" in one["a/x/zarr.json"]


def test_a_driver_killed_while_creating_is_mended(tmp_path: Path) -> None:
    def create() -> dict[str, bytes]:
        create_array(place(tmp_path / "s"), "cell/all/mean", (4, 3), (2, 3))
        return {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    whole = create()
    assert len(whole) == 4
    for path in whole:
        Path(path).unlink()
        assert create() == whole


def test_plain_zarr_reads_what_we_write(store: Place) -> None:
    write_rows(open_array(store, "cell/scores", "r+"), 0, block(10))
    group: Any = zarr.open_group(folder(store), mode="r")
    assert np.asarray(group["cell/scores"][:]).tobytes() == block(10).tobytes()


def test_static_tables(tmp_path: Path) -> None:
    edges = np.arange(5, dtype=np.int32)
    for _ in range(2):
        write_static(place(tmp_path), "cell/graph/source", edges, {"sources": ["embed", "a0.h0"]})
    values, attributes = read_static(place(tmp_path), "cell/graph/source")
    assert values.tolist() == edges.tolist()
    assert attributes == {"sources": ["embed", "a0.h0"]}


def test_a_static_table_with_another_name_or_value_is_told_and_mended(tmp_path: Path) -> None:
    def write() -> dict[str, bytes]:
        write_static(place(tmp_path), "t", np.arange(5), {"sources": ["embed", "a0.h0"]})
        return {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    whole = write()
    renamed = (tmp_path / "t/zarr.json").read_bytes().replace(b"a0.h0", b"a0.h1")
    (tmp_path / "t/zarr.json").write_bytes(renamed)
    with pytest.raises(StorageError, match="t is not what was written; resume the run to mend it"):
        read_static(place(tmp_path), "t")
    assert write() == whole
    write_rows(
        open_array(place(tmp_path), "t", "r+"), 0, np.arange(1, 6)
    )  # sound by its own checksum
    with pytest.raises(StorageError, match="t is not what was written"):
        read_static(place(tmp_path), "t")
    assert write() == whole
    (tmp_path / "t/c/0").unlink()  # killed between the array and its chunk
    assert write() == whole


def test_static_tables_without_rows(tmp_path: Path) -> None:
    write_static(place(tmp_path), "t", np.zeros((0, 2), np.int64), {"names": []})
    values, attributes = read_static(place(tmp_path), "t")
    assert (values.shape, attributes) == ((0, 2), {"names": []})
