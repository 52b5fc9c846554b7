"""Zarr arrays, written so that a crash cannot pass for data. The only module that imports zarr.

1. The driver creates every array before an actor starts; workers only open them. Metadata follows
   from the plan, and is mended where it is not as planned.
2. A block of rows is written whole, by one writer, on chunk borders: two writers in one chunk lose
   half of their rows without a word.
3. Chunks carry crc32c; unwritten floats read as NaN; empty chunks are written. A chunk that is
   there still proves nothing: only a commit record does.
4. `write_rows` returns the crc32 of the raw bytes after the chunk files and their folders are
   durable; the record keeps it, and `verify` reads back against it.

Names are paths inside a store, "cell/scores". Metadata is never consolidated.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from edgesweep.storage.atomic import fsync_files, replace, to_json
from edgesweep.storage.errors import StorageError, storage_errors

Array = zarr.Array
METADATA = "zarr.json"
DIGEST = "digest"
_WRITE_EMPTY: Any = {"write_empty_chunks": True}  # not stored by zarr: to be given at every open


def create_array(
    store: Path,
    name: str,
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: str = "float32",
    *,
    compress: bool = False,
    codec: str = "none",
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Creates an array with nothing in it: floats NaN, all else 0. Of one that is there the chunks
    stay, and metadata that is not as given (half written, damaged), its groups' too, is written
    anew. Dense scores barely compress; `compress` (zstd) pays for sparse and bool arrays, `codec`
    (Blosc's lz4 or zstd, over shuffled bits) for rounded ones. Raises StorageError on disk
    errors."""
    told = json.dumps(dict(attributes or {}), sort_keys=True)
    chunks = tuple(max(1, c) for c in chunks)
    for parent in reversed(Path(name).parents):
        _put_metadata(store / parent, _group_metadata())
    codec = "plain zstd" if compress else codec
    _put_metadata(store / name, _array_metadata(tuple(shape), chunks, dtype, codec, told))


def _put_metadata(folder: Path, wanted: bytes) -> None:
    path = folder / METADATA
    with storage_errors(path, "read"):
        if path.is_file() and path.read_bytes() == wanted:
            return
    replace(path, wanted)


@cache
def _group_metadata() -> bytes:
    made: Any = {}
    zarr.open_group(made, mode="w", zarr_format=3)
    return made[METADATA].to_bytes()


def _packed(codec: str, dtype: np.dtype) -> list[Any]:
    if codec == "none":
        return []
    if codec == "plain zstd":
        return [ZstdCodec(level=3)]
    how: Any = {"cname": codec, "clevel": 9 if codec == "zstd" else 5, "shuffle": "bitshuffle"}
    return [BloscCodec(**how, typesize=dtype.itemsize, blocksize=0)]


@lru_cache(maxsize=256)  # a run has few kinds of arrays, and many of each
def _array_metadata(
    shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str, codec: str, attributes: str
) -> bytes:
    """What zarr writes for such an array."""
    made: Any = {}
    zarr.create_array(
        made,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=math.nan if np.dtype(dtype).kind == "f" else np.zeros((), dtype).item(),
        compressors=[*_packed(codec, np.dtype(dtype)), Crc32cCodec()],
        attributes=json.loads(attributes),
        zarr_format=3,
    )
    return made[METADATA].to_bytes()


def open_array(store: Path, name: str, mode: str = "r") -> Array:
    """mode "r", or "r+" for a worker that will write. Raises StorageError if it is not there or its
    metadata is damaged."""
    if mode not in ("r", "r+"):
        raise ValueError(f"mode is {mode!r}; it is r or r+ (create_array creates)")
    path = store / name
    if not (path / METADATA).is_file():
        raise StorageError(f"{path}: no such array; resume the run to make it")
    with storage_errors(path, "read"):
        try:
            array: Any = zarr.open_array(path, mode=mode)
            return array.with_config(_WRITE_EMPTY)
        except Exception as error:  # zarr has many kinds for metadata that is none
            if isinstance(error, OSError) and error.errno:
                raise
            raise StorageError(
                f"{path / METADATA} is damaged; resume the run to mend it"
            ) from error


def has_array(store: Path, name: str) -> bool:
    return (store / name / METADATA).is_file()


def crc_of(values: np.ndarray) -> int:
    """crc32 of the raw little-endian bytes in C order."""
    values = np.ascontiguousarray(values)
    return zlib.crc32(values.astype(values.dtype.newbyteorder("<"), copy=False).data.cast("B"))


def write_rows(array: Array, start: int, values: np.ndarray, column: int | None = None) -> int:
    """Writes rows [start, start+len(values)) and makes them durable: over all other axes, or of the
    second axis from `column` on as many as there are values.

    Returns the crc32 of the raw bytes. Raises ValueError unless the block begins and ends on chunk
    borders (or at the array's end) and has the array's type, and StorageError on disk errors.
    """
    stop = start + len(values)
    _check_block(array, start, stop, values, column)
    columns = None if column is None else (column, column + values.shape[1])
    folder = folder_of(array)
    with storage_errors(folder):
        array[_box(start, stop, columns)] = values
        fsync_files((folder / key for key in chunk_keys(array, start, stop, columns)), folder)
    return crc_of(values)


Columns = tuple[int, int]  # of the second axis, from the first to before the last


def _box(start: int, stop: int, columns: Columns | None) -> Any:
    rows = slice(start, stop)
    return rows if columns is None else (rows, slice(*columns))


def _check_block(
    array: Array, start: int, stop: int, values: np.ndarray, column: int | None
) -> None:
    name, n_rows, per_chunk = folder_of(array), array.shape[0], array.chunks[0]
    fixed = 1 if column is None else 2
    if values.dtype != array.dtype or values.shape[fixed:] != array.shape[fixed:]:
        raise ValueError(
            f"{name} holds rows {array.shape[1:]} of {array.dtype}; "
            f"the block has {values.shape[1:]} of {values.dtype}"
        )
    if not _is_aligned(start, stop, n_rows, per_chunk):
        raise ValueError(
            f"rows {start}..{stop} of {name} do not fill whole chunks of {per_chunk} rows "
            f"(of {n_rows}): two writers in one chunk lose each other's rows; align the shards"
        )
    if column is not None:
        end, n, width = column + values.shape[1], array.shape[1], array.chunks[1]
        if not _is_aligned(column, end, n, width):
            raise ValueError(
                f"columns {column}..{end} of {name} do not fill whole chunks of {width} (of {n})"
            )


def _is_aligned(start: int, stop: int, n: int, per_chunk: int) -> bool:
    ends_well = stop == n or stop % per_chunk == 0
    return 0 <= start < stop <= n and start % per_chunk == 0 and ends_well


def folder_of(array: Array) -> Path:
    """Where an array lies."""
    store: Any = array.store
    return Path(store.root) / array.path


def chunk_keys(array: Array, start: int, stop: int, columns: Columns | None = None) -> list[str]:
    """Files, relative to the array's folder, that rows [start, stop) lie in."""
    metadata: Any = array.metadata
    ends = [(start, stop), *((0, size) for size in array.shape[1:])]
    if columns is not None:
        ends[1] = columns
    grid = [
        range(low // chunk, -(-high // chunk))
        for (low, high), chunk in zip(ends, array.chunks, strict=True)
    ]
    return [metadata.encode_chunk_key(index) for index in itertools.product(*grid)]


def read_rows(array: Array, start: int, stop: int, columns: Columns | None = None) -> np.ndarray:
    """Rows [start, stop) as stored, of all columns or of some. Raises StorageError where a chunk is
    missing or its checksum is wrong; NaN fill never passes for data here."""
    folder = folder_of(array)
    keys = chunk_keys(array, start, stop, columns)
    missing = [key for key in keys if not (folder / key).is_file()]
    if missing:
        raise StorageError(
            f"{folder / missing[0]}: the chunk is missing; resume the run to redo it"
        )
    with storage_errors(folder, "read"):
        try:
            return np.asarray(array[_box(start, stop, columns)])
        except Exception as error:  # of a chunk, or of metadata that was changed
            if isinstance(error, OSError) and error.errno:
                raise
            cause = " ".join(str(error).split())
            raise StorageError(
                f"{folder}: rows {start}..{stop} are damaged ({cause}); resume the run to redo them"
            ) from error


def verify(array: Array, start: int, rows: int, crc: int) -> bool:
    """Whether rows [start, start+rows) are there and are the bytes that `crc` was taken of."""
    try:
        return crc_of(read_rows(array, start, start + rows)) == crc
    except StorageError:
        return False


def write_static(
    store: Path,
    name: str,
    values: np.ndarray,
    attributes: Mapping[str, Any] | None = None,
    *,
    compress: bool = False,
) -> None:
    """Writes an array that no shard commits (edge tables, masks), in one chunk, with a digest of
    itself. Done again it mends what is not as given, and else changes nothing. Driver only."""
    told = dict(attributes or {})
    told[DIGEST] = _digest(values, told)
    dtype, shape = values.dtype.name, values.shape
    create_array(store, name, shape, shape, dtype, compress=compress, attributes=told)
    array = open_array(store, name, "r+")
    if values.size and not verify(array, 0, len(values), crc_of(values)):
        write_rows(array, 0, values)


def read_static(store: Path, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The values and the attributes of what `write_static` wrote. Raises StorageError if they are
    not what was written."""
    array = open_array(store, name)
    values = read_rows(array, 0, array.shape[0]) if array.size else np.asarray(array[...])
    attributes = dict(array.attrs)
    if attributes.pop(DIGEST, None) != _digest(values, attributes):
        raise StorageError(f"{store / name} is not what was written; resume the run to mend it")
    return values, attributes


def _digest(values: np.ndarray, attributes: Mapping[str, Any]) -> str:
    crc = crc_of(values) if values.size else 0
    about = to_json([values.dtype.name, list(values.shape), crc, dict(attributes)])
    return hashlib.sha256(about).hexdigest()


def make_store(store: Path) -> None:
    """An empty Zarr store. Driver only."""
    _put_metadata(store, _group_metadata())
