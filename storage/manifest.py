"""The manifest: the last file that a driver writes, with the sha256 of those that a person reads.

1. A driver removes it before it changes what is committed: the tables are then of other data.
2. It writes it after the tables, and again after the page. A run is done when the manifest is there
   and every file is as it says.
3. A reader takes a table only if the manifest vouches for it: Parquet decodes most flipped bits
   without a word.

Of the log it vouches for what there is of it by then. Of a run of which nothing is left it also has
a mark of that and of all commits: as long as they have it, none of them need be read to know that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from edgesweep.storage.errors import StorageError
from edgesweep.storage.layout import COMMITS, LOG, MANIFEST, PARTS
from edgesweep.storage.records import seal, unseal
from edgesweep.storage.rundir import RunDirectory
from edgesweep.storage.stores import Missing, Place

#: stands for a file that is still to be written
PENDING: Mapping[str, Any] = {"bytes": 0, "sha256": ""}
Entries = dict[str, Mapping[str, Any]]


def entry(data: bytes) -> Mapping[str, Any]:
    """What the manifest says of a file with these bytes."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def write_manifest(
    run: RunDirectory, files: Mapping[str, Mapping[str, Any]], whole: bool = False
) -> None:
    """Vouches for `files`, and for the log as far as it goes. Raises StorageError.

    Args:
        whole: nothing of the run is left, nor left out.
    """
    run.flush_log()
    logs = (run.root / LOG).list()
    told = {info.key: entry(run.root.store.get_told(info)) for info in logs}
    mark = {"whole": _mark(run, told)} if whole else {}
    (run.root / MANIFEST).write(seal({"files": {**files, **told}, **mark}, indent=1))


def is_whole(run: RunDirectory) -> bool:
    """Whether the manifest says that nothing is left, and all is as it was then. Raises
    StorageError."""
    return _is_whole(run, _document(run) or {"files": {}})


def _is_whole(run: RunDirectory, document: Mapping[str, Any]) -> bool:
    logs = [name for name in document["files"] if name.startswith(f"{LOG}/")]
    if "whole" not in document or unsound(run, but=logs):
        return False
    return bool(document["whole"] == _mark(run, logs))


def _mark(run: RunDirectory, logs: Collection[str]) -> str:
    """Of all commits and some of the log, another one if any of it is not what it was."""
    found, store = hashlib.sha256(), run.root.store
    for info in (*(run.root / COMMITS).list(), *(run.root / LOG).list()):
        if not info.key.startswith(f"{LOG}/") or info.key in logs:
            found.update(f"{info.key} {store.mark(info)}\n".encode())
    return found.hexdigest()


def remove_manifest(root: Place) -> None:
    """Durably, if there is one. Raises StorageError."""
    (root / MANIFEST).delete()


def remove_parts(root: Place) -> None:
    """The rows of cells that are done (`storage.tables.parts`), durably. Raises StorageError."""
    for info in (root / PARTS).list():
        root.store.delete(info.key)


def read_manifest(run: RunDirectory) -> Entries | None:
    """Entries by file name; None before a driver has written its tables. Raises StorageError for a
    manifest that is not as it was written."""
    found = _document(run)
    return None if found is None else dict(found["files"])


def _document(run: RunDirectory) -> Mapping[str, Any] | None:
    data = _bytes(run, MANIFEST)
    if data is None:
        return None
    found = unseal(data)
    if found is None:
        raise StorageError(_line(run, MANIFEST))
    return found


def vouch_for(run: RunDirectory, name: str, data: bytes) -> None:
    """Has the manifest, if there is one, vouch for a file that was written anew. Raises
    StorageError."""
    found = _document(run)
    if found is not None:
        files = {**found["files"], name: entry(data)}
        write_manifest(run, files, _is_whole(run, {**found, "files": files}))


def vouched(run: RunDirectory, name: str) -> bytes | None:
    """The bytes of a file, as the manifest has them; None if it does not name the file. Raises
    StorageError if the file is missing or another one."""
    files = read_manifest(run)
    if files is None or name not in files:
        return None
    data = _bytes(run, name)
    if data is None or entry(data) != files[name]:
        raise StorageError(_line(run, name))
    return data


def check(run: RunDirectory, but: Collection[str] = ()) -> None:
    """Raises StorageError if a file, apart from `but`, is not as the manifest of a finished run
    says, or the manifest itself is damaged."""
    if (run.root / MANIFEST).exists():
        for name in unsound(run, but):
            raise StorageError(_line(run, name))


def unsound(run: RunDirectory, but: Collection[str] = ()) -> list[str]:
    """Files that are not as the manifest says, apart from `but`; the manifest itself if it is not
    there or damaged."""
    try:
        files = read_manifest(run)
    except StorageError:
        files = None
    if files is None:
        return [MANIFEST]
    names = sorted(set(files) - set(but))
    return [name for name in names if entry(_bytes(run, name) or b"") != files[name]]


def _line(run: RunDirectory, name: str) -> str:
    how = f"make it anew with: edgesweep resume {run.url}"
    return f"{run.root / name} is not as it was written; {how}"


def _bytes(run: RunDirectory, name: str) -> bytes | None:
    """None where there is no such file, which no entry is of."""
    try:
        return (run.root / name).read()
    except Missing:
        return None
