"""What a run needs of the place where it lies, and no more.

Keys are relative, joined by `/`. The suite that every kind passes: tests/storage/test_store.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

from edgesweep.storage.errors import StorageError


class Missing(StorageError):
    """There is nothing of that key."""


@dataclass(frozen=True)
class Info:
    """What is known of an object without reading it.

    Attributes:
        key: relative to its store.
        size: in bytes.
        tag: another one once it is written again.
        modified: seconds since 1970, by the store's own clock.
    """

    key: str
    size: int
    tag: str
    modified: float


class Store(Protocol):
    """A folder on a disk, or a prefix of a bucket. Every method may raise StorageError.

    Attributes:
        url: what `open_store` takes, also in another process. Never with credentials: these are of
            the environment of each process.
    """

    url: str

    def get(self, key: str) -> bytes:
        """All of it. Raises Missing."""

    def get_told(self, info: Info) -> bytes:
        """The same of what was listed. A store that is far away remembers small ones, as long as
        their tag is the same."""

    def put(self, key: str, data: bytes) -> None:
        """Whole or not at all, over what is there; durable on return."""

    def create(self, key: str, data: bytes) -> bool:
        """The same where nothing is: of several writers of different data exactly one gets True,
        also if the answer to it was lost. So whoever must know that it was he puts something into
        `data` that nobody else has."""

    def swap(self, key: str, data: bytes, tag: str) -> str | None:
        """Over the object that has this tag: the tag of what is there now. None, and nothing is
        written, where another is there by now, or none; a folder on a disk knows that no better
        than by a look just before."""

    def head(self, key: str) -> Info | None:
        """None where nothing is."""

    def list(self, prefix: str = "", after: str = "") -> Iterator[Info]:
        """What lies under a prefix, which ends where a part of a key does, sorted by key; only keys
        greater than `after`."""

    def mark(self, info: Info) -> str:
        """Of what was listed, another one if its content is: what a bucket says of it, which
        nobody changes but through it; of a file, the sha256 of its bytes."""

    def delete(self, key: str) -> None:
        """Durably; nothing happens where nothing is."""

    def zarr(self) -> Any:
        """The same place for zarr: writes are whole and durable."""


def no_fill(url: str, key: str, found: Any) -> Any:
    """What a store found for zarr, if that is something. zarr would read a chunk that is not there
    as fill: of such a key Missing is raised."""
    if found is None and key.rpartition("/")[2].isdigit():
        raise Missing(f"{url}/{key}: the chunk is missing; resume the run to redo it")
    return found


@dataclass(frozen=True)
class Place:
    """A key in a store, or what keys begin with: what a path is on a disk. Every method may raise
    StorageError."""

    store: Store
    key: str = ""

    def __truediv__(self, name: str) -> Place:
        return Place(self.store, "/".join(filter(None, (self.key, name))))

    def __str__(self) -> str:
        """For people."""
        return f"{self.store.url}/{self.key}" if self.key else self.store.url

    @property
    def name(self) -> str:
        """The last part of the key."""
        return PurePosixPath(self.key).name

    def read(self) -> bytes:
        """Raises Missing."""
        return self.store.get(self.key)

    def write(self, data: bytes) -> None:
        """Over what is there."""
        self.store.put(self.key, data)

    def create(self, data: bytes) -> bool:
        """Where nothing is; see `Store.create`."""
        return self.store.create(self.key, data)

    def ensure(self, data: bytes) -> bool:
        """Writes what is to be there, unless it is. Returns whether nothing was there."""
        if self.store.create(self.key, data):
            return True
        if self.read() != data:
            self.write(data)
        return False

    def exists(self) -> bool:
        return self.store.head(self.key) is not None

    def delete(self) -> None:
        self.store.delete(self.key)

    def list(self) -> Iterator[Info]:
        """What lies under it, sorted."""
        return self.store.list(self.key)
