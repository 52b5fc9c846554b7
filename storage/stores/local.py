"""A folder on a disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from edgesweep.storage.atomic import TMP_PREFIX, fsync_folder, put_if_absent, replace
from edgesweep.storage.errors import storage_errors
from edgesweep.storage.stores.base import Info, Missing


class LocalStore:
    """A folder, made with the first object in it. See `Store`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def get(self, key: str) -> bytes:
        path = self.root / key
        with storage_errors(path, "read"):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                raise Missing(f"{path} is missing") from None

    def get_told(self, info: Info) -> bytes:
        return self.get(info.key)

    def put(self, key: str, data: bytes) -> None:
        replace(self.root / key, data)

    def create(self, key: str, data: bytes) -> bool:
        return put_if_absent(self.root / key, data)

    def swap(self, key: str, data: bytes, tag: str) -> str | None:
        if (found := self.head(key)) is None or found.tag != tag:
            return None
        self.put(key, data)
        return found.tag if (found := self.head(key)) is not None else None

    def head(self, key: str) -> Info | None:
        path = self.root / key
        with storage_errors(path, "read"):
            try:
                return _info(key, path.stat()) if path.is_file() else None
            except FileNotFoundError:
                return None

    def list(self, prefix: str = "", after: str = "") -> Iterator[Info]:
        for key in sorted(self._keys(self.root / prefix)):
            if key > after and (found := self.head(key)) is not None:
                yield found

    def _keys(self, folder: Path) -> Iterator[str]:
        with storage_errors(folder, "read"):
            for where, _, names in os.walk(folder):
                inside = Path(where).relative_to(self.root)
                for name in names:
                    if not name.startswith(TMP_PREFIX):
                        yield (inside / name).as_posix()

    def mark(self, info: Info) -> str:
        return hashlib.sha256(self.get(info.key)).hexdigest()

    def delete(self, key: str) -> None:
        path = self.root / key
        with storage_errors(path):
            try:
                path.unlink()
            except FileNotFoundError:
                return
            fsync_folder(path.parent)

    @cached_property
    def _zarr(self) -> Any:
        from edgesweep.storage.stores.durable import DurableStore

        return DurableStore(self.root)

    def zarr(self) -> Any:
        return self._zarr


def _info(key: str, found: os.stat_result) -> Info:
    return Info(key, found.st_size, f"{found.st_ino}-{found.st_mtime_ns}", found.st_mtime)
