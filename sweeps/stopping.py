"""Ctrl-C: once drains what is in flight, twice aborts. SIGTERM drains too."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopper:
    """Asked by the executor between works; true once a person has asked to stop."""

    def __init__(self, say: Callable[[str], None], how_to_resume: str) -> None:
        self._say, self._how = say, how_to_resume
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._say(f"stopping when the shards in flight are done (again to abort); {self._how}")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While the body runs, signals come here. Outside the main thread nothing changes."""
        try:
            before = {s: signal.signal(s, self._heard) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
