"""A prefix of a bucket, by obstore: S3, Google, Azure, and memory.

1. Credentials are those of the environment, as obstore and the providers' own tools read them
   (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY, …). A URL with any
   in it is refused.
2. obstore tries again after 5xx and broken connections. A try whose answer was lost may have won,
   and S3 may answer 409 to a conditional write that raced another: both come here as "exists
   already". So what exists is read back: ours, another's, or nothing, and then it is tried again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import MemoryStore, from_url

from edgesweep.storage.errors import Refused, StorageError
from edgesweep.storage.stores.base import Info, Missing

#: seconds to wait between tries of a write that conflicted
PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
#: objects that are not asked for twice
N_REMEMBERED, MOST_REMEMBERED_BYTES = 256, 200_000
_ADVICE = "look after the address, the credentials and the network, then resume the run"


class ObjectStore:
    """A prefix of a bucket. See `Store`.

    Args:
        url: of bucket and prefix.
        inner: an obstore of the same.
    """

    def __init__(self, url: str, inner: Any) -> None:
        self.url = url.rstrip("/")
        self._inner = inner
        self._remembered = lru_cache(N_REMEMBERED)(lambda key, tag: self.get(key))

    def get(self, key: str) -> bytes:
        with telling(self.url, "read", key):
            return bytes(obstore.get(self._inner, key).bytes())

    def get_told(self, info: Info) -> bytes:
        if info.size > MOST_REMEMBERED_BYTES:
            return self.get(info.key)
        return self._remembered(info.key, info.tag)

    def put(self, key: str, data: bytes) -> None:
        with telling(self.url, "write", key):
            for pause in (*PAUSES_S, None):
                try:
                    obstore.put(self._inner, key, data, use_multipart=False)
                    return
                except AlreadyExistsError:
                    if pause is None:
                        raise
                    time.sleep(pause)

    def create(self, key: str, data: bytes) -> bool:
        with telling(self.url, "write", key):
            for pause in (*PAUSES_S, None):
                try:
                    obstore.put(self._inner, key, data, mode="create", use_multipart=False)
                    return True
                except AlreadyExistsError:
                    found = self._found(key)
                    if found is not None:
                        return found == data
                    if pause is None:
                        raise
                    time.sleep(pause)
        return False

    def _found(self, key: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._inner, key).bytes())
        except FileNotFoundError:
            return None

    def swap(self, key: str, data: bytes, tag: str) -> str | None:
        with telling(self.url, "write", key):
            for pause in (*PAUSES_S, None):
                if (found := self._meta(key)) is None or _info(found).tag != tag:
                    return None
                known: Any = {k: found[k] for k in ("e_tag", "version") if found[k] is not None}
                try:
                    obstore.put(self._inner, key, data, mode=known, use_multipart=False)
                except (PreconditionError, AlreadyExistsError, FileNotFoundError):
                    if self._found(key) != data:  # of an answer that was lost it is ours
                        if pause is not None:
                            time.sleep(pause)
                        continue
                now = self._meta(key)
                return None if now is None else _info(now).tag
        return None

    def head(self, key: str) -> Info | None:
        with telling(self.url, "read", key):
            found = self._meta(key)
            return None if found is None else _info(found)

    def _meta(self, key: str) -> Any:
        try:
            return obstore.head(self._inner, key)
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "", after: str = "") -> Iterator[Info]:
        with telling(self.url, "list", prefix):
            pages = obstore.list(self._inner, prefix or None, offset=after or None)
            found = [_info(meta) for page in pages for meta in page]
        yield from sorted(found, key=lambda info: info.key)

    def mark(self, info: Info) -> str:
        return f"{info.size} {info.tag}"

    def delete(self, key: str) -> None:
        with telling(self.url, "delete", key):
            try:
                obstore.delete(self._inner, key)
            except FileNotFoundError:
                return

    @cached_property
    def _zarr(self) -> Any:
        from edgesweep.storage.stores.patient import PatientStore

        return PatientStore(self._inner, self.url)

    def zarr(self) -> Any:
        return self._zarr


def open_objects(url: str) -> ObjectStore:
    """The store of an address whose scheme is known. Raises Refused."""
    if url.startswith("memory://"):
        return ObjectStore(url, MemoryStore())
    try:
        return ObjectStore(url, from_url(url))
    except BaseError as error:
        raise Refused(f"{url} cannot be used: {_cause(error)}") from None


@contextmanager
def telling(url: str, action: str, key: str) -> Iterator[None]:
    """Errors of obstore as a StorageError of one line, without addresses' queries, which may hold a
    signature."""
    where = f"{url}/{key}"
    try:
        yield
    except FileNotFoundError:
        if action == "read":
            raise Missing(f"{where} is missing") from None
        raise StorageError(f"cannot {action} {where}: there is no such bucket; {_ADVICE}") from None
    except (BaseError, OSError) as error:
        raise StorageError(f"cannot {action} {where}: {_cause(error)}; {_ADVICE}") from None


def _cause(error: Exception) -> str:
    first = str(error).partition("\n")[0].strip().rstrip(":")
    return re.sub(r"\?\S*", "", first)


def _info(meta: Any) -> Info:
    tag = str(meta["e_tag"] or meta["version"] or "")
    return Info(meta["path"], meta["size"], tag, meta["last_modified"].timestamp())
