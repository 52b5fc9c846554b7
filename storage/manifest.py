"""The manifest: the last file that a driver writes, with the sha256 of those that a person reads.

1. A driver removes it before it changes what is committed: the tables are then of other data.
2. It writes it after the tables, and again after the page. A run is done when the manifest is there
   and every file is as it says.
3. A reader takes a table only if the manifest vouches for it: Parquet decodes most flipped bits
   without a word.

`log.jsonl` goes on growing; the manifest is about its first bytes.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from edgesweep.storage.atomic import fsync_folder, replace
from edgesweep.storage.errors import StorageError, storage_errors
from edgesweep.storage.layout import LOG, MANIFEST, PARTS
from edgesweep.storage.records import seal, unseal
from edgesweep.storage.rundir import RunDirectory

#: stands for a file that is still to be written
PENDING: Mapping[str, Any] = {"bytes": 0, "sha256": ""}
Entries = dict[str, Mapping[str, Any]]


def entry(data: bytes) -> Mapping[str, Any]:
    """What the manifest says of a file with these bytes."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def write_manifest(run: RunDirectory, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Vouches for `files`, and for the log as far as it goes. Raises StorageError."""
    told = {**files, LOG: entry(_bytes(run.path / LOG))}
    replace(run.path / MANIFEST, seal({"files": told}, indent=1))


def remove_manifest(root: Path) -> None:
    """Durably, if there is one. Raises StorageError."""
    path = root / MANIFEST
    with storage_errors(path):
        if path.exists():
            path.unlink(missing_ok=True)
            fsync_folder(root)


def remove_parts(root: Path) -> None:
    """The rows of cells that are done (`storage.tables.parts`), durably. Raises StorageError."""
    folder = root / PARTS
    with storage_errors(folder):
        if folder.is_dir():
            shutil.rmtree(folder)
            fsync_folder(folder.parent)


def read_manifest(run: RunDirectory) -> Entries | None:
    """Entries by file name; None before a driver has written its tables. Raises StorageError for a
    manifest that is not as it was written."""
    path = run.path / MANIFEST
    if not path.exists():
        return None
    found = unseal(_bytes(path))
    if found is None:
        raise StorageError(_line(run, MANIFEST))
    return dict(found["files"])


def vouch_for(run: RunDirectory, name: str, data: bytes) -> None:
    """Has the manifest, if there is one, vouch for a file that was written anew. Raises
    StorageError."""
    files = read_manifest(run)
    if files is not None:
        write_manifest(run, {**files, name: entry(data)})


def vouched(run: RunDirectory, name: str) -> bytes | None:
    """The bytes of a file, as the manifest has them; None if it does not name the file. Raises
    StorageError if the file is missing or another one."""
    files = read_manifest(run)
    if files is None or name not in files:
        return None
    data = _bytes(run.path / name)
    if not _is(data, name, files[name]):
        raise StorageError(_line(run, name))
    return data


def check(run: RunDirectory, but: Collection[str] = ()) -> None:
    """Raises StorageError if a file, apart from `but`, is not as the manifest of a finished run
    says, or the manifest itself is damaged."""
    if (run.path / MANIFEST).exists():
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
    return [name for name in names if not _is(_bytes(run.path / name), name, files[name])]


def _line(run: RunDirectory, name: str) -> str:
    how = f"make it anew with: edgesweep resume {run.path}"
    return f"{run.path / name} is not as it was written; {how}"


def _is(data: bytes, name: str, wanted: Mapping[str, Any]) -> bool:
    return entry(data[: wanted["bytes"]] if name == LOG else data) == wanted


def _bytes(path: Path) -> bytes:
    """Nothing where there is no file, which no entry is of."""
    with storage_errors(path, "read"):
        return path.read_bytes() if path.exists() else b""
