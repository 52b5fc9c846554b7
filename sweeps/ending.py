"""How a run ends: its tables, the page that shows them, and the manifest that vouches for both.

The fence is looked at before each file is replaced, so that a driver that was taken over never
writes its old tables over new ones. A kill at any point leaves a run that is not done: the manifest
is not there, or still waits for the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from edgesweep.storage import CommitLog, RunDirectory
from edgesweep.storage.layout import CONFIG, REPORT
from edgesweep.storage.manifest import (
    PENDING,
    entry,
    remove_manifest,
    remove_parts,
    write_manifest,
)
from edgesweep.storage.stores import Missing

#: the pages of a run in a given state, by their places in it, the report last
Page = Callable[[RunDirectory, str], Iterable[tuple[str, bytes]]]


def end_run(
    run: RunDirectory,
    log: CommitLog,
    tables: Mapping[str, bytes],
    state: str,
    page: Page | None,
    whole: bool = False,
) -> None:
    """Writes what a person reads; files that are as they should be are left alone.

    Args:
        log: of the driver whose run it is.
        state: what the page says of the run.
        page: None for a run without one.
        whole: nothing of its plan is left, nor left out.

    Raises:
        Fenced, StorageError.
    """
    files = {CONFIG: entry(run.config_yaml)}
    files |= {name: entry(data) for name, data in tables.items()}
    stale = {name: data for name, data in tables.items() if not _holds(run, name, data)}
    if stale:
        log.check_fence()
        remove_manifest(run.root)
    for name, data in stale.items():
        log.check_fence()
        (run.root / name).write(data)
    if page is not None:
        _vouch(run, log, {**files, REPORT: PENDING})
        for name, data in page(run, state):
            files[name] = entry(data)
            log.check_fence()
            (run.root / name).write(data)
    log.flush()
    _vouch(run, log, files, whole)
    remove_parts(run.root)


def _holds(run: RunDirectory, name: str, data: bytes) -> bool:
    try:
        return (run.root / name).read() == data
    except Missing:
        return False


def _vouch(
    run: RunDirectory,
    log: CommitLog,
    files: Mapping[str, Mapping[str, object]],
    whole: bool = False,
) -> None:
    log.check_fence()
    write_manifest(run, files, whole)
