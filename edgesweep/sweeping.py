"""A whole sweep from Python or a notebook: what `edgesweep run` does."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgesweep.runs import Run, open_run
from edgesweep.sweeps.command.cli import make_page, say_how_it_ended
from edgesweep.sweeps.config.load import load_config
from edgesweep.sweeps.launch import drive, start
from edgesweep.sweeps.progress import PlainProgress, Progress, make_progress


def sweep(
    config: str | Path | Mapping[str, Any], out: str | Path | None = None, **overrides: Any
) -> Run:
    """Run a config, or resume it if its directory holds it already.

    Args:
        config: a YAML file, a preset's name, or the sections themselves.
        out: the run directory; None: `runs/<name>`.
        overrides: keys that are set otherwise: `seed=1`, `data={"n_build": 64}`.

    Returns:
        The run; its `status` says whether shards were quarantined or are left.

    Raises:
        ConfigError: the config is wrong, and nothing was written.
        Refused, Fenced, StorageError, ExecutorError: it cannot go on; run it again to resume.
    """
    told = [f"{key}={json.dumps(value)}" for key, value in _leaves(overrides)]
    loaded = load_config(config if isinstance(config, Mapping) else str(config), told)
    launch = start(loaded, Path(out or Path("runs") / loaded.name))
    outcome = drive(launch, _progress(), page=make_page)
    say_how_it_ended(launch, outcome)
    return open_run(launch.run.url)


def _leaves(overrides: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """`section.key` and its value."""
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", of_inner) for inner, of_inner in value.items())
        else:
            yield key, value


class LineProgress(PlainProgress):
    """One line that is written over as shards are committed: a notebook's bar."""

    def tick(self, stage: str, failed: bool = False) -> None:
        self.all.tick(failed)
        print(f"\r{self.all.line(time.monotonic() - self.began)}", end="", flush=True)

    def end(self) -> None:
        print()


def _progress() -> Progress:
    return LineProgress() if "ipykernel" in sys.modules else make_progress()
