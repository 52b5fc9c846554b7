"""Files that are there whole or not at all, also after a SIGKILL or a loss of power.

Each write goes to a temporary file in the same folder, is fsynced, and takes its name in one step;
then the folder is fsynced. Temporary names start with `.tmp-`; `remove_strays` clears what killed
writers left.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgesweep.storage.errors import storage_errors

Data = bytes | bytearray | memoryview
TMP_PREFIX = ".tmp-"
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


def put_if_absent(path: Path, data: bytes) -> bool:
    """Writes `data` at `path` unless something is there: of several processes exactly one gets
    True. Raises StorageError."""
    while not path.exists():
        with storage_errors(path), _temporary(path, data) as temporary:
            try:
                _name_if_free(temporary, path)
            except FileExistsError:
                return False
            except FileNotFoundError:  # a driver that has just begun took it for a stray
                continue
            fsync_folder(path.parent)
            return True
    return False


def _name_if_free(temporary: Path, path: Path) -> None:
    """Some disks (FAT, many network and FUSE ones) have no hard links; Linux can also rename
    without replacing. Raises FileExistsError, and ENOTSUP where there is neither."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not _rename_if_free(temporary, path):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP)) from error


def _rename_if_free(source: Path, target: Path) -> bool:
    """renameat2 with RENAME_NOREPLACE. False where the kernel, the C library or the disk lacks it;
    raises FileExistsError."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    at, no_replace = -100, 1  # AT_FDCWD, RENAME_NOREPLACE
    if rename(at, os.fsencode(source), at, os.fsencode(target), no_replace) == 0:
        return True
    if ctypes.get_errno() == errno.EEXIST:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    return False


def replace(path: Path, data: Data) -> None:
    """Writes `data` at `path`, over what is there. Raises StorageError."""
    with storage_errors(path), _temporary(path, data) as temporary:
        os.replace(temporary, path)
        fsync_folder(path.parent)


@contextmanager
def _temporary(path: Path, data: Data) -> Iterator[Path]:
    make_folder(path.parent)
    temporary = path.parent / f"{TMP_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(OSError):  # a read-only disk must not hide its first error behind this one
            temporary.unlink()


def make_folder(folder: Path) -> None:
    """`mkdir -p`, durable."""
    if folder.is_dir():
        return
    with storage_errors(folder):
        missing = [folder, *folder.parents]
        missing = missing[: next(i for i, f in enumerate(missing) if f.is_dir())]
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            fsync_folder(made.parent)


def fsync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_json(value: Any, indent: int | None = None) -> bytes:
    """Canonical JSON: sorted keys, no NaN, a newline at the end. Same value, same bytes."""
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(
        value,
        sort_keys=True,
        allow_nan=False,
        ensure_ascii=False,
        indent=indent,
        separators=separators,
        default=_plain,
    )
    return text.encode() + b"\n"


def _plain(value: Any) -> Any:
    """numpy scalars, paths and tuples' kin as JSON has them."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON: {value!r}")


def remove_strays(root: Path, before: float) -> int:
    """Removes temporary files (ours and Zarr's `*.partial`) last changed before `before` (seconds
    since 1970): those of killed writers. A living writer's are younger. Returns how many."""
    n_removed = 0
    for folder, _, names in os.walk(root):
        for name in names:
            if not (name.startswith(TMP_PREFIX) or name.endswith(".partial")):
                continue
            path = Path(folder) / name
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
                    n_removed += 1
            except FileNotFoundError:  # its writer was alive and has just finished with it
                continue
    return n_removed
