"""Scores as they are stored: all of them or a share, by as many bits as are wanted, packed or not.

1. `keep`: `all` is `scores [input, scored]`; a share is, of each input, its largest by magnitude as
   `kept/{gap, score} [input, place]`, in the order of edges, each by how far it is from the one
   before (small numbers pack well), and what the others sum up to as `kept/dropped [input]`; `none`
   is nothing.
2. `bits` of the mantissa's 23 are kept, the last rounded to even and the others zero, so that the
   numbers stay float32 and pack well (BitRound; Klöwer et al. 2021).
3. `codec` is Blosc's, over shuffled bits.

Partial sums are of the scores as they were computed: aggregates depend on none of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from edgesweep.storage import layout
from edgesweep.storage.arrays import Planned
from edgesweep.storage.blocks import write_block
from edgesweep.storage.rundir import RunDirectory

#: of a float32
MANTISSA_BITS = 23
#: of a chunk, at most (Blosc takes less than 2 GiB, and a chunk is read whole)
CHUNK_BYTES = 32 * 2**20


class How(Protocol):
    """How scores are stored: what a config's `scores` says."""

    @property
    def keep(self) -> str | float: ...
    @property
    def bits(self) -> int: ...
    @property
    def codec(self) -> str: ...


def n_kept(how: How, n_scores: int) -> int:
    """Scores of an input that are stored."""
    if isinstance(how.keep, str):
        return n_scores if how.keep == "all" else 0
    return max(1, round(how.keep * n_scores))


def bytes_of(how: How, n_scores: int) -> float:
    """Bytes an input, about: packed numbers and gaps as those of real scores (lz4; zstd takes less;
    benchmarks/scores.py)."""
    is_packed = how.codec != "none"
    number = 4 * (0.188 + 0.031 * how.bits if is_packed else 1.0)
    gap = 0.0 if isinstance(how.keep, str) else 0.7 if is_packed else 4.0
    return n_kept(how, n_scores) * (number + gap)


def chunk_columns(rows: int, columns: int, number_bytes: int = 4) -> int:
    """Columns of a chunk of so many rows: a power of 2, or all."""
    most = max(1, CHUNK_BYTES // (number_bytes * rows))
    return columns if columns <= most else 1 << (most.bit_length() - 1)


# --- bits and shares --------------------------------------------------------------------------


def round_bits(scores: np.ndarray, bits: int) -> np.ndarray:
    """float32 with `bits` of the mantissa, half to even. What is not finite stays as it is; what
    would round to infinity is cut off instead."""
    if bits >= MANTISSA_BITS:
        return scores
    surplus = np.uint32(MANTISSA_BITS - bits)
    raw = np.ascontiguousarray(scores, np.float32).view(np.uint32)
    half = np.uint32((1 << (MANTISSA_BITS - bits - 1)) - 1)
    mask = np.uint32(0xFFFFFFFF) << surplus
    rounded = (raw + (half + ((raw >> surplus) & np.uint32(1)))) & mask
    finite = np.isfinite(scores)
    rounded = np.where(np.isfinite(rounded.view(np.float32)), rounded, raw & mask)
    return np.where(finite, rounded, raw).view(np.float32)


def largest(scores: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """Of each row its `n` largest by magnitude, ties by number, in ascending order: uint32 `edge`
    and float32 `score` `[row, n]`, and float64 `dropped` `[row]`, the sum of magnitudes of the
    others. What is not finite is larger than all that is."""
    edges = np.empty((len(scores), n), np.uint32)
    dropped = np.empty(len(scores))
    for i, (row, mine) in enumerate(zip(scores, edges, strict=True)):
        size = np.where(np.isfinite(row), np.abs(row), np.inf)
        least = np.partition(size, len(size) - n)[len(size) - n]
        kept = size > least
        kept[np.flatnonzero(size == least)[: n - int(kept.sum())]] = True
        mine[:] = np.flatnonzero(kept)
        dropped[i] = size[~kept].sum(dtype=np.float64)
    found = np.take_along_axis(scores, edges.astype(np.int64), 1)
    return {"edge": edges, "score": found, "dropped": dropped}


# --- in a run ---------------------------------------------------------------------------------


def planned_scores(
    run: RunDirectory, cell: str, shape: tuple[int, int], rows: int, how: How
) -> Iterator[Planned]:
    """Where the scores of a cell are written, `[input, scored]`, by blocks of `rows` inputs."""
    n, n_scores = shape
    made: dict[str, tuple[tuple[int, ...], str]] = {}
    if how.keep == "all":
        made = {layout.scores(cell): (shape, "float32")}
    elif how.keep != "none":
        few = (n, n_kept(how, n_scores))
        told = {"gap": (few, "uint32"), "score": (few, "float32"), "dropped": ((n,), "float64")}
        made = {layout.kept(cell, name): of for name, of in told.items()}
    for name, (of, dtype) in made.items():
        chunks = (rows, *(chunk_columns(rows, size) for size in of[1:]))
        yield Planned(run.attributions, name, of, chunks, dtype, codec=how.codec)


def write_scores(
    run: RunDirectory, cell: str, start: int, scores: np.ndarray, how: How
) -> list[dict[str, Any]]:
    """Writes a block of scores `[input, scored]` and says what was written."""
    if how.keep == "none":
        return []
    if how.keep == "all":
        found = {layout.scores(cell): round_bits(scores, how.bits)}
    else:
        few = largest(scores, n_kept(how, scores.shape[1]))
        few["score"] = round_bits(few["score"], how.bits)
        few["gap"] = np.diff(few.pop("edge"), axis=1, prepend=np.uint32(0))
        found = {layout.kept(cell, name): values for name, values in few.items()}
    return [
        write_block(run, layout.ATTRIBUTIONS, name, start, values) for name, values in found.items()
    ]
