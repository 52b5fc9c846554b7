"""Drivers that are killed before one durable operation of their own choosing.

Run as a module: it imports all that a driver needs, which takes most of the time of a tiny run, and
then forks a driver for each line on its input: JSON with `out`, and with `kill_before`, the number
of the operation that is not to happen (none: 0). It answers with how the driver ended and how many
operations it began. Forking is sound as long as there is one thread, which is looked at.

A durable operation is whatever changes the run directory: an open for writing, a link, a rename,
an unlink, a new folder, and each fsync. They are heard of by Python's audit events, before they
happen, so that no code has to tell of itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import edgesweep.dashboards.report  # noqa: F401  (imported late by the command line)
from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.sweeps.command import cli
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import start
from tests.sweeps.helpers import BLOCKS, tiny

EVENTS = {"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def config() -> dict[str, Any]:
    """Every stage, and little in each."""
    return tiny(
        sweep={"method": "eap"},
        evaluate={
            "eval_patch": ["mean"],
            "threshold": [5, 40, 130, 240],
            "ablation": "edge",
            "reach": {"faithfulness": 0.6, "metric": "kl"},
        },
        data={"n_build": 2, "n_eval": 2, "mean_positions": "pooled"},
        measures={"minimality": 5, "interpolate": 2, "fractions": 2, "bootstrap": 5, "rebuild": 2},
        blocks={**BLOCKS, "chains": 1} if find_interpreter() else {},
    )


class Watch:
    """Counts operations on a folder, and ends the process before one of them."""

    def __init__(self, folder: Path, kill_before: int) -> None:
        self._folder, self._kill_before = str(folder), kill_before
        self.n = 0
        self._fsync = os.fsync
        os.fsync = self._watched_fsync
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & WRITING and isinstance(path, str | os.PathLike):
                self._count(path)
        elif event in EVENTS:
            self._count(arguments[1] if event in ("os.link", "os.rename") else arguments[0])

    def _watched_fsync(self, descriptor: int) -> None:
        self._count(os.readlink(f"/proc/self/fd/{descriptor}"))
        self._fsync(descriptor)

    def _count(self, path: Any) -> None:
        if os.fspath(path).startswith(self._folder):
            self.n += 1
            if self.n == self._kill_before:
                os.kill(os.getpid(), signal.SIGKILL)


def drive(out: Path, kill_before: int, printed: Path) -> int:
    """A driver from config to page, as the command line has it; how many operations it began."""
    descriptor = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    watch = Watch(out, kill_before)
    code = cli.drive_and_tell(start(parse_config(config()), out))
    assert code == 0, f"the driver ended with {code}"
    return watch.n


def forked(out: Path, kill_before: int) -> dict[str, Any]:
    """The same in a process of its own."""
    assert len(os.listdir("/proc/self/task")) == 1, "a fork would lose the other threads"
    reading, writing = os.pipe()
    printed = out.with_name("printed")
    if (child := os.fork()) == 0:
        try:
            os.write(writing, str(drive(out, kill_before, printed)).encode())
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return {"killed": os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "said": said}


if __name__ == "__main__":
    torch.set_num_threads(1)
    tempfile.tempdir = tempfile.gettempdir()  # looked for by opening files
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(forked(Path(asked["out"]), asked["kill_before"])), flush=True)
