"""The cache of models on this machine: folders that are written once and checked at each use."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

#: in a cache folder: what its files were when it was written
DIGESTS = "sha256.json"


def cache_folder() -> Path:
    """Where de-quantized and generated models live: $EDGESWEEP_CACHE or ~/.cache/edgesweep."""
    return Path(os.environ.get("EDGESWEEP_CACHE", Path.home() / ".cache" / "edgesweep"))


def cached(key: str, write: Callable[[Path], None]) -> Path:
    """The cache folder of `key`, written beside and moved in whole.

    It keeps the digests of its files: a folder that is not there, or is not what was written, is
    made anew.
    """
    final = cache_folder() / "models" / key
    if _is_whole(final):
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=final.parent))
    try:
        made = scratch / "made"
        made.mkdir()
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # some bars know no switch
            write(made)
        (made / DIGESTS).write_text(json.dumps(_digests(made), indent=1), encoding="utf-8")
        _replace(made, final, scratch / "old")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return final


def _replace(made: Path, final: Path, old: Path) -> None:
    """Move a folder in; where another process moved its own in first, that one stays."""
    with contextlib.suppress(OSError):
        if final.exists() and not _is_whole(final):
            final.rename(old)
        made.rename(final)


def _is_whole(folder: Path) -> bool:
    """Whether a cache folder is what was written."""
    try:
        return bool(json.loads((folder / DIGESTS).read_bytes()) == _digests(folder))
    except (OSError, ValueError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(f for f in folder.iterdir() if f.name != DIGESTS)
    return {file.name: file_digest(file).hex() for file in files}


def file_digest(file: Path) -> bytes:
    """sha256 of a file's bytes."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()


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
