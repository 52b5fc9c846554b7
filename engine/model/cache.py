"""The cache of models on this machine: folders written once, digests computed once."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def cache_folder() -> Path:
    """Where de-quantized and generated models live: $EDGESWEEP_CACHE or ~/.cache/edgesweep."""
    return Path(os.environ.get("EDGESWEEP_CACHE", Path.home() / ".cache" / "edgesweep"))


def cached(key: str, write: Callable[[Path], None]) -> Path:
    """The cache folder of `key`, written beside and moved in whole if it is not there yet."""
    final = cache_folder() / "models" / key
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=final.parent))
    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # some bars know no switch
            write(scratch)
        with contextlib.suppress(OSError):  # another process moved its own in first
            scratch.rename(final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return final


def folder_digest(folder: Path) -> str:
    """sha256 of config and weights; remembered beside the weights by their sizes and times."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    stamp = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    memo = (
        cache_folder()
        / "digests"
        / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]}.json"
    )
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(memo.read_text())
        if known["stamp"] == stamp:
            return str(known["digest"])
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode())
        with file.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    with contextlib.suppress(OSError):  # a read-only cache only costs the time again
        memo.parent.mkdir(parents=True, exist_ok=True)
        memo.write_text(json.dumps({"stamp": stamp, "digest": total.hexdigest()}))
    return total.hexdigest()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars and advice of the loader off the user's terminal."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
