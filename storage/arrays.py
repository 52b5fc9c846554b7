"""Zarr arrays, written so that a crash cannot pass for data. The only module that imports zarr.

1. The driver creates every array before an actor starts; workers only open them.
2. A block of rows is written whole, by one writer, on chunk borders: two writers in one chunk lose
   half of their rows without a word.
3. Chunks carry crc32c; unwritten floats read as NaN; empty chunks are written. A chunk that is
   there still proves nothing: only a commit record does.
4. `write_rows` returns the crc32 of the raw bytes after the chunk files and their folders are
   durable; the record keeps it, and `verify` reads back against it.

Names are paths inside a store, "cell/scores". Metadata is never consolidated.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import ContainsArrayError, ContainsGroupError

from storage.atomic import fsync_files, fsync_folder
from storage.errors import StorageError, storage_errors

Array = zarr.Array
_WRITE_EMPTY: Any = {"write_empty_chunks": True}  # not stored by zarr: to be given at every open


def create_array(
    store: Path,
    name: str,
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: str = "float32",
    *,
    compress: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Creates an array with nothing in it: floats NaN, all else 0. Does nothing if the same array
    is there. Dense scores barely compress; `compress` (zstd) pays for sparse and bool arrays.
    Raises StorageError if the array there has another shape, chunks or type, or on disk errors."""
    shape, chunks = tuple(shape), tuple(max(1, c) for c in chunks)
    if not (store / name / "zarr.json").exists():
        _create(store / name, shape, chunks, dtype, compress, dict(attributes or {}))
    _check_same(open_array(store, name), store / name, shape, chunks, dtype)
    _mend_groups(store, name)


def _create(
    folder: Path,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: str,
    compress: bool,
    attributes: dict[str, Any],
) -> None:
    """As a store of its own: Zarr makes the groups above an array with hard links, which not every
    disk has."""
    codecs = [ZstdCodec(level=3), Crc32cCodec()] if compress else [Crc32cCodec()]
    with storage_errors(folder):
        with suppress(ContainsArrayError):  # another driver has just made it
            zarr.create_array(
                folder,
                shape=shape,
                chunks=chunks,
                dtype=dtype,
                fill_value=math.nan if np.dtype(dtype).kind == "f" else np.zeros((), dtype).item(),
                compressors=codecs,
                attributes=attributes,
                config=_WRITE_EMPTY,
            )
        fsync_files([folder / "zarr.json"], folder)


def _open_group(folder: Path) -> zarr.Group:
    """Makes it if it is not there; of two drivers that make it at once one finds it made."""
    try:
        return zarr.open_group(folder, mode="a", use_consolidated=False)
    except ContainsGroupError:
        return zarr.open_group(folder, mode="r+", use_consolidated=False)


def _check_same(
    array: Array, path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str
) -> None:
    there = (array.shape, array.chunks, array.dtype)
    if there != (shape, chunks, np.dtype(dtype)):
        raise StorageError(
            f"{path} is an array of shape {there[0]}, chunks {there[1]}, {there[2]}; the plan has "
            f"{shape}, {chunks}, {dtype}; start the run in another folder"
        )


def _mend_groups(store: Path, name: str) -> None:
    """The groups above an array; a driver that was killed may have left it without."""
    parents = [store / parent for parent in reversed(Path(name).parents)]
    for folder in [f for f in parents if not (f / "zarr.json").exists()]:
        with storage_errors(folder):
            _open_group(folder)
            fsync_files([folder / "zarr.json"], store)


def open_array(store: Path, name: str, mode: str = "r") -> Array:
    """mode "r", or "r+" for a worker that will write. Raises StorageError if it is not there."""
    if mode not in ("r", "r+"):
        raise ValueError(f"mode is {mode!r}; it is r or r+ (create_array creates)")
    path = store / name
    if not (path / "zarr.json").is_file():
        raise StorageError(f"{path}: no such array; the driver creates it before work starts")
    with storage_errors(path, "read"):
        array: Any = zarr.open_array(path, mode=mode)
        return array.with_config(_WRITE_EMPTY)


def has_array(store: Path, name: str) -> bool:
    return (store / name / "zarr.json").is_file()


def crc_of(values: np.ndarray) -> int:
    """crc32 of the raw little-endian bytes in C order."""
    values = np.ascontiguousarray(values)
    return zlib.crc32(values.astype(values.dtype.newbyteorder("<"), copy=False).data.cast("B"))


def write_rows(array: Array, start: int, values: np.ndarray) -> int:
    """Writes rows [start, start+len(values)) over all other axes and makes them durable.

    Returns the crc32 of the raw bytes. Raises ValueError unless the block begins and ends on chunk
    borders (or at the array's end) and has the array's type, and StorageError on disk errors.
    """
    stop = start + len(values)
    _check_block(array, start, stop, values)
    folder = _folder(array)
    with storage_errors(folder):
        array[start:stop] = values
        fsync_files((folder / key for key in chunk_keys(array, start, stop)), folder)
    return crc_of(values)


def _check_block(array: Array, start: int, stop: int, values: np.ndarray) -> None:
    name, n_rows, per_chunk = _folder(array), array.shape[0], array.chunks[0]
    if values.dtype != array.dtype or values.shape[1:] != array.shape[1:]:
        raise ValueError(
            f"{name} holds rows {array.shape[1:]} of {array.dtype}; "
            f"the block has {values.shape[1:]} of {values.dtype}"
        )
    ends_well = stop == n_rows or stop % per_chunk == 0
    if start < 0 or start % per_chunk or not ends_well or stop > n_rows or stop <= start:
        raise ValueError(
            f"rows {start}..{stop} of {name} do not fill whole chunks of {per_chunk} rows "
            f"(of {n_rows}): two writers in one chunk lose each other's rows; align the shards"
        )


def _folder(array: Array) -> Path:
    store: Any = array.store
    return Path(store.root) / array.path


def chunk_keys(array: Array, start: int, stop: int) -> list[str]:
    """Files, relative to the array's folder, that rows [start, stop) lie in."""
    metadata: Any = array.metadata
    rows = range(start // array.chunks[0], -(-stop // array.chunks[0]))
    others = [
        range(-(-size // chunk))
        for size, chunk in zip(array.shape[1:], array.chunks[1:], strict=True)
    ]
    return [metadata.encode_chunk_key(index) for index in itertools.product(rows, *others)]


def read_rows(array: Array, start: int, stop: int) -> np.ndarray:
    """Rows [start, stop) as stored. Raises StorageError where a chunk is missing or its checksum is
    wrong; NaN fill never passes for data here."""
    folder = _folder(array)
    missing = [key for key in chunk_keys(array, start, stop) if not (folder / key).is_file()]
    if missing:
        raise StorageError(
            f"{folder / missing[0]}: the chunk is missing; resume the run to redo it"
        )
    with storage_errors(folder, "read"):
        try:
            return np.asarray(array[start:stop])
        except (ValueError, RuntimeError) as error:
            raise StorageError(
                f"{folder}: rows {start}..{stop} are damaged ({error}); resume the run to redo them"
            ) from error


def verify(array: Array, start: int, rows: int, crc: int) -> bool:
    """Whether rows [start, start+rows) are there and are the bytes that `crc` was taken of."""
    try:
        return crc_of(read_rows(array, start, start + rows)) == crc
    except StorageError:
        return False


def write_static(
    store: Path, name: str, values: np.ndarray, attributes: Mapping[str, Any] | None = None
) -> None:
    """Writes a small array that the plan fixes (edge tables), in one chunk. Driver only."""
    create_array(store, name, values.shape, values.shape, values.dtype.name, attributes=attributes)
    if values.size:
        write_rows(open_array(store, name, "r+"), 0, values)


def read_static(store: Path, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The values and the attributes of what `write_static` wrote."""
    array = open_array(store, name)
    values = read_rows(array, 0, array.shape[0]) if array.size else np.asarray(array[...])
    return values, dict(array.attrs)


def make_store(store: Path) -> None:
    """An empty Zarr store. Driver only."""
    with storage_errors(store):
        _open_group(store)
        fsync_folder(store)
