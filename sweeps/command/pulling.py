"""A run in a bucket, copied to a folder: there it is the same run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgesweep.storage.layout import AGGREGATES, ATTRIBUTIONS, PLAN
from edgesweep.storage.stores import Info, Store, open_store

#: at once
N_REQUESTS = 16
#: what is of every input, and most of a run: pages and tables need none of it
_OF_INPUTS = re.compile(
    rf"{ATTRIBUTIONS}/[^/]+/(scores|kept|listed)/.*|{AGGREGATES}/[^/]+/(partials|subtrees)/.*"
)


def pull_run(where: Path | str, folder: Path, *, scores: bool) -> tuple[int, int]:
    """Copies what the folder has not yet; the plan last, so that half a copy is no run.

    Args:
        scores: also what is stored of every input.

    Returns:
        How many files, and bytes, were copied.

    Raises:
        StorageError.
    """
    source, target = open_store(where), open_store(folder)
    found = list(_missing(source, target, scores))

    def copy(info: Info) -> None:
        target.put(info.key, source.get(info.key))

    with ThreadPoolExecutor(N_REQUESTS) as pool:
        list(pool.map(copy, [info for info in found if info.key != PLAN]))
    for info in found:
        if info.key == PLAN:
            copy(info)
    return len(found), sum(info.size for info in found)


def _missing(source: Store, target: Store, scores: bool) -> Iterator[Info]:
    there = {info.key: info for info in target.list()}
    for info in source.list():
        old = there.get(info.key)
        is_same = old is not None and old.size == info.size and old.modified >= info.modified
        if not is_same and (scores or not _OF_INPUTS.fullmatch(info.key)):
            yield info
