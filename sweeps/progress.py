"""What a person sees of a run: a bar with rate and time left on a terminal, plain lines elsewhere.

The rate is of this driver's own work, so a resumed run does not boast of what was there already.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

SECONDS_A_LINE = 10.0


class Progress(Protocol):
    """Hears of stages and shards."""

    def begin(
        self, titles: Mapping[str, str], planned: Mapping[str, int], done: Mapping[str, int]
    ) -> None:
        """Shards begin: of each stage its title, its shards in all, those that were there."""

    def tick(self, stage: str, failed: bool = False) -> None:
        """A shard was committed, or given up."""

    def end(self) -> None:
        """No more shards are done."""

    def say(self, text: str) -> None:
        """A line of its own."""


@dataclass
class _Count:
    """Shards of a stage, or of all."""

    title: str
    total: int
    at_start: int
    done: int = 0
    failed: int = 0

    def tick(self, failed: bool) -> None:
        self.done += not failed
        self.failed += failed

    @property
    def left(self) -> int:
        return self.total - self.at_start - self.done - self.failed

    def line(self, elapsed_s: float) -> str:
        """Whatever is done, at what rate, and how long it will still take."""
        rate = self.done / max(elapsed_s, 1e-9)
        parts = [f"{self.title}: {self.at_start + self.done}/{self.total}"]
        if self.left and rate > 0:
            parts += [f"{rate:.2f} shards/s", f"{duration(self.left / rate)} left"]
        if not self.left:
            parts.append(f"after {duration(elapsed_s)}")
        if self.failed:
            parts.append(f"{self.failed} quarantined")
        return ", ".join(parts)


class PlainProgress:
    """Lines: one when a stage is done, and one of all shards every `SECONDS_A_LINE`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def begin(
        self, titles: Mapping[str, str], planned: Mapping[str, int], done: Mapping[str, int]
    ) -> None:
        self._stages = {s: _Count(titles[s], planned[s], done[s]) for s in titles}
        self.all = _Count("shards", sum(planned.values()), sum(done.values()))
        self.began = self._spoke = time.monotonic()
        if self.all.left:
            todo = [f"{count.title} {count.left}" for count in self._stages.values() if count.left]
            there = f", {self.all.at_start} there already" if self.all.at_start else ""
            self.say(f"{self.all.left} shards ({', '.join(todo)}){there}")

    def tick(self, stage: str, failed: bool = False) -> None:
        now, count = time.monotonic(), self._stages[stage]
        for one in (count, self.all):
            one.tick(failed)
        if not count.left:
            self.say(count.line(now - self.began))
        elif now - self._spoke >= SECONDS_A_LINE:
            self.say(self.all.line(now - self.began))
        else:
            return
        self._spoke = now

    def end(self) -> None:
        if self.all.left and (self.all.done or self.all.failed):
            self.say(self.all.line(time.monotonic() - self.began))

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class BarProgress:
    """A bar for each stage that is at work."""

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
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._tasks: dict[str, Any] = {}

    def begin(
        self, titles: Mapping[str, str], planned: Mapping[str, int], done: Mapping[str, int]
    ) -> None:
        self._titles, self._planned, self._done = titles, planned, dict(done)
        if sum(planned.values()) > sum(done.values()):
            self._bars.start()

    def tick(self, stage: str, failed: bool = False) -> None:
        if stage not in self._tasks:
            total, there = self._planned[stage], self._done[stage]
            self._tasks[stage] = self._bars.add_task(
                self._titles[stage], total=total, completed=there
            )
        self._bars.update(self._tasks[stage], advance=0 if failed else 1)

    def end(self) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Silence:
    """Says nothing."""

    def begin(
        self, titles: Mapping[str, str], planned: Mapping[str, int], done: Mapping[str, int]
    ) -> None: ...

    def tick(self, stage: str, failed: bool = False) -> None: ...

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
