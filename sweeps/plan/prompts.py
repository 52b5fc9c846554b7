"""The prompts of a split as a worker asks for them: some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from edgesweep.storage import RunDirectory
from edgesweep.storage.packing.prompts import PromptRows
from edgesweep.tasks import Example, example_of


class Prompts(Sequence[Example]):
    """What `storage.packing.prompts` wrote of a split, made into prompts again row by row."""

    def __init__(self, run: RunDirectory, dataset: str, split: str) -> None:
        self._rows = PromptRows(run, dataset, split)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, at: int | slice) -> Example | tuple[Example, ...]:
        if isinstance(at, slice):
            return tuple(example_of(value) for value in self._rows[at])
        return example_of(self._rows[at])

    def __iter__(self) -> Iterator[Example]:
        return map(example_of, self._rows)
