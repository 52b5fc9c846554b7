"""What is had of each cell, read when it is asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")

#: cells of which it is in memory at once
HELD = 4


class ByCell(Mapping[str, T]):
    """A mapping by keys of cells that reads an item each time it is asked for one that is not among
    the last few: of all cells together it would not fit."""

    def __init__(self, cells: Iterable[str], read: Callable[[str], T]) -> None:
        self._cells, self._read = dict.fromkeys(cells), lru_cache(HELD)(read)

    def __getitem__(self, cell: str) -> T:
        if cell not in self._cells:
            raise KeyError(cell)
        return self._read(cell)

    def __contains__(self, cell: object) -> bool:
        return cell in self._cells

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)
