"""What can go wrong on the way to a model, in one line each."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

LIMIT_CHARS = 300


class ModelError(ValueError):
    """A model that cannot be found or used; the message is one line."""


class ChangedError(ModelError):
    """What lies on the disk is not what the run was planned with; no retry mends it."""

    stops_run = True


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Any error becomes a ModelError that begins with `what`.

    Readers of foreign files raise many kinds, some with pages of advice; all mean: not for us. Only
    want of memory stays what it is, for a smaller batch may mend it.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ModelError(f"{what}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """What an error says, on one line; its type where that says more."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if not text:
        return kind
    named = f"{kind}: {text}" if isinstance(error, LookupError | AttributeError) else text
    return named if len(named) <= LIMIT_CHARS else f"{named[:LIMIT_CHARS]}…"
