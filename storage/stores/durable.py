"""A folder as zarr takes it; apart, since zarr is slow to load."""

from __future__ import annotations

import asyncio

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from edgesweep.storage.atomic import replace


class DurableStore(LocalStore):
    """What is set is there whole or not at all, also after a loss of power: zarr's own write is
    not durable."""

    async def set(self, key: str, value: Buffer) -> None:
        """Raises StorageError."""
        await asyncio.to_thread(replace, self.root / key, value.as_buffer_like())
