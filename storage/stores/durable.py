"""A folder as zarr takes it; apart, since zarr is slow to load."""

from __future__ import annotations

import asyncio

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from edgesweep.storage.atomic import replace
from edgesweep.storage.stores.base import no_fill


class DurableStore(LocalStore):
    """What is set is there whole or not at all, also after a loss of power: zarr's own write is
    not durable."""

    @property
    def url(self) -> str:
        """For messages."""
        return str(self.root)

    async def set(self, key: str, value: Buffer) -> None:
        """Raises StorageError."""
        self._check_writable()
        await asyncio.to_thread(replace, self.root / key, value.as_buffer_like())

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Raises Missing for a chunk."""
        return no_fill(self.url, key, await super().get(key, prototype, byte_range))
