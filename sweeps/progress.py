"""What a person sees of a run: a bar with rate and time left on a terminal, plain lines elsewhere.

The rate is of this driver's own work, so a resumed run does not boast of what was there already.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol, TextIO

SECONDS_A_LINE = 10.0


class Progress(Protocol):
    """Hears of stages and shards."""

    def begin(self, name: str, total: int, done: int) -> None:
        """A wave begins: shards in all, and those that were there already."""

    def tick(self, failed: bool = False) -> None:
        """A shard was committed, or given up."""

    def end(self) -> None:
        """The wave is over."""

    def say(self, text: str) -> None:
        """A line of its own."""


class PlainProgress:
    """Lines, one a wave and one every `SECONDS_A_LINE` within it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def begin(self, name: str, total: int, done: int) -> None:
        self._name, self._total, self._done = name, total, done
        self._at_start, self._failed = done, 0
        self._began = self._spoke = time.monotonic()
        if done < total:
            already = f", {done} there already" if done else ""
            self.say(f"{name}: {total} shards{already}")

    def tick(self, failed: bool = False) -> None:
        self._done += not failed
        self._failed += failed
        left = self._total - self._done - self._failed
        if left and time.monotonic() - self._spoke >= SECONDS_A_LINE:
            self._spoke = time.monotonic()
            self.say(self._line())

    def end(self) -> None:
        if self._done > self._at_start or self._failed:
            self.say(self._line())

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def _line(self) -> str:
        elapsed_s = max(time.monotonic() - self._began, 1e-9)
        rate = (self._done - self._at_start) / elapsed_s
        left = self._total - self._done - self._failed
        parts = [f"{self._name}: {self._done}/{self._total}", f"{rate:.2f} shards/s"]
        if left and rate > 0:
            parts.append(f"{duration(left / rate)} left")
        if not left:
            parts.append(f"took {duration(elapsed_s)}")
        if self._failed:
            parts.append(f"{self._failed} quarantined")
        return ", ".join(parts)


class BarProgress:
    """A bar for each wave."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        self._console = Console()
        self._bars = Bars(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task: Any = None

    def begin(self, name: str, total: int, done: int) -> None:
        self._began, self._ticks = time.monotonic(), 0
        if done == total:
            self._task = None
            return
        self._bars.start()
        self._task = self._bars.add_task(name, total=total, completed=done, rate="")

    def tick(self, failed: bool = False) -> None:
        self._ticks += 1
        rate = self._ticks / max(time.monotonic() - self._began, 1e-9)
        self._bars.update(self._task, advance=0 if failed else 1, rate=f"{rate:.2f}/s")

    def end(self) -> None:
        self._bars.stop()
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Silence:
    """Says nothing."""

    def begin(self, name: str, total: int, done: int) -> None: ...

    def tick(self, failed: bool = False) -> None: ...

    def end(self) -> None: ...

    def say(self, text: str) -> None: ...


def make_progress() -> Progress:
    """A bar on a terminal, plain lines elsewhere."""
    return BarProgress() if sys.stdout.isatty() else PlainProgress()


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
