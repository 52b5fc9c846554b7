"""What a run needs of the place where it lies, and no more.

Keys are relative, joined by `/`. The suite that every kind passes: tests/storage/test_store.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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

    def put(self, key: str, data: bytes) -> None:
        """Whole or not at all, over what is there; durable on return."""

    def create(self, key: str, data: bytes) -> bool:
        """The same where nothing is: of several writers of different data exactly one gets True,
        also if the answer to it was lost. So whoever must know that it was he puts something into
        `data` that nobody else has."""

    def head(self, key: str) -> Info | None:
        """None where nothing is."""

    def list(self, prefix: str = "", after: str = "") -> Iterator[Info]:
        """What lies under a prefix, which ends where a part of a key does, sorted by key; only keys
        greater than `after`."""

    def delete(self, key: str) -> None:
        """Durably; nothing happens where nothing is."""

    def zarr(self) -> Any:
        """The same place for zarr: writes are whole and durable."""
