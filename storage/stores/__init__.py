"""Where a run lies: a folder, or a prefix of a bucket. The only place that knows one from the
other."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from edgesweep.storage.errors import Refused
from edgesweep.storage.stores.base import Info, Missing, Place, Store
from edgesweep.storage.stores.local import LocalStore

__all__ = [
    "SCHEMES",
    "Info",
    "LocalStore",
    "Missing",
    "Place",
    "Store",
    "check_address",
    "open_store",
    "place",
]

#: addresses of buckets, and `memory`, which lasts as long as the process
SCHEMES = ("s3", "gs", "az", "memory")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def open_store(where: Path | str) -> Store:
    """A store, whether or not anything is there yet. Nothing is asked of a server.

    Args:
        where: a path, or file://, memory://NAME, s3://BUCKET/PREFIX, gs://…, az://CONTAINER/….

    Raises:
        Refused: an address of another scheme, with a password or query in it, or of a bucket where
            obstore is not installed.
    """
    found = None if isinstance(where, Path) else _ADDRESS.fullmatch(where)
    if found is None:
        return LocalStore(Path(where))
    scheme, rest = check_address(str(where))
    if scheme == "file":
        return LocalStore(Path(rest))
    return _objects(f"{scheme}://{rest.strip('/')}")


def check_address(address: str) -> tuple[str, str]:
    """Its scheme and what follows. Raises Refused."""
    scheme, rest = _ADDRESS.fullmatch(address).groups()  # type: ignore[union-attr]
    if scheme not in ("file", *SCHEMES):
        raise Refused(
            f"{scheme}://… is no address that a run can have: give a path, or one of "
            f"{', '.join(f'{known}://' for known in ('file', *SCHEMES))}"
        )
    if scheme != "file" and re.search(r"[@?#]", rest):
        raise Refused(
            f"the {scheme}:// address has a user, a password or a query in it, which the run would "
            "keep; give BUCKET/PREFIX alone, and credentials in the environment"
        )
    if not rest.strip("/"):
        raise Refused(f"{address!r} names no {'folder' if scheme == 'file' else 'bucket'}")
    return scheme, rest


def place(where: Path | str) -> Place:
    """The root of a store. Raises Refused."""
    return Place(open_store(where))


@cache
def _objects(url: str) -> Store:
    """One for each address: a connection is worth keeping, and memory is known by its name."""
    try:
        from edgesweep.storage.stores.objects import open_objects
    except ImportError:
        raise Refused(f"{url} needs obstore: pip install 'edgesweep[cloud]'") from None
    return open_objects(url)
