"""Zarr arrays, written so that a crash cannot pass for data. The only module that imports zarr.

1. The driver creates every array before an actor starts, many at once (`create_arrays`); workers
   only open them. Metadata follows from the plan, and is mended where it is not as planned.
2. A block of rows is written whole, by one writer, on chunk borders: two writers in one chunk lose
   half of their rows without a word.
3. Chunks carry crc32c; empty ones are written, and one that is not there is an error: fill never
   passes for data. A chunk that is there still proves nothing: only a commit record does.
4. `write_rows` returns the crc32 of the raw bytes after the chunks are durable; the record keeps
   it, and `verify` reads back against it.
5. An array is made and opened by its metadata alone: to make one is one request of its store, to
   write or read a chunk another.

Names are paths inside a store, "cell/scores". Metadata is never consolidated.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.array import AsyncArray
from zarr.core.array_spec import ArrayConfig
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import StorePath

from edgesweep.storage.atomic import to_json
from edgesweep.storage.errors import StorageError, storage_errors
from edgesweep.storage.stores import Missing, Place, Store
from edgesweep.storage.stores.many import ensure_all

Array = zarr.Array
METADATA = "zarr.json"
DIGEST = "digest"
_WRITE_EMPTY: Any = {"write_empty_chunks": True}  # not stored by zarr: to be given at every open


@dataclass(frozen=True)
class Planned:
    """An array that is to be there, with nothing in it. Dense scores barely compress; `compress`
    (zstd) pays for sparse and bool arrays, `codec` (Blosc's lz4 or zstd, over shuffled bits) for
    rounded ones."""

    store: Place
    name: str
    shape: Sequence[int]
    chunks: Sequence[int]
    dtype: str = "float32"
    compress: bool = False
    codec: str = "none"

    @property
    def place(self) -> Place:
        """Of its metadata."""
        return self.store / self.name / METADATA

    def metadata(self, attributes: Mapping[str, Any] | None = None) -> bytes:
        """What zarr writes for it."""
        return _array_metadata(
            tuple(self.shape),
            tuple(max(1, c) for c in self.chunks),
            self.dtype,
            "plain zstd" if self.compress else self.codec,
            json.dumps(dict(attributes or {}), sort_keys=True),
        )

    @property
    def groups(self) -> Iterator[Place]:
        """Its store, and the groups in it that the array is in."""
        parents = self.name.split("/")[:-1]
        return (self.store / "/".join(parents[:n]) for n in range(len(parents) + 1))


def create_arrays(planned: Iterable[Planned]) -> None:
    """Creates arrays, and the groups that they are in, some at a time. Of those that are there the
    chunks stay, and metadata that is not as given (half written, damaged) is written anew. Driver
    only. Raises StorageError."""

    new: set[Place] = set()

    def metadata() -> Iterator[tuple[Place, bytes]]:
        for one in planned:
            for group in one.groups:
                if group.key not in _made_in(group.store) and group not in new:
                    new.add(group)
                    yield group / METADATA, _group_metadata()
            yield one.place, one.metadata()

    ensure_all(metadata())
    for group in new:
        _made_in(group.store).add(group.key)


def create_array(
    store: Place,
    name: str,
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: str = "float32",
    *,
    compress: bool = False,
    codec: str = "none",
    attributes: Mapping[str, Any] | None = None,
) -> tuple[Array, bool]:
    """The same of one (see `Planned`).

    Returns:
        The array, and whether nothing was there: one request of its store then.

    Raises:
        StorageError.
    """
    one = Planned(store, name, shape, chunks, dtype, compress, codec)
    for group in one.groups:
        make_store(group)
    metadata = one.metadata(attributes)
    is_new = one.place.ensure(metadata)
    return _array(store / name, metadata, "r+"), is_new


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


def open_array(store: Place, name: str, mode: str = "r") -> Array:
    """mode "r", or "r+" for a worker that will write. Raises StorageError if it is not there or its
    metadata is damaged."""
    if mode not in ("r", "r+"):
        raise ValueError(f"mode is {mode!r}; it is r or r+ (create_array creates)")
    place = store / name
    try:
        metadata = (place / METADATA).read()
    except Missing:
        raise StorageError(f"{place}: no such array; resume the run to make it") from None
    try:
        return _array(place, metadata, mode)
    except Exception as error:  # zarr has many kinds for metadata that is none
        raise StorageError(f"{place / METADATA} is damaged; resume the run to mend it") from error


def _array(place: Place, metadata: bytes, mode: str) -> Array:
    """An array by its metadata, without a question to its store."""
    store = place.store.zarr().with_read_only(mode == "r")
    inner = AsyncArray(
        metadata=_parsed(metadata),
        store_path=StorePath(store, place.key),
        config=ArrayConfig.from_dict(_WRITE_EMPTY),
    )
    return Array(inner)


@lru_cache(maxsize=256)
def _parsed(metadata: bytes) -> ArrayV3Metadata:
    return ArrayV3Metadata.from_dict(json.loads(metadata))


def has_array(store: Place, name: str) -> bool:
    return (store / name / METADATA).exists()


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
    array[_box(start, stop, columns)] = values
    return crc_of(values)


Columns = tuple[int, int]  # of the second axis, from the first to before the last


def _box(start: int, stop: int, columns: Columns | None) -> Any:
    rows = slice(start, stop)
    return rows if columns is None else (rows, slice(*columns))


def _check_block(
    array: Array, start: int, stop: int, values: np.ndarray, column: int | None
) -> None:
    name, n_rows, per_chunk = address_of(array), array.shape[0], array.chunks[0]
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


def address_of(array: Array) -> str:
    """Where an array lies, for people."""
    store: Any = array.store
    return f"{store.url}/{array.path}"


def read_rows(array: Array, start: int, stop: int, columns: Columns | None = None) -> np.ndarray:
    """Rows [start, stop) as stored, of all columns or of some. Raises StorageError where a chunk is
    missing or its checksum is wrong; NaN fill never passes for data here."""
    address = address_of(array)
    with storage_errors(address, "read"):
        try:
            return np.asarray(array[_box(start, stop, columns)])
        except Exception as error:  # of a chunk, or of metadata that was changed
            if isinstance(error, StorageError) or (isinstance(error, OSError) and error.errno):
                raise
            cause = " ".join(str(error).split())
            raise StorageError(
                f"{address}: rows {start}..{stop} are damaged ({cause}); resume the run to redo "
                "them"
            ) from error


def verify(array: Array, start: int, rows: int, crc: int) -> bool:
    """Whether rows [start, start+rows) are there and are the bytes that `crc` was taken of."""
    try:
        return crc_of(read_rows(array, start, start + rows)) == crc
    except StorageError:
        return False


def write_static(
    store: Place,
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
    array, is_new = create_array(
        store, name, shape, shape, dtype, compress=compress, attributes=told
    )
    if values.size and (is_new or not verify(array, 0, len(values), crc_of(values))):
        write_rows(array, 0, values)


def read_static(store: Place, name: str) -> tuple[np.ndarray, dict[str, Any]]:
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


def make_store(store: Place) -> None:
    """An empty Zarr store, or group in one. Driver only."""
    made = _made_in(store.store)
    if store.key not in made:
        (store / METADATA).ensure(_group_metadata())
        made.add(store.key)


def _made_in(store: Store) -> set[str]:
    """Keys of the groups that this process has made, or found as they should be."""
    return _groups.setdefault(store, set())


_groups: WeakKeyDictionary[Store, set[str]] = WeakKeyDictionary()
