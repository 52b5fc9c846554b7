"""Asked to stop, by Ctrl-C, SIGTERM (Slurm, Kubernetes) or a closed terminal: once drains what is
in flight, twice aborts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class Stopper:
    """Asked by the executor between works; true once somebody has asked to stop."""

    def __init__(self, say: Callable[[str], None], how_to_resume: str) -> None:
        self._say, self._how = say, how_to_resume
        self._terminals: list[int] = []
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._leave_terminals()
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        with suppress(OSError, RuntimeError):  # RuntimeError: another line was being printed
            self._say(f"stopping when the shards in flight are done (again to abort); {self._how}")

    def _leave_terminals(self) -> None:
        """The terminal is gone, and each line to it would be an error."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in self._terminals:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While the body runs, signals come here. Outside the main thread nothing changes."""
        self._terminals = [n for n in (0, 1, 2) if os.isatty(n)]
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            numbers.append(signal.SIGHUP)
        try:
            before = {s: signal.signal(s, self._heard) for s in numbers}
        except ValueError:
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
