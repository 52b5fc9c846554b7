"""Lines that are written some at a time, in order, by a thread: whoever has one goes on at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from edgesweep.storage.errors import StorageError

#: a line waits no longer for others, and no more wait for a write
BATCH_S, BATCH = 0.5, 100


class Batches:
    """Hands lines to `write` in the order in which they were added. Outside `running` each is
    written when it is added. What goes wrong is raised by the next call, and by all after it.
    """

    def __init__(self, write: Callable[[list[dict[str, Any]]], None]) -> None:
        self._write = write
        self._waiting: list[dict[str, Any]] = []
        self._failure: BaseException | None = None
        self._guard, self._turn = threading.Lock(), threading.RLock()
        self._full, self._runs = threading.Event(), False

    def add(self, line: dict[str, Any]) -> None:
        """Raises what `write` raised."""
        with self._guard:
            self._waiting.append(line)
            if len(self._waiting) >= BATCH:
                self._full.set()
        if self._failure is not None:
            raise self._failure
        if not self._runs:
            self.flush()

    def flush(self) -> None:
        """Returns once all that was added is written. Raises what `write` raised."""
        with self._turn:
            if self._failure is not None:
                raise self._failure
            with self._guard:
                taken, self._waiting = self._waiting, []
            if taken:
                self._write(taken)

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the body runs, a thread writes. At its end all is written; of a body that failed,
        as far as that can be done."""
        ended = threading.Event()
        thread = threading.Thread(target=self._work, args=(ended,), daemon=True)
        self._runs = True
        thread.start()
        try:
            yield
            self.flush()
        finally:
            ended.set()
            self._full.set()
            thread.join()
            self._runs = False
            with suppress(StorageError):
                self.flush()

    def _work(self, ended: threading.Event) -> None:
        while not ended.is_set():
            self._full.wait(BATCH_S)
            self._full.clear()
            try:
                self.flush()
            except Exception as error:
                self._failure = error
                return
