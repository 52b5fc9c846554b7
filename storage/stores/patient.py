"""A prefix of a bucket as zarr takes it; apart, since zarr is slow to load."""

from __future__ import annotations

import asyncio
from typing import Any

from obstore.exceptions import AlreadyExistsError
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from edgesweep.storage.stores.base import no_fill
from edgesweep.storage.stores.objects import PAUSES_S, telling


class PatientStore(ObjectStore[Any]):
    """Tries again where a write conflicted with another, and tells errors as stores do.

    Args:
        url: for messages.
    """

    def __init__(self, inner: Any, url: str = "", *, read_only: bool = False) -> None:
        super().__init__(inner, read_only=read_only)
        self.url = url

    def with_read_only(self, read_only: bool = False) -> PatientStore:
        return type(self)(self.store, self.url, read_only=read_only)

    async def set(self, key: str, value: Buffer) -> None:
        """Raises StorageError."""
        with telling(self.url, "write", key):
            for pause in PAUSES_S:
                try:
                    await super().set(key, value)
                    return
                except AlreadyExistsError:
                    await asyncio.sleep(pause)
            await super().set(key, value)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Raises StorageError, Missing for a chunk."""
        with telling(self.url, "read", key):
            return no_fill(self.url, key, await super().get(key, prototype, byte_range))
