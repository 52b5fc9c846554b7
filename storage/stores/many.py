"""Many small objects at once: a disk makes several durable in the time of one, and a bucket answers
as many as are asked."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from edgesweep.storage.stores.base import Info, Place, Store

AT_ONCE = 16
#: objects that wait for a thread
_AHEAD = 1024


def ensure_all(objects: Iterable[tuple[Place, bytes]]) -> None:
    """`Place.ensure` of each, in no order. Raises StorageError, of the first that fails."""
    rest = iter(objects)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while some := list(islice(rest, _AHEAD)):
            for _ in pool.map(lambda one: one[0].ensure(one[1]), some):
                pass


def read_all(store: Store, listed: Iterable[Info]) -> Iterable[tuple[Info, bytes]]:
    """`Store.get_told` of each, in their order. Raises StorageError."""
    rest = iter(listed)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while some := list(islice(rest, AT_ONCE)):
            yield from zip(some, pool.map(store.get_told, some), strict=True)
