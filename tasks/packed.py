"""Examples that are held as bytes: a plan of many needs their number, their lengths and kinds, and
each of them once, when it is written down. A prompt takes some 150 bytes so, and 1 KB as an object.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

from edgesweep.tasks.example import Example
from edgesweep.tasks.prompt import example_of

#: examples that are packed, and made again, together
BLOCK = 256


class Packed(Sequence[Example]):
    """As a tuple of them, but that each is made anew when it is asked for."""

    def __init__(self, examples: Iterable[Example]) -> None:
        self._n, self._blocks = 0, []
        self._last: tuple[int, tuple[Example, ...]] = (-1, ())
        rest = iter(examples)
        while some := list(islice(rest, BLOCK)):
            text = json.dumps([example.value() for example in some], separators=(",", ":"))
            self._blocks.append(zlib.compress(text.encode()))
            self._n += len(some)

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, at: int | slice) -> Example | tuple[Example, ...]:
        if isinstance(at, slice):
            return tuple(self[i] for i in range(*at.indices(self._n)))
        place = range(self._n)[at]  # raises IndexError, and counts from the end
        return self._block(place // BLOCK)[place % BLOCK]

    def __iter__(self) -> Iterator[Example]:
        for number in range(len(self._blocks)):
            yield from self._block(number)

    def _block(self, number: int) -> tuple[Example, ...]:
        if self._last[0] != number:
            values = json.loads(zlib.decompress(self._blocks[number]))
            self._last = number, tuple(map(example_of, values))
        return self._last[1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and self._blocks == other._blocks

    def __hash__(self) -> int:
        return hash(tuple(self._blocks))
