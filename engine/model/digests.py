"""What a model's files are: hashed once a node, and remembered as long as nobody touches them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesweep.engine.model.cache import cache_folder
from edgesweep.engine.model.weights import digested, folder_digest

#: a file that changed less than this before it was hashed may change again within its time stamp
RACY_NS = 2 * 10**9


def digest_here(folder: Path) -> str:
    """`folder_digest` of a folder as this node sees it. Of several processes one reads the files;
    what it found is kept in the cache of this node, with their inodes, sizes and times.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    place = str(folder.resolve())
    memo = cache_folder() / "digests" / hashlib.sha256(place.encode()).hexdigest()[:32]
    with locked(memo.with_suffix(".lock")):
        found = _stamps(folder)
        known = _read(memo)
        if known.get("stamps") == found and known["is_settled"]:
            return str(known["digest"])
        began_ns = time.time_ns()
        digest = folder_digest(folder)
        newest = max(max(times) for *_, times in found)
        is_settled = newest < began_ns - RACY_NS and _stamps(folder) == found
        told = {"folder": place, "stamps": found, "digest": digest, "is_settled": is_settled}
        memo.write_text(json.dumps(told), encoding="utf-8")
        return digest


def is_whole(folder: Path, digest: str) -> bool:
    """Whether it is there with that digest."""
    try:
        return digest_here(folder) == digest
    except OSError:
        return False


def _stamps(folder: Path) -> list[Any]:
    """Of each file that counts: name, disk, inode, size, times of its data and of its inode."""
    stats = [(file.name, file.stat()) for file in digested(folder)]
    return [
        [name, s.st_dev, s.st_ino, s.st_size, [s.st_mtime_ns, s.st_ctime_ns]] for name, s in stats
    ]


def _read(memo: Path) -> dict[str, Any]:
    try:
        found = json.loads(memo.read_bytes())
        return found if {"stamps", "digest", "is_settled"} <= found.keys() else {}
    except (OSError, ValueError, AttributeError):
        return {}


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Alone among the processes of this node; the lock of one that is killed is free."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def replace(folder: Path, write: Callable[[Path], None]) -> None:
    """Make a folder beside and move it in. The caller is alone, so what lies about is of processes
    that were killed."""
    for stray in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(stray, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(scratch)
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
