"""What can go wrong with a run directory, as one line each."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ADVICE = {
    errno.ENOSPC: ("the disk is full", "free space there, then resume the run"),
    errno.EDQUOT: ("the disk quota is used up", "free space there, then resume the run"),
    errno.EFBIG: ("the file would be larger than is allowed here", "raise the limit (ulimit -f)"),
    errno.EROFS: ("the file system is read-only", "choose another folder with --out"),
    errno.EACCES: ("permission denied", "choose a folder that you may write, with --out"),
    errno.EPERM: ("permission denied", "choose a folder that you may write, with --out"),
    errno.ENOTDIR: ("a part of the path is a file", "choose another folder with --out"),
    errno.ENOTSUP: (
        "the disk has no hard links, nor a rename that replaces nothing",
        "choose a folder on another disk with --out",
    ),
    errno.EIO: ("the disk reports an error", "check the disk, then resume the run"),
}


class StorageError(Exception):
    """The run directory cannot be read or written; one line with path, cause and remedy.

    `stops_run` tells the executor that no retry mends it.
    """

    stops_run = True


class OtherRunError(StorageError):
    """The directory holds another run. `differences`: (dotted field, ours, theirs)."""

    def __init__(self, message: str, differences: tuple[tuple[str, object, object], ...] = ()):
        super().__init__(message, differences)
        self.differences = differences

    def __str__(self) -> str:
        return str(self.args[0])


class DamagedRecord(StorageError):
    """A record is not as it was written."""


class Refused(StorageError):
    """Seen before any work: the run cannot be driven here and now; nothing was written."""


class Busy(Refused):
    """A driver is at work on this run directory."""


class Fenced(StorageError):
    """A newer driver has taken over this run directory; this one must commit nothing more."""


@contextmanager
def storage_errors(path: Path | str, action: str = "write") -> Iterator[None]:
    """Turns an OSError of the body into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError(_line(error, path, action)) from error


def _line(error: OSError, path: Path | str, action: str) -> str:
    default = (error.strerror or str(error) or type(error).__name__, "check that folder")
    cause, advice = _ADVICE.get(error.errno or 0, default)
    return f"cannot {action} {path}: {cause}; {advice}"
