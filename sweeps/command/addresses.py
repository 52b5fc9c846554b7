"""Where a run is, as the command is told: a path, or the address of a bucket. What is heavy is
imported where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesweep.sweeps.config.fields import ConfigError

if TYPE_CHECKING:
    from edgesweep.storage import RunDirectory


def check_alone(path: Path | str, take_over: bool) -> None:
    """Before models are loaded; a driver looks again when it claims the run."""
    from edgesweep.storage import StorageError
    from edgesweep.storage.epochs import Epochs
    from edgesweep.storage.stores import place

    try:
        if not take_over:
            Epochs(place(path)).check_alone()
    except StorageError as error:
        raise ConfigError(str(error)) from None


def check_there(where: Path | str) -> None:
    """Raises ConfigError where there is no run."""
    from edgesweep.storage import StorageError
    from edgesweep.storage.stores import place

    try:
        found = (place(where) / "plan.json").exists()
    except StorageError as error:
        raise ConfigError(str(error)) from None
    if not found:
        raise ConfigError(f"{where} holds no run: there is no plan.json")


def finished(where: Path | str) -> RunDirectory | None:
    """A large run of which nothing is left; None for any other, and where there is none."""
    from edgesweep.storage import RunDirectory, StorageError
    from edgesweep.sweeps.soundness.finished import is_finished

    try:
        run = RunDirectory.open(where)
        return run if is_finished(run) else None
    except StorageError:
        return None  # what is wrong is said by whoever goes on
