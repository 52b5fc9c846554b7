"""Who writes, when a work is done twice at once: whoever asks first. Two writers of one chunk must
never be.

An attempt asks before its first write; the answer is that of one process, an actor beside the
driver. With no backups there is nobody to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Ask = Callable[[], bool]


class NotGranted(RuntimeError):
    """Another attempt at the work writes."""


class Grants:
    """Work -> the attempt that may write. It lives in an actor of its own."""

    def __init__(self) -> None:
        self._granted: dict[str, int] = {}

    def ask(self, key: str, number: int) -> bool:
        """Of several attempts the first to ask is granted it, each time that it asks."""
        return self._granted.setdefault(key, number) == number

    def forget(self, key: str, number: int) -> None:
        """That attempt has ended."""
        if self._granted.get(key) == number:
            del self._granted[key]


_ask: Ask | None = None


@contextmanager
def asking(ask: Ask | None) -> Iterator[None]:
    """While the body runs, what writes in this process asks first."""
    global _ask
    _ask = ask
    try:
        yield
    finally:
        _ask = None


def check_granted() -> None:
    """Before each write of a work. Raises NotGranted."""
    global _ask
    if _ask is None:
        return
    if not _ask():
        raise NotGranted("another attempt at this work writes")
    _ask = None  # once is enough
