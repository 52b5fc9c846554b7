"""Prompts in blocks, so that whoever wants some rows holds no others.

`prompts/<dataset>/index.json` says how many each split has; `<split>-<block>.json` are `BLOCK` of
them, as plain values, for tasks differ in what a prompt has. Each file is sealed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar, overload

from edgesweep.storage import layout
from edgesweep.storage.records import read_record, seal
from edgesweep.storage.rundir import RunDirectory
from edgesweep.storage.stores import Place

#: prompts of a block; some 1 MB of JSON
BLOCK = 1024
#: blocks that a process holds, of all datasets and splits: 2 MB each
HELD = 4
Value = dict[str, Any]
T = TypeVar("T")


def write_prompts(run: RunDirectory, dataset: str, splits: Mapping[str, Sequence[Any]]) -> None:
    """Writes what is not there as it is to be; `splits` are prompts with a `value()`, by name."""
    counts = {name: len(rows) for name, rows in splits.items()}
    (run.root / layout.prompt_index(dataset)).ensure(seal(counts))
    for name, rows in splits.items():
        for block, start in enumerate(range(0, len(rows), BLOCK)):
            values = [prompt.value() for prompt in rows[start : start + BLOCK]]
            key = layout.prompt_block(dataset, name, block)
            (run.root / key).ensure(seal({"prompts": values}))


class PromptRows(Sequence[T]):
    """The prompts of a split, read a block at a time when they are asked for, and each made of its
    plain values by `make`. Raises StorageError for a file that is not as it was written."""

    def __init__(
        self, run: RunDirectory, dataset: str, split: str, make: Callable[[Value], T]
    ) -> None:
        self._root, self._dataset, self._split, self._make = run.root, dataset, split, make
        self._n = int(_read_index(run.root / layout.prompt_index(dataset))[split])

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[T, ...]: ...
    def __getitem__(self, at: int | slice) -> T | tuple[T, ...]:
        if isinstance(at, slice):
            return tuple(self[i] for i in range(*at.indices(self._n)))
        row = range(self._n)[at]  # raises IndexError, and counts from the end
        return self._make(self._block(row // BLOCK)[row % BLOCK])

    def __iter__(self) -> Iterator[T]:
        for block in range(-(-self._n // BLOCK)):
            yield from map(self._make, self._block(block))

    def _block(self, block: int) -> list[Value]:
        return _read_block(self._root / layout.prompt_block(self._dataset, self._split, block))


@lru_cache(maxsize=HELD)
def _read_index(place: Place) -> Value:
    return read_record(place)


@lru_cache(maxsize=HELD)
def _read_block(place: Place) -> list[Value]:
    values: list[Value] = read_record(place)["prompts"]
    return values
