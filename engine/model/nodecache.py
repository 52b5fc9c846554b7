"""The models of a node: each is had once, by whichever of its processes asks first.

1. A model whose folder this node sees, on a disk of its own, is used where it lies.
2. Else the node keeps a copy, $EDGESWEEP_CACHE/nodes/DIGEST. One process makes it, alone under a
   lock of that folder, and the others wait; one that is killed leaves the lock and the next begins
   anew, for a copy is made beside and moved in whole.
3. The copy comes from the folder, if this node sees it over a network; else from where it was
   staged; else it is made of what the name says, as it was for the plan: an alias here, a hub's
   model at the revision that was planned with.
4. Whatever the way, the files must have the digest that the run was planned with.

A staged model is `DIGEST/manifest.json`, which names its files and comes last, and their parts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from edgesweep.engine.model.cache import cache_folder
from edgesweep.engine.model.digests import is_whole, locked, replace
from edgesweep.engine.model.errors import ChangedError, ModelError, one_line
from edgesweep.engine.model.loading import WANTED, ModelSource, can_be_made, make_again
from edgesweep.engine.model.weights import folder_digest

MANIFEST = "manifest.json"
PART_BYTES = 64 * 2**20
#: file systems of networks, by how /proc/self/mountinfo begins to spell them
NETWORKS = (
    "nfs",
    "lustre",
    "gpfs",
    "cifs",
    "smb",
    "ceph",
    "beegfs",
    "fuse.",
    "9p",
    "afs",
    "wekafs",
)


class Staged(Protocol):
    """Where models may be staged: of a store's methods those that are needed (storage.stores)."""

    def head(self, key: str) -> Any:
        """None where nothing is."""

    def get(self, key: str) -> bytes:
        """All of it."""

    def put(self, key: str, data: bytes) -> None:
        """Whole or not at all."""


def ensure(source: ModelSource, staged: Staged | None = None) -> Path:
    """A folder on this node with the files of a model.

    Raises:
        ChangedError: there are files, and they are not those that the run was planned with.
        ModelError: the model is not to be had on this node; one line with all that was tried.
    """
    is_near = source.path.is_dir() and not is_remote(source.path)
    if is_near and is_whole(source.path, source.digest):
        return source.path
    own = cache_folder() / "nodes" / source.digest
    with locked(own.with_suffix(".lock")):
        if not is_whole(own, source.digest):
            replace(own, lambda folder: _fetch(source, staged, folder))
    return own


def sight(source: ModelSource, staged: Staged | None = None) -> str:
    """How this node would have a model, in words; "" if it would not. Nothing is fetched."""
    own = cache_folder() / "nodes" / source.digest
    if source.path.is_dir() and is_whole(source.path, source.digest):
        return "copied over the network" if is_remote(source.path) else "in place"
    if is_whole(own, source.digest):
        return "in the cache"
    if staged is not None and staged.head(f"{source.digest}/{MANIFEST}") is not None:
        return "staged"
    return "made by its name" if can_be_made(source) else ""


def _fetch(source: ModelSource, staged: Staged | None, folder: Path) -> None:
    """The first of the ways that gives the model itself."""
    failed, is_other = [], False
    for place, way in _ways(source, staged):
        try:
            way(folder)
            if folder_digest(folder) == source.digest:
                return
            is_other = True
            failed.append(
                f"the files in {place} are not those that the run was planned with; put these "
                "back, or start another run"
            )
        except Exception as error:  # of a disk, a store, a hub: each has its own
            failed.append(f"{place}: {one_line(error)}")
        for file in folder.iterdir():
            file.unlink()
    kind = ChangedError if is_other else ModelError
    raise kind(f"model {source.name!r} is not to be had here: {'; '.join(failed)}")


def _ways(
    source: ModelSource, staged: Staged | None
) -> Iterator[tuple[str, Callable[[Path], None]]]:
    yield str(source.path), lambda folder: _copy(source.path, folder)
    if staged is not None and staged.head(f"{source.digest}/{MANIFEST}") is not None:
        yield "its staged copy", lambda folder: _unpack(staged, source.digest, folder)
    if can_be_made(source):
        yield f"{source.name} made anew", lambda folder: make_again(source, folder)


def _copy(path: Path, folder: Path) -> None:
    for file in files_of(path):
        shutil.copyfile(file, folder / file.name)


def files_of(path: Path) -> list[Path]:
    """Of a model's folder what a load may read."""
    return sorted({file for pattern in WANTED for file in path.glob(pattern) if file.is_file()})


# --- staging ----------------------------------------------------------------------------------


def stage(source: ModelSource, staged: Staged) -> bool:
    """Put a model where nodes find it that see neither its folder nor a hub.

    Returns:
        False: it is there already.
    """
    if staged.head(f"{source.digest}/{MANIFEST}") is not None:
        return False
    told = {}
    for file in files_of(source.path):
        digest, n_parts = hashlib.sha256(), 0
        for n_parts, part in enumerate(_parts(file), 1):
            digest.update(part)
            staged.put(_key(source.digest, file.name, n_parts), part)
        told[file.name] = {"parts": n_parts, "sha256": digest.hexdigest()}
    manifest = {"name": source.name, "files": told}
    staged.put(f"{source.digest}/{MANIFEST}", json.dumps(manifest, indent=1).encode())
    return True


def _key(digest: str, name: str, part: int) -> str:
    return f"{digest}/{name}.{part:05d}"


def _parts(file: Path) -> Iterator[bytes]:
    with file.open("rb") as handle:
        while part := handle.read(PART_BYTES):
            yield part


def _unpack(staged: Staged, digest: str, folder: Path) -> None:
    files = json.loads(staged.get(f"{digest}/{MANIFEST}"))["files"]
    for name, told in files.items():
        if Path(name).name != name:
            raise ModelError(f"{MANIFEST} names {name!r}, which is no file of a folder")
        found = hashlib.sha256()
        with (folder / name).open("wb") as handle:
            for part in range(1, told["parts"] + 1):
                data = staged.get(_key(digest, name, part))
                found.update(data)
                handle.write(data)
        if found.hexdigest() != told["sha256"]:
            raise ModelError(f"{name} is not what was staged")


# --- disks ------------------------------------------------------------------------------------


def is_remote(path: Path, mounts: str = "/proc/self/mountinfo") -> bool:
    """Whether a path lies on a disk of a network, whose pages are not this node's own."""
    place, nearest, kind = path.resolve(), Path("/"), ""
    for line in Path(mounts).read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        mounted = Path(left.split()[4].replace("\\040", " "))
        if place.is_relative_to(mounted) and mounted.is_relative_to(nearest):
            nearest, kind = mounted, right.split()[0]
    return kind.startswith(NETWORKS)
